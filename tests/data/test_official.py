"""SVHN and CIFAR: official archives, prepared data, downloads from this machine, life without a network."""

import functools
import http.server
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ispf_jax import data
from ispf_jax.data import archives, cache, official
from ispf_jax.errors import UserError
from tests.data import makers

NAMES = {"svhn": tuple("0123456789"), "cifar10": tuple(makers.CIFAR10_NAMES), "cifar100": tuple(makers.CIFAR100_NAMES)}


def load(name, folder, **options):
    return data.load(name, manual_dir=folder, download=False, **options)


def check(found, name, train_x, train_y, test_x, test_y):
    assert makers.same_examples(found.train, train_x, train_y) and makers.same_examples(found.test, test_x, test_y)
    assert (found.name, found.class_names, found.image_shape) == (name, NAMES[name], (32, 32, 3))


@pytest.mark.parametrize("name", NAMES)
def test_archives(tmp_path, name):
    content = makers.make(name, tmp_path)
    found = load(name, tmp_path)
    check(found, name, *content)
    counts = f"{len(content[0])} + {len(content[2])} images, not the complete {archives.OFFICIAL[name].title}"
    assert found.note.startswith(counts)


def test_size_channels_subset(tmp_path):
    makers.svhn(tmp_path)
    assert load("svhn", tmp_path, image_size=16, resize=True, channels=1).image_shape == (16, 16, 1)
    assert np.bincount(load("svhn", tmp_path, max_train=10).train.labels).tolist() == [1] * 10
    with pytest.raises(UserError, match="image_size=16 must be 0 or 32, the size of SVHN, or set resize=True"):
        load("svhn", tmp_path, image_size=16)


def test_cache_serves_until_the_archive_changes(tmp_path, monkeypatch):
    makers.svhn(tmp_path)
    writes, genuine = [], cache._write
    monkeypatch.setattr(cache, "_write", lambda *args: (writes.append(1), genuine(*args)))
    first, again = load("svhn", tmp_path), load("svhn", tmp_path)
    assert len(writes) == 1 and (first.train.images == again.train.images).all() and first.note == again.note
    makers.svhn(tmp_path, train=30)
    assert len(load("svhn", tmp_path).train) == 30


def test_incomplete_manual_dir(tmp_path):
    with pytest.raises(UserError, match=r"manual_dir='.*none' does not hold cifar-10-binary.tar.gz"):
        load("cifar10", tmp_path / "none")
    makers.svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"manual_dir=.* does not hold train_32x32.mat and test_32x32.mat"):
        load("svhn", tmp_path)
    with pytest.raises(UserError, match=r"download is off: put train_32x32.mat and test_32x32.mat"):
        data.load("svhn", download=False)


@pytest.mark.parametrize("name", ["svhn", "cifar10"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_truncated(tmp_path, name, keep):
    makers.make(name, tmp_path)
    file = tmp_path / archives.OFFICIAL[name].files[-1]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(UserError, match=rf"{file.name} is damaged or cannot"):
        load(name, tmp_path)


X, Y = np.zeros((32, 32, 3, 2), np.uint8), np.array([[1], [10]], np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        {"X": X},
        {"X": X, "y": np.array([[11], [1]])},
        {"X": X, "y": np.array([[1.5], [1]])},
        {"X": X, "y": np.array([[1], [1], [1]], np.uint8)},
        {"X": X.astype(float), "y": Y},
        {"X": np.array([[{"a": 1}]], object), "y": Y},
        {"X": X[:16], "y": Y},
        {"X": X[..., :0], "y": Y[:0]},
        {"X": X, "y": Y, "Z": np.zeros((2000, 1000), np.uint8)},  # 2 MB of zeros in 2 kB
        {"X": np.zeros((32, 32, 3, 101), np.uint8), "y": np.ones((101, 1), np.uint8)},  # one more than there are
    ],
)
def test_foreign_mat(tmp_path, monkeypatch, content):
    makers.svhn(tmp_path)
    monkeypatch.setitem(archives.OFFICIAL, "svhn", replace(archives.OFFICIAL["svhn"], counts=(100, 100)))
    savemat(tmp_path / "test_32x32.mat", content, do_compression=True)
    with pytest.raises(UserError, match=r"test_32x32.mat is damaged or cannot"):
        load("svhn", tmp_path)


def test_a_mat_that_fills_its_bound(tmp_path, monkeypatch):
    """And then, where nothing is left, goes on with much more; and one of very many arrays."""
    makers.svhn(tmp_path)
    monkeypatch.setitem(archives.OFFICIAL, "svhn", replace(archives.OFFICIAL["svhn"], counts=(24, 12)))
    file = tmp_path / "test_32x32.mat"
    head, limit = file.read_bytes()[:128], 12 * (archives.PIXELS + 8) + (1 << 20)
    parts = [zlib.compress(bytes(n)) for n in (limit - 128, 100 << 20)]
    for content in (b"".join(struct.pack("<II", 15, len(part)) + part for part in parts), bytes(8 * 101)):
        file.write_bytes(head + content)
        with pytest.raises(UserError, match=r"test_32x32.mat is damaged or .*holds more than"):
            load("svhn", tmp_path)


def test_spoilt_mat(tmp_path):
    """Pixels that are others than zlib's checksum says, and a variable that declares 4 GB in a file of 7 kB."""
    makers.svhn(tmp_path)
    file = tmp_path / "test_32x32.mat"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    savemat(stored := io.BytesIO(), {"X": X, "y": Y})
    size = (2).to_bytes(4, "little") + X.nbytes.to_bytes(4, "little")
    for spoilt in (content, stored.getvalue().replace(size, size[:4] + b"\xff" * 4)):
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"test_32x32.mat is damaged or cannot"):
            load("svhn", tmp_path)


