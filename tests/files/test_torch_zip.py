"""PyTorch's files against PyTorch: fixtures that it wrote (`make_fixtures.py`), what it reads, and hostile files."""

import io
import os
import pickle
import pickletools
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ispf_jax.errors import ArgumentError
from ispf_jax.files import read_weights, torch_zip

FIXTURES = Path(__file__).parent / "fixtures"


def read(data):
    return torch_zip.read(data)[0]


def test_types_and_views_that_pytorch_wrote():
    saved = read((FIXTURES / "types.pt").read_bytes())
    with np.load(FIXTURES / "types.npz") as expected:
        assert set(expected) == set(saved["tensors"])
        for name, value in saved["tensors"].items():
            assert value.shape == expected[name].shape, name
            np.testing.assert_array_equal(value.astype(np.float64), expected[name], err_msg=name)
    dtypes = {name: value.dtype.name for name, value in list(saved["tensors"].items())[:10]}
    assert dtypes == {name: name for name in dtypes}
    assert saved["lists"] == [1, (2.5, None), "text"] and saved["size"] == (2, 3, 4)


def test_a_whole_checkpoint_with_objects_of_other_programs():
    saved = read((FIXTURES / "resnet18.pt").read_bytes())
    assert saved["epoch"] == 3 and saved["args"].name == "argparse Namespace"
    assert saved["optimizer"]["param_groups"][0]["momentum"] == 0.9
    assert len(saved["state_dict"]) == 122 and saved["state_dict"]["module.bn1.num_batches_tracked"] == 17


TENSORS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "a.counter": np.array(3, np.int64),
    "ü": np.array([True, False]),
    "half": np.ones((0, 2), np.float16),
    "short": np.array([1.5, -2], ml_dtypes.bfloat16),
}


def assert_same(got, want):
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        np.testing.assert_array_equal(got[name], value)


