"""PyTorch's files against PyTorch itself: fixtures that it wrote (`make_fixtures.py`), and, where it is installed, what it reads."""

import io
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ispf_jax.files import torch_file

FIXTURES = Path(__file__).parent / "fixtures"


def test_types_and_views_that_pytorch_wrote():
    saved = torch_file.read((FIXTURES / "types.pt").read_bytes())
    with np.load(FIXTURES / "types.npz") as expected:
        assert set(expected) == set(saved["tensors"])
        for name, value in saved["tensors"].items():
            assert value.shape == expected[name].shape, name
            np.testing.assert_array_equal(value.astype(np.float64), expected[name], err_msg=name)
    assert {name: value.dtype.name for name, value in list(saved["tensors"].items())[:10]} == {
        name: name for name in list(saved["tensors"])[:10]
    }
    assert saved["lists"] == [1, (2.5, None), "text"] and saved["size"] == (2, 3, 4)


def test_a_whole_checkpoint_with_objects_of_other_programs():
    saved = torch_file.read((FIXTURES / "resnet18.pt").read_bytes())
    assert (
        saved["epoch"] == 3
        and isinstance(saved["args"], torch_file.Opaque)
        and type(saved["args"]).__name__ == "Namespace"
    )
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


def test_what_is_written_is_read_again():
    assert_same(torch_file.read(torch_file.write(TENSORS)), TENSORS)


def test_the_same_tensors_give_the_same_file(monkeypatch):
    before = torch_file.write(TENSORS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert torch_file.write(TENSORS) == before


def test_pytorch_reads_what_is_written():
    torch = pytest.importorskip("torch")
    loaded = torch.load(io.BytesIO(torch_file.write(TENSORS)), weights_only=True)
    assert type(loaded).__name__ == "OrderedDict" and all(value.is_contiguous() for value in loaded.values())
    as_numpy = {
        name: value.float().numpy().astype(ml_dtypes.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()
        for name, value in loaded.items()
    }
    assert_same(as_numpy, TENSORS)


def test_the_pickle_has_only_what_a_careful_reader_allows():
    """The same functions as PyTorch's own file of such tensors, and nothing is left on the stack: Python's pickletools checks that."""
    import pickletools

    def functions(data):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        pickletools.dis(content, io.StringIO())
        return {argument for opcode, argument, _ in pickletools.genops(content) if opcode.name == "GLOBAL"}

    written = functions(torch_file.write({"x": np.ones(3, np.float32)}))
    assert written == {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
    assert written <= functions((FIXTURES / "resnet18.pt").read_bytes())


class Dangerous:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def as_file(content, storages=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", content)
        for key, data in enumerate(storages):
            archive.writestr(f"x/data/{key}", data)
    return file.getvalue()


def test_nothing_in_a_file_is_run(tmp_path):
    content = pickle.dumps({"a": Dangerous(tmp_path / "made")}, protocol=2)
    pickle.loads(content)
    assert (tmp_path / "made").exists()  # so the file would do it
    (tmp_path / "made").unlink()
    assert set(torch_file.read(as_file(content))) == {"a"}
    assert not (tmp_path / "made").exists()


def tensor_of(count, offset, size, stride):
    """A pickle of one tensor with these numbers, by the writer's own pieces."""
    storage = (
        torch_file._tuple(
            torch_file._text("storage"),
            torch_file._named("torch", "FloatStorage"),
            torch_file._text("0"),
            torch_file._text("cpu"),
            torch_file._number(count),
        )
        + pickle.BINPERSID
    )
    size, stride = (torch_file._tuple(*map(torch_file._number, numbers)) for numbers in (size, stride))
    arguments = torch_file._tuple(storage, torch_file._number(offset), size, stride)
    return (
        pickle.PROTO
        + b"\x02"
        + torch_file._named("torch._utils", "_rebuild_tensor_v2")
        + arguments
        + pickle.REDUCE
        + pickle.STOP
    )


@pytest.mark.parametrize(
    "count, offset, size, stride, fits",
    [
        (6, 0, (2, 3), (3, 1), True),
        (6, 1, (2, 3), (3, 1), False),
        (6, 0, (2, 3), (4, 1), False),
        (6, 0, (7,), (1,), False),
        (6, 0, (3,), (-1,), False),
        (6, -1, (2,), (1,), False),
        (7, 0, (2,), (1,), False),
        (6, 5, (1, 1), (9, 9), True),
    ],
)
def test_tensors_stay_inside_their_data(count, offset, size, stride, fits):
    data = as_file(tensor_of(count, offset, size, stride), [np.arange(6, dtype=np.float32).tobytes()])
    if fits:
        assert torch_file.read(data).shape == size
    else:
        with pytest.raises(torch_file.Unreadable):
            torch_file.read(data)


def test_a_tensor_is_made_of_a_storage_and_plain_numbers():
    """What a pickle may supply in their place would reach other memory."""
    one = torch_file._Storage(np.arange(6, dtype=np.float32))
    assert torch_file._tensor(one, 0, (2, 3), (3, 1)).shape == (2, 3)
    forged = [
        (np.zeros((1000, 0), np.float32), 0, (1000,), (1,)),
        (one, 0, np.array([17], np.int8), np.array([16], np.int8)),
        (one, 0, (np.int64(3),), (np.int64(2**62),)),
        (one, 0, (2**30, 4), (0, 0)),
        (one, 0, (2, 3), (1,)),
    ]
    for arguments in forged:
        with pytest.raises(torch_file.Unreadable):
            torch_file._tensor(*arguments)


def test_a_pickle_changes_neither_functions_nor_methods():
    function = torch_file._named("torch._utils", "_rebuild_tensor_v2")
    state = pickle.dumps((None, {"__doc__": "changed"}), protocol=2)[2:-1]
    with pytest.raises(torch_file.Unreadable):
        torch_file.read(as_file(pickle.PROTO + b"\x02" + function + state + pickle.BUILD + pickle.STOP))
    ordered = torch_file._named("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    state = pickle.dumps({"items": 5}, protocol=2)[2:-1]
    assert torch_file.read(as_file(pickle.PROTO + b"\x02" + ordered + state + pickle.BUILD + pickle.STOP)) == {}


def test_files_that_are_not_whole():
    whole = (FIXTURES / "types.pt").read_bytes()
    for data in (
        b"",
        b"PK",
        whole[: len(whole) // 2],
        b"PK" + whole[50:],
        as_file(b"not a pickle"),
        as_file(pickle.dumps(3)[:-1]),
    ):
        with pytest.raises(torch_file.Unreadable):
            torch_file.read(data)


def test_big_endian_files_are_refused():
    file = io.BytesIO(as_file(pickle.dumps({}, protocol=2)))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x/byteorder", "big")
    with pytest.raises(torch_file.Unreadable, match="big-endian"):
        torch_file.read(file.getvalue())