@pytest.mark.parametrize(
    "member, content",
    [
        ("data_batch_3.bin", None),
        ("batches.meta.txt", b"cat\ndog"),
        ("batches.meta.txt", b"a a b c d e f g h i"),
        ("batches.meta.txt", b"\xff 1 2 3 4 5 6 7 8 9"),
        ("test_batch.bin", b"hello"),
        ("test_batch.bin", b""),
        ("test_batch.bin", bytes([10]) + bytes(3072)),
        ("test_batch.bin", bytes(3073 * 10001)),
        ("more/test_batch.bin", bytes(3073)),
    ],
)
def test_foreign_cifar(tmp_path, member, content):
    makers.cifar(tmp_path)
    file = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(file) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    members[f"cifar10/{member}"] = content
    makers.tar_of(file, {name: value for name, value in members.items() if value is not None})
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz (is damaged or cannot|has)"):
        load("cifar10", tmp_path)


@pytest.fixture
def site(tmp_path):
    """A web server on this machine: (folder, address, requests)."""
    folder, asked = tmp_path / "web", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(f"{self.command} {self.path}")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_download_verifies_and_reads_again(tmp_path, monkeypatch, site, name):
    folder, address, asked = site
    content = makers.make(name, folder)
    makers.register(monkeypatch, name, folder, address)
    found = data.load(name, cache_dir="off")
    check(found, name, *content)
    files = archives.OFFICIAL[name].files
    assert sorted(a for a in asked if a.startswith("GET")) == sorted(f"GET /{file}" for file in files)
    asked.clear()
    again = data.load(name, cache_dir="off", download=False)
    manual = load(name, folder, cache_dir="off", data_dir=tmp_path / "none")
    for other in (again, manual):
        assert asked == [] and (other.train.images == found.train.images).all()
        assert (other.test.labels == found.test.labels).all()
    data.load(name)
    shutil.rmtree(tmp_path / "tfds")
    assert (data.load(name, download=False).train.images == found.train.images).all() and asked == []


