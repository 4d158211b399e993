"""Damaged and hostile files for all readers: each is read as what it is, or refused with one line.

`python -m tests.test_fuzz_files ROOM DIRECTORY` is the process of bounded memory in which they are read; a crash, a
hang or another exception ends it.
"""

import faulthandler
import io
import json
import os
import pickletools
import re
import resource
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.io import savemat

ROOT = Path(__file__).parents[1]
HANG, MEMORY = 120, 8 << 30  # seconds for one input, which takes milliseconds; bytes of address space
COUNTS = {  # inputs
    "weights": {"resnet18.pt": 300, "types.pt": 200, "allcnn.safetensors": 300, "legacy.pt": 250, "module.pt": 150}
    | {"net.msgpack": 250, "config.json": 150, "preprocessor_config.json": 100, "_METADATA": 100, "ocdbt": 100},
    "data": {"folder": 150, "tar": 250, "cifar10": 150, "svhn": 250, "tfrecord": 250, "info": 150}
    | {"array_record": 15, "cache": 150, "arrays": 150},
}
CHECKED = ("resnet18.pt", "types.pt", "cifar10")  # their checksums find every change of a byte
NUMBERS = [b"-1", b"0", b"3", b"65536", b"2147483648", b"9223372036854775807", b"1e400", b"NaN", b"9" * 30, b"[]"]
WORDS = [b"..", b"\x1b[2J", b"a\nb", b"\xff\xfe", b"", b"F64", b"I64", b"test", b"null", b"/etc/passwd", b"x" * 5000]


@pytest.mark.slow
@pytest.mark.parametrize("room", COUNTS)
def test_every_file_is_read_or_refused(room, tmp_path):
    command = [sys.executable, "-m", "tests.test_fuzz_files", room, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-3000:]}"
    print(done.stdout.splitlines()[-1])
    for reader, (read, refused) in json.loads(done.stdout.splitlines()[-1]).items():
        assert read + refused == COUNTS[room][reader] and (refused > read / 20 or reader == "cache")


def damaged(rng, content: bytes) -> bytes:
    """Bits flipped, an end cut off, extreme numbers, slices repeated or removed, other opcodes and words."""
    out, size = bytearray(content), max(len(content), 1)
    at, other = sorted(int(n) for n in rng.integers(0, size, 2))
    kind = rng.integers(0, 9)
    if kind < 2:
        for place in rng.integers(0, size, rng.integers(1, 5)):
            out[place : place + 1] = bytes([(content[place : place + 1] or b"\0")[0] ^ (1 << rng.integers(0, 8))])
    elif kind == 2:
        del out[at:]
    elif kind == 3:
        out[at : at + 8] = struct.pack(rng.choice(["<Q", ">Q"]), rng.choice([0, 1, 1 << 31, 1 << 40, (1 << 63) - 1]))
    elif kind < 6:
        out[at : other if kind == 5 else at] = out[at : min(other, at + 4096)][: None if kind == 4 else 8]
    elif kind == 6 and content[:1] == b"\x80":
        places = [place for _, _, place in pickletools.genops(content)]
        out[places[rng.integers(0, len(places))]] = ord(rng.choice(pickletools.opcodes).code)
    else:
        found = list(re.finditer(rb"-?\d+|[A-Za-z_]{3,}", content[: 1 << 16])) or [re.match(b"", b"")]
        word = found[rng.integers(0, len(found))]
        choices = NUMBERS if word[0].lstrip(b"-").isdigit() else WORDS
        out[word.start() : word.end()] = choices[rng.integers(0, len(choices))]
    return bytes(out)