def test_what_is_written_is_read_again(monkeypatch):
    """And is the same at another time."""
    written = torch_zip.write(TENSORS, {})
    assert_same(read(written), TENSORS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert torch_zip.write(TENSORS, {}) == written


def test_pytorch_reads_what_is_written():
    torch = pytest.importorskip("torch")
    loaded = torch.load(io.BytesIO(torch_zip.write(TENSORS, {})), weights_only=True)
    assert type(loaded).__name__ == "OrderedDict" and all(value.is_contiguous() for value in loaded.values())
    short = loaded.pop("short").float().numpy().astype(ml_dtypes.bfloat16)
    assert_same({name: value.numpy() for name, value in loaded.items()} | {"short": short}, TENSORS)


def test_the_pickle_has_only_what_a_careful_reader_allows():
    """The functions of PyTorch's own file of such tensors; nothing is left on the stack, which pickletools checks."""

    def functions(data):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        pickletools.dis(content, io.StringIO())
        return {argument for opcode, argument, _ in pickletools.genops(content) if opcode.name == "GLOBAL"}

    written = functions(torch_zip.write({"x": np.ones(3, np.float32)}, {}))
    assert written == {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
    assert written <= functions((FIXTURES / "resnet18.pt").read_bytes())


class Dangerous:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def as_file(content, storages=(), **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("x/data.pkl", content)
        for key, data in enumerate(storages):
            archive.writestr(f"x/data/{key}", data)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_file_is_run(protocol, tmp_path):
    """And what else is in the pickle is read, in every protocol that `torch.save` can be asked for."""
    plain = {"list": [1, -(2**40), 2.5, None, True], "tuples": ((), (1,), (1, 2, 3, "é" * 300))}
    content = pickle.dumps(plain | {"a": Dangerous(tmp_path / "made")}, protocol=protocol)
    pickle.loads(content)
    assert (tmp_path / "made").exists()  # so the file would do it
    (tmp_path / "made").unlink()
    found = read(as_file(content))
    assert found.pop("a").name.endswith("Path.touch") or protocol < 4
    assert found == plain
    assert not (tmp_path / "made").exists()


def part(value):
    """The opcodes of a value, by Python's own pickler."""
    return pickle.dumps(value, protocol=2)[2:-1]


BEGIN = pickle.PROTO + b"\x02"
STORAGE = pickle.MARK + part("storage") + b"ctorch\nFloatStorage\n" + part("0") + part("cpu")


def storage_of(count):
    return STORAGE + part(count) + pickle.TUPLE + pickle.BINPERSID


def tensor_of(storage, *numbers):
    """The opcodes of a tensor: of its storage, and then offset, size and strides."""
    arguments = pickle.MARK + storage + b"".join(map(part, numbers)) + pickle.TUPLE
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + pickle.REDUCE


SIX = np.arange(6, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    "storage, offset, size, stride, fits",
    [
        (storage_of(6), 0, (2, 3), (3, 1), True),
        (storage_of(6), 5, (1, 1), (9, 9), True),
        (storage_of(6), 1, (2, 3), (3, 1), False),
        (storage_of(6), 0, (2, 3), (4, 1), False),
        (storage_of(6), 0, (7,), (1,), False),
        (storage_of(6), 0, (3,), (-1,), False),
        (storage_of(6), -1, (2,), (1,), False),
        (storage_of(7), 0, (2,), (1,), False),
        (storage_of(6), 0, (2, 3), (1,), False),
        (storage_of(6), 0, (2**30, 4), (0, 0), False),
        (storage_of(6), 0, (2**50, 0), (0, 0), False),
        (storage_of(6), 0, (1,) * 9, (1,) * 9, False),
        (storage_of(6), 0, (2.0, 3), (3, 1), False),
        (storage_of(6), 0, [2, 3], [3, 1], False),
        (tensor_of(storage_of(6), 0, (6,), (1,)), 0, (6,), (1,), False),  # could reach other memory
    ],
)
def test_tensors_stay_inside_their_data(storage, offset, size, stride, fits, tmp_path):
    tensor = tensor_of(storage, offset, size, stride)
    (tmp_path / "x.pt").write_bytes(
        as_file(BEGIN + part({}) + part("x") + tensor + pickle.SETITEM + pickle.STOP, [SIX])
    )
    if fits:
        assert read_weights(tmp_path / "x.pt").tensors["x"].shape == size
    else:
        with pytest.raises(
            ArgumentError, match=r"x.pt is damaged or cannot be read \((it has a tensor|buffer is smaller)"
        ):
            read_weights(tmp_path / "x.pt")


def of_many(count, size):
    """A state_dict of tensors that are all the same part of one storage, and its data."""
    memo = pickle.BINPUT + b"\x00"
    entries = [part("0") + tensor_of(storage_of(size), 0, (size,), (1,)) + memo]
    entries += [part(str(i))[: -len(b"q\x00")] + pickle.BINGET + b"\x00" for i in range(1, count)]
    content = BEGIN + pickle.EMPTY_DICT + pickle.MARK + b"".join(entries) + pickle.SETITEMS + pickle.STOP
    return as_file(content, [bytes(4 * size)])


def laughs():
    """A dictionary of four times the dictionary before, forty times."""
    opcodes = pickle.EMPTY_DICT + pickle.BINPUT + b"\0" + pickle.POP
    for i in range(1, 40):
        entries = b"".join(part(k)[:-2] + pickle.BINGET + bytes([i - 1]) + pickle.SETITEM for k in "abcd")
        opcodes += pickle.EMPTY_DICT + entries + pickle.BINPUT + bytes([i]) + pickle.POP
    return BEGIN + opcodes + pickle.BINGET + bytes([39]) + pickle.STOP


def nested(depth=60):
    """The opcodes of a tuple of two times the tuple before, and so on: a hash or text of it would take for ever."""
    return b")" + b"2\x86" * depth


def refers_to(kind, symbol, key):
    return as_file(BEGIN + pickle.MARK + kind + symbol + key + part("cpu") + part(1) + pickle.TUPLE + b"Q.", [SIX])


def often(count, *opcodes):
    """The same call again and again, of something large that is there once."""
    return as_file(BEGIN + opcodes[0] + b"".join(opcodes[1:]) * count + b"N.")


def many_networks(count):
    """A dictionary of `count` dictionaries of one tensor each, and one of them under as many names."""
    tensor = tensor_of(storage_of(6), 0, (6,), (1,)) + b"q\x00"
    each = b"".join(part(str(i))[:-2] + b"}X\1\0\0\0ah\0s" for i in range(count))
    return as_file(BEGIN + tensor + b"0}(" + each + b"u.", [SIX])


def with_entry(data, name, content):
    file = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(name, content)
    return file.getvalue()


def safe(header, data):
    return len(header).to_bytes(8, "little") + header.encode() + data


ONE = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
SIZE = b"ctorch\nSize\nq\x01"
WHOLE = (FIXTURES / "types.pt").read_bytes()
BAD = {
    "empty": (lambda: b"", "is empty; make or fetch it again"),
    "cut": (lambda: WHOLE[: len(WHOLE) // 2], "is damaged"),
    "beginning lost": (lambda: b"PK\3\4" + WHOLE[50:], "is damaged"),
    "two letters": (lambda: b"PK", "is of no known format"),
    "not a pickle": (lambda: as_file(b"not a pickle"), "is damaged"),
    "pickle cut": (lambda: as_file(pickle.dumps(3)[:-1]), "is damaged"),
    "an object": (lambda: as_file(pickle.dumps(Namespace(lr=1), 2)), r"objects \(it: argparse.Namespace\)"),
    "arrays": (lambda: (FIXTURES / "logits.npz").read_bytes(), "is an archive of NumPy; write it as {name: array}"),
    "big endian": (lambda: with_entry(as_file(BEGIN + b"}."), "x/byteorder", "big"), "big-endian"),
    "a name twice": (lambda: with_entry(as_file(BEGIN + b"}."), "x/data.pkl", "x"), "two files of the same name"),
    "compressed": (lambda: as_file(BEGIN + b"}.", compression=zipfile.ZIP_DEFLATED), "are compressed or overlap"),
    "laughs": (lambda: as_file(laughs()), "holds none where one state_dict"),
    "memo": (lambda: as_file(BEGIN + b"Nr\0\0\0\x20."), "holds none where"),
    "long": (lambda: as_file(BEGIN + b"N0" * 500_000 + b"N."), "a pickle that is too long"),
    "large": (lambda: as_file(bytes(17 << 20)), "a pickle that is too large"),
    "unknown opcode": (lambda: as_file(BEGIN + b"S'x'\nQ."), "is damaged"),
    "many tensors": (lambda: of_many(10_001, 1), "more, or larger, tensors"),
    "one storage": (lambda: of_many(9_999, 1 << 16), "more, or larger, tensors"),
    "colliding keys": (lambda: as_file(BEGIN + b"}(" + b"K\1K\1\x86N" * 9 + b"u."), "holds none where"),
    "nested key": (lambda: refers_to(part("storage"), b"ctorch\nFloatStorage\n", nested()), "no storage"),
    "nested kind": (lambda: refers_to(nested(), b"ctorch\nFloatStorage\n", part("0")), "no storage"),
    "nested type": (lambda: refers_to(part("storage"), nested(), part("0")), "no storage"),
    "unknown type": (lambda: refers_to(part("storage"), b"ctorch\nXStorage\n", part("0")), "not known here, torch XSt"),
    "long names": (lambda: often(50_000, part("x" * 8_000_000) + b"0", b"h\0h\0\x930"), "holds none where"),
    "many arguments": (lambda: often(50_000, b"(" + b"N" * 99_999 + b"tq\0" + SIZE, b"h\1h\0R0"), "too many arguments"),
    "text for arguments": (lambda: often(50_000, part("x" * 8_000_000) + SIZE, b"h\1h\0R0"), "too many arguments"),
    "many networks": (lambda: many_networks(10_000), r"holds several \(0, 1, 2 and 9997 more\)"),
    "two tensors of a name": (lambda: safe(f'{{"a":{ONE},"a":{ONE}}}', bytes(4)), "two tensors or entries of the same"),
    "web page": (lambda: b"<!DOCTYPE html>", "is a web page"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "header": (lambda: (1 << 40).to_bytes(8, "little") + b"{" + bytes(99), "has a header that is too long"),
    "offsets": (lambda: (14).to_bytes(8, "little") + b'{"a":{"dtype":', "is damaged"),
}


@pytest.mark.parametrize("what", BAD)
def test_hostile_and_damaged_files_end_with_a_sentence(what, tmp_path):
    content, message = BAD[what]
    (tmp_path / "bad.pt").write_bytes(content())
    with pytest.raises(ArgumentError, match=message) as refused:
        read_weights(tmp_path / "bad.pt")
    assert refused.value.argument == "path" and "bad.pt" in str(refused.value)


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.pt")
    with open(tmp_path / "sparse.pt", "wb") as file:
        file.truncate(1 << 42)
    kinds = {
        "fifo.pt": "a pipe, socket or device",
        "sparse.pt": "at most 2,147,483,648 are read",
        "none.pt": "No such file",
        ".": "a directory",
    }
    for path, message in {
        **{tmp_path / name: text for name, text in kinds.items()},
        "/dev/zero": "a pipe, socket or device",
    }.items():
        with pytest.raises(ArgumentError, match=f"path: .*{message}"):
            read_weights(path)


def test_a_pickle_changes_neither_functions_nor_objects():
    function = BEGIN + b"ctorch._utils\n_rebuild_tensor_v2\n" + part((None, {"__doc__": "changed"})) + pickle.BUILD
    assert read(as_file(function + pickle.STOP)).name == "torch._utils _rebuild_tensor_v2"
    ordered = BEGIN + b"ccollections\nOrderedDict\n)R" + part({"items": 5}) + pickle.BUILD + pickle.STOP
    assert read(as_file(ordered)) == {}