def test_wrong_or_missing_file_on_the_site(tmp_path, monkeypatch, site):
    folder, address, _ = site
    makers.svhn(folder)
    makers.register(monkeypatch, "svhn", folder, address)
    with (folder / "test_32x32.mat").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"download failed .NonMatchingChecksumError.*put train_32x32.mat and test"):
        data.load("svhn")
    assert not (tmp_path / "tfds" / "downloads" / "test_32x32.mat").exists()
    (folder / "train_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"train_32x32.mat cannot be reached .HTTPError"):
        data.load("svhn")


@pytest.mark.parametrize("name", NAMES)
def test_offline_fails_within_seconds(name, alone):
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        data.load(name)
    assert time.monotonic() - begin < 8 and alone
    for words in ["cannot be reached", "manual_dir", archives.OFFICIAL[name].site, *archives.OFFICIAL[name].files]:
        assert words in str(caught.value)


def test_silent_network_fails_within_seconds(monkeypatch):
    """Even a name server that never answers, for which sockets have no time limit."""

    def silent(*args, **kwargs):
        time.sleep(5)
        raise socket.gaierror("gave up")

    monkeypatch.setattr(official, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    begin = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        data.load("cifar10")
    assert time.monotonic() - begin < 4


def test_the_library_knows_the_checksums():
    import tensorflow_datasets as tfds

    for at in archives.OFFICIAL.values():
        known = tfds.builder_cls(at.builder).url_infos
        assert all(known[at.site + file].checksum and known[at.site + file].size > 6e7 for file in at.files)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_prepared(tmp_path, name, file_format):
    content = makers.prepared(tmp_path / "tfds", name, file_format=file_format)
    check(data.load(name, download=False), name, *content["train"], *content["test"])


def test_prepared_data_need_no_tensorflow(tmp_path):
    makers.prepared(tmp_path / "t", fileFormat=None)
    code = (
        "import sys; from ispf_jax import data; "
        f"found = data.load('svhn', data_dir={str(tmp_path / 't')!r}, cache_dir='off', download=False); "
        "assert len(found.train) == 24 and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_newest_understood_version_is_read(tmp_path):
    root = tmp_path / "tfds"
    for version, shards in (("3.0.0", (1,)), ("3.10.0", (2,)), ("3.9.0", (3,)), ("4.0.0", (4,))):
        makers.prepared(root, version=version, shards=shards)
    makers.prepared(root, version="3.11.0", shards=(5,), fileFormat="riegeli")
    makers.prepared(root, version="3.12.0", shards=(6,))
    (root / "svhn_cropped" / "3.12.0" / "dataset_info.json").write_text("[" * 100_000)
    assert len(data.load("svhn", download=False).train) == 2


def test_nothing_that_a_prepared_directory_names_is_run(tmp_path, monkeypatch):
    """tensorflow-datasets would import the module."""
    content = makers.prepared(tmp_path / "tfds", moduleName="payload")
    folder = tmp_path / "tfds" / "svhn_cropped" / "3.1.0"
    (tmp_path / "payload.py").write_text("import os; os.mkdir('executed')")
    (folder / "features.json").write_text('{"type": "payload.X", "content": {}}')
    monkeypatch.chdir(tmp_path), monkeypatch.syspath_prepend(tmp_path)
    check(data.load("svhn", download=False), "svhn", *content["train"], *content["test"])
    assert "payload" not in sys.modules and not (tmp_path / "executed").exists()


def change_info(folder, **changes):
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0] |= changes
    (folder / "dataset_info.json").write_text(json.dumps(info))


def shard(folder):
    (file,) = folder.glob("*-train.*-00001-of-00002")
    return file


def rewrite(change):
    def damage(folder):
        content = shard(folder).read_bytes()
        shard(folder).write_bytes(change(content))

    return damage


def link_out(folder):
    shutil.move(shard(folder), folder.parents[2] / "elsewhere")
    (folder / "svhn_cropped-train.tfrecord-00001-of-00002").symlink_to(folder.parents[2] / "elsewhere")


def fifo(folder):
    file = shard(folder)
    file.unlink()
    os.mkfifo(file)


def sparse(folder):
    with shard(folder).open("ab") as file:
        file.truncate(1 << 40)


FIRST = 2200  # somewhere in the first image
DAMAGES = {
    "cut": rewrite(lambda c: c[:-20]),
    "shifted": rewrite(lambda c: b"\1" + c),
    "spoilt image": rewrite(lambda c: c[:FIRST] + bytes([c[FIRST] ^ 0xFF]) + c[FIRST + 1 :]),
    "a record more": rewrite(lambda c: c + c[: int.from_bytes(c[:8], "little") + 16]),
    "record missing": rewrite(lambda c: c[int.from_bytes(c[:8], "little") + 16 :]),
    "record of 1 EB": rewrite(lambda c: (1 << 60).to_bytes(8, "little") + c[8:]),
    "shard missing": lambda folder: shard(folder).unlink(),
    "link out": link_out,
    "fifo": fifo,
    "sparse": sparse,
    "no shards": lambda folder: change_info(folder, shardLengths=[]),
    "too many shards": lambda folder: change_info(folder, shardLengths=["1"] * 5000),
    "negative": lambda folder: change_info(folder, shardLengths=["13", "-11"]),
    "more than official": lambda folder: change_info(folder, shardLengths=["13", "73257"]),
    "no list": lambda folder: change_info(folder, shardLengths=5),
    "no such split": lambda folder: change_info(folder, name="../train"),
    "too few names": lambda folder: (folder / "label.labels.txt").write_text("cat\ndog\n"),
}


def test_an_array_record_that_unpacks_to_much_more(tmp_path):
    """A record of 1 GB in a file of 0.1 MB, for which the library takes three times as much."""
    from array_record.python.array_record_module import ArrayRecordWriter

    makers.prepared(tmp_path / "tfds", file_format="array_record")
    writer = ArrayRecordWriter(str(shard(tmp_path / "tfds" / "svhn_cropped" / "3.1.0")), "group_size:1")
    writer.write(bytes(1 << 30))
    writer.close()
    with pytest.raises(UserError, match=r"svhn_cropped/3.1.0 is damaged"):
        data.load("svhn", download=False)


@pytest.mark.parametrize(
    "file_format, damage",
    [("array_record", damage) for damage in ("cut", "spoilt image", "shard missing")]
    + [("tfrecord", d) for d in DAMAGES],
)
def test_damaged_prepared_data(tmp_path, file_format, damage):
    makers.prepared(tmp_path / "tfds", file_format=file_format)
    DAMAGES[damage](tmp_path / "tfds" / "svhn_cropped" / "3.1.0")
    with pytest.raises(UserError, match=r"svhn_cropped/3.1.0"):
        data.load("svhn", download=False)