def rearranged(rng, parts: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Parts of a file damaged, renamed, repeated, removed or exchanged."""
    parts, at, other = list(parts), *rng.integers(0, len(parts), 2)
    (name, content), kind = parts[at], rng.integers(0, 8)
    if kind == 6:
        del parts[at]
    elif kind == 5:
        parts.append((name, parts[other][1]))
    else:
        new_name = damaged(rng, name.encode()).decode(errors="replace") if kind == 4 else name
        parts[at] = new_name, damaged(rng, content) if kind < 4 else parts[other][1] if kind == 7 else content
    return parts


def unzipped(content):
    archive = zipfile.ZipFile(io.BytesIO(content))
    return [(name, archive.read(name)) for name in archive.namelist()]


def zipped(parts):
    with warnings.catch_warnings(), zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        warnings.simplefilter("ignore")  # two of the same name
        for name, content in parts:
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return out.getvalue()


def untarred(content):
    tar = tarfile.open(fileobj=io.BytesIO(content))
    return [(member.name, tar.extractfile(member).read()) for member in tar if member.isfile()]


def tarred(parts, mode="w"):
    with tarfile.open(fileobj=(out := io.BytesIO()), mode=mode) as tar:
        for name, content in parts:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def header_and_data(content):
    end = 8 + int.from_bytes(content[:8], "little")
    return [("header", content[8:end]), ("data", content[end:])]


def records(content):
    found = []
    while content:
        end = 12 + int.from_bytes(content[:8], "little")
        found, content = [*found, (str(len(found)), content[12:end])], content[end + 4 :]
    return found


def safetensors(parts):
    header = dict(parts).get("header", b"{}")
    return struct.pack("<Q", len(header)) + header + b"".join(content for name, content in parts if name != "header")


WHOLE = lambda content: [("", content)], lambda parts: b"".join(content for _, content in parts)
FORMATS = {
    **dict.fromkeys(("resnet18.pt", "types.pt", "cache"), (unzipped, zipped)),
    "allcnn.safetensors": (header_and_data, safetensors),
    "tar": (untarred, tarred),
    "cifar10": (untarred, lambda parts: tarred(parts, "w:gz")),
    "tfrecord": (records, lambda parts: b"".join(struct.pack("<QI", len(c), 0) + c + bytes(4) for _, c in parts)),
}


def odd_data(rng):
    """Images, labels and names that are not as they should be, or are."""
    pick = lambda *choices: choices[rng.integers(0, len(choices))]
    good, labels, names = np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 2, 1], ["a", "b", "c"]
    images = pick(
        good, good, good, good.astype(float), good[..., 0], good[:2], good[0], None, [[1], [1, 2]], good[:, :0]
    )
    if rng.random() < 0.4:
        labels[3] = pick(1.7, "3", True, 2**32 + 1, -1, None, np.nan, 3, np.int64(2), b"1", [1], 10**30)
        labels = pick(list, tuple, lambda values: np.array(values, object))(labels)
    elif rng.random() < 0.4:
        labels = np.array(labels).astype(pick("f4", "U1", "bool", "M8[s]", "u8", "i1", "c8", "S1"))
    names = pick(names, names, ["a", "a", "b"], ["a", "", "b"], "abc", None, [0, 1, 2], ["a\x1b[2J", "b", "c"], [])
    return (images, labels), (good, [0, 1, 2, 1]), names


def made(reader, folder):
    """A good file, and what reads it."""
    from ispf_jax import data, files
    from tests.data import makers

    folder.mkdir()
    file = folder / reader
    if reader in COUNTS["weights"] and not (ROOT / "tests" / "files" / "fixtures" / reader).exists():
        return made_of_others(reader, folder)
    if reader.endswith(("pt", "safetensors")):
        file.write_bytes((ROOT / "tests" / "files" / "fixtures" / reader).read_bytes())
        if reader == "types.pt":
            return file, lambda: files.read_weights(file)
        files.load(file, image_shape=(16, 16, 3), class_names="abcde").save(file)
        return file, lambda: (files.inspect(file), files.load(file, image_shape=(16, 16, 3)))[1]
    cache_dir = str(folder / "cache") if reader == "cache" else "off"
    if reader in ("folder", "tar", "cache"):
        root = makers.make_folder(folder / "pets")
        path = makers.archive(root, folder / "pets.tar") if reader == "tar" else root
        load = lambda: makers.load(path, cache_dir=cache_dir)
        load()
        return {"tar": path, "folder": root / "train/cat/0.png"}.get(reader) or next((folder / "cache").iterdir()), load
    if reader in ("cifar10", "svhn"):
        x, y, *_ = makers.make(reader, folder)
        file = folder / ("cifar-10-binary.tar.gz" if reader == "cifar10" else "train_32x32.mat")
        if reader == "svhn":  # not compressed, so that all of it may be damaged
            savemat(file, {"X": x.transpose(1, 2, 3, 0), "y": y[:, None].astype(np.uint8) + 1})
        return file, lambda: data.load(reader, manual_dir=folder, download=False, cache_dir="off")
    makers.prepared(folder, file_format="array_record" if reader == "array_record" else "tfrecord")
    file = next(folder.rglob("dataset_info.json" if reader == "info" else "*-train.*-00001-of-00002"))
    return file, lambda: data.load("svhn", data_dir=folder, download=False, cache_dir="off")


def made_of_others(reader, folder):
    """The same for what other programs leave, and for directories, in which one file is damaged."""
    from ispf_jax import files
    from tests.files import makers

    given = files.load(ROOT / "tests" / "files" / "fixtures" / "resnet18.pt", image_shape=(16, 16, 3))
    tensors = {name: value for name, value in files.read_weights(given.origin["path"]).tensors.items() if value.ndim}
    path = folder / reader
    if reader == "legacy.pt":
        path.write_bytes(makers.legacy_state_dict(tensors))
    elif reader == "module.pt":
        opcodes = {name: makers.tensor(str(n), value) for n, (name, value) in enumerate(tensors.items())}
        path.write_bytes(makers.legacy(makers.module(opcodes), dict(zip(map(str, range(999)), tensors.values()))))
    elif reader == "net.msgpack":
        given.save(path)
    else:
        format = "huggingface" if reader.endswith("json") else "orbax"
        whole = given.save(folder / f"net.{format}")
        inside = max(whole.glob("ocdbt.process_0/d/*"), key=lambda f: f.stat().st_size) if reader == "ocdbt" else None
        return inside or whole / reader, lambda: files.load(whole, image_shape=(16, 16, 3))
    return path, lambda: files.load(path, image_shape=(16, 16, 3))


def arrays_of(found) -> list[np.ndarray]:
    """All that was read, after checks of what holds for everything that may be read."""
    if hasattr(found, "class_names"):
        names = found.class_names
        assert len(set(names)) == len(names) == found.num_classes and all(n.strip() and n.isprintable() for n in names)
    if hasattr(found, "tensors"):
        return list(found.tensors.values())
    if hasattr(found, "variables"):
        leaves = list(flatten_dict(found.variables).values())
        assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
        return leaves
    for split in (found.train, found.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32 and len(split.images) == len(split)
        assert ((split.labels >= 0) & (split.labels < found.num_classes)).all()
    return [found.train.images, found.train.labels, found.test.images, found.test.labels]


def fuzz(room, folder):
    from ispf_jax.data import ImageData
    from ispf_jax.errors import UserError

    counts = {}
    for reader, count in COUNTS[room].items():
        file, load = (None, None) if reader == "arrays" else made(reader, folder / reader)
        original, wanted = (file.read_bytes(), arrays_of(load())) if file else (b"", [])
        (parse, pack), refused = FORMATS.get(reader, WHOLE), 0
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for seed in range(count):
            rng = np.random.default_rng([seed, zlib.crc32(reader.encode())])
            print(reader, seed, flush=True)
            faulthandler.dump_traceback_later(HANG, exit=True)
            if file:
                file.write_bytes(damaged(rng, original) if seed % 2 else pack(rearranged(rng, parse(original))))
            try:
                found = arrays_of(load() if load else ImageData(*odd_data(rng)))
            except UserError as error:
                assert str(error).isprintable() and len(str(error)) < 3000 and "more memory" not in str(error)
                refused += 1
            else:
                same = len(found) == len(wanted) and all(map(np.array_equal, found, wanted))
                assert same or reader not in CHECKED or seed % 2 == 0
        counts[reader] = count - refused, refused
    print(json.dumps(counts))


if __name__ == "__main__":
    fuzz(sys.argv[1], Path(sys.argv[2]))
