"""SVHN and CIFAR through tensorflow-datasets: prepared data, downloads from this machine, life without a network."""

import functools
import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.data import named, prepared
from ispf_jax.data.catalogue import CATALOGUE
from ispf_jax.errors import UserError
from tests.data import makers


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


@pytest.mark.parametrize("name", ["svhn", "cifar10", "cifar100"])
def test_download_verifies_prepares_and_reads_again(tmp_path, monkeypatch, site, name):
    folder, address, asked = site
    if name == "svhn":
        train_x, train_y, test_x, test_y = makers.svhn(folder)
    else:
        train_x, train_y, test_x, test_y = makers.cifar(folder, name, binary=True)
    makers.register(monkeypatch, name, folder, address)
    found = data.load(name, cache_dir="off")
    assert makers.same_examples(found.train, train_x, train_y) and makers.same_examples(found.test, test_x, test_y)
    assert (tmp_path / "tfds" / f"ispf_{name}" / "1.0.0" / "dataset_info.json").exists()
    assert sorted(a for a in asked if a.startswith("GET")) == sorted(
        f"GET /{d.filename}" for d in CATALOGUE[name].downloads
    )

    asked.clear()
    again = data.load(name, cache_dir="off", download=False)
    assert asked == [] and (again.train.images == found.train.images).all() and again.class_names == found.class_names
    manual = data.load(name, cache_dir="off", download=False, data_dir=str(tmp_path / "none"), manual_dir=str(folder))
    assert (manual.train.images == found.train.images).all() and (manual.test.labels == found.test.labels).all()
    assert manual.class_names == found.class_names
    if name == "cifar100":
        assert found.class_names == tuple(makers.CIFAR100_NAMES)


def test_download_is_cached_as_arrays(tmp_path, monkeypatch, site):
    folder, address, asked = site
    makers.svhn(folder)
    makers.register(monkeypatch, "svhn", folder, address)
    data.load("svhn")
    (tmp_path / "tfds").rename(tmp_path / "gone")
    asked.clear()
    assert len(data.load("svhn", download=False).train) == 24 and asked == []


def test_wrong_checksum_is_refused(tmp_path, monkeypatch, site):
    folder, address, _ = site
    makers.svhn(folder)
    makers.register(monkeypatch, "svhn", folder, address)
    with (folder / "test_32x32.mat").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        UserError, match="download failed .NonMatchingChecksumError.*put train_32x32.mat and test_32x32.mat"
    ):
        data.load("svhn")
    assert not (tmp_path / "tfds" / "ispf_svhn" / "1.0.0").exists()


def test_file_gone_from_the_site(tmp_path, monkeypatch, site):
    folder, address, _ = site
    makers.svhn(folder)
    makers.register(monkeypatch, "svhn", folder, address)
    (folder / "train_32x32.mat").unlink()
    with pytest.raises(UserError, match="train_32x32.mat cannot be reached .HTTPError"):
        data.load("svhn")


@pytest.mark.parametrize("name", ["svhn", "cifar10", "cifar100"])
def test_offline_fails_within_seconds(name, alone):
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        data.load(name)
    assert time.monotonic() - begin < 8 and alone
    message = str(caught.value)
    assert "cannot be reached" in message and "data.manual_dir" in message
    for words in [*CATALOGUE[name].manual[0], *(d.url for d in CATALOGUE[name].downloads)]:
        assert words in message


def test_silent_network_fails_within_seconds(monkeypatch):
    """Even a name server that never answers, for which sockets have no time limit."""
    import socket

    monkeypatch.setattr(named, "CONNECT_SECONDS", 0.2)

    def silent(*args, **kwargs):
        time.sleep(5)
        raise socket.gaierror("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    begin = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        data.load("cifar10")
    assert time.monotonic() - begin < 4


def test_no_download_touches_no_network(alone, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match="data.download is off"):
        data.load("svhn", download=False)
    assert alone == []


def test_checksums_are_those_of_the_library():
    import tensorflow_datasets
    from tensorflow_datasets.core.download.checksums import load_url_infos

    root = Path(tensorflow_datasets.__file__).parent
    known = {}
    for file in ("datasets/svhn_cropped/checksums.tsv", "url_checksums/cifar10.txt", "url_checksums/cifar100.txt"):
        known |= load_url_infos(root / file)
    downloads = [d for official in CATALOGUE.values() for d in official.downloads]
    assert len(downloads) == 4 and "extra" not in str(downloads)
    for d in downloads:
        assert (known[d.url].size, known[d.url].checksum) == (d.size, d.sha256)


def write_tfrecord_dir(
    root, builder="svhn_cropped", version="3.1.0", classes=10, names=None, shards=(13, 11), file_format="tfrecord"
):
    """A directory as the library's own builder leaves it; returns images and labels by split."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    folder = root / builder / version
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=names) if names else tfds.features.ClassLabel(num_classes=classes),
        }
    )
    features.save_config(folder)
    if names:
        features.save_metadata(folder)
    splits, content = [], {}
    for split, lengths in (("train", shards), ("test", (7,))):
        images, labels = makers.pixels(sum(lengths), len(split)), np.arange(sum(lengths)) % classes
        content[split] = (images, labels)
        first = 0
        for shard, length in enumerate(lengths):
            blob = b""
            for i in range(first, first + length):
                example = tf_example_pb2.Example()
                example.features.feature["id"].bytes_list.value.append(f"{split}_{i}".encode())
                example.features.feature["image"].bytes_list.value.append(makers.encoded(images[i]))
                example.features.feature["label"].int64_list.value.append(int(labels[i]))
                blob += makers.framed(example.SerializeToString())
            first += length
            (folder / f"{builder}-{split}.tfrecord-{shard:05d}-of-{len(lengths):05d}").write_bytes(blob)
        splits.append(
            {
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(n) for n in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": builder, "version": version, "splits": splits, "moduleName": "tensorflow_datasets.x"}
    if file_format:
        info["fileFormat"] = file_format
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return content


@pytest.mark.parametrize(
    "name, builder, names",
    [
        ("svhn", "svhn_cropped", None),
        ("cifar10", "cifar10", makers.CIFAR10_NAMES),
        ("cifar100", "cifar100", makers.CIFAR100_NAMES),
    ],
)
@pytest.mark.parametrize("file_format", ["tfrecord", None])
def test_tfrecord_prepared_by_the_library(tmp_path, name, builder, names, file_format):
    classes = len(names) if names else 10
    content = write_tfrecord_dir(tmp_path / "t", builder, "3.0.2", classes, names, file_format=file_format)
    found = data.load(name, data_dir=str(tmp_path / "t"), download=False)
    assert makers.same_examples(found.train, *content["train"]) and makers.same_examples(found.test, *content["test"])
    assert found.class_names == (tuple(names) if names else tuple("0123456789"))


def test_prepared_data_need_no_tensorflow(tmp_path):
    write_tfrecord_dir(tmp_path / "t")
    code = (
        "import sys; from ispf_jax import data; "
        f"assert len(data.load('svhn', data_dir={str(tmp_path / 't')!r}, cache_dir='off', download=False).train) == 24; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_which_directory_is_found(tmp_path, monkeypatch):
    root = tmp_path / "t"
    write_tfrecord_dir(root, version="3.0.0")
    write_tfrecord_dir(root, version="3.1.0")
    write_tfrecord_dir(root, version="4.0.0")
    write_tfrecord_dir(root, "ispf_svhn", "1.0.0")
    assert prepared.find("svhn", root) == root / "svhn_cropped" / "3.1.0"
    assert prepared.find("cifar10", root) is None and prepared.find("svhn", tmp_path / "none") is None
    for version in ("3.0.0", "3.1.0"):
        info = root / "svhn_cropped" / version / "dataset_info.json"
        info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    assert prepared.find("svhn", root) == root / "ispf_svhn" / "1.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert prepared.directory("") == root and prepared.directory("~/x") == Path("~/x").expanduser()
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert prepared.directory("") == Path("~/tensorflow_datasets").expanduser()


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def shift(file):
    file.write_bytes(b"\1" + file.read_bytes())


def spoil_image(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def drop_record(file):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    file.write_bytes(content[length + 16 :])


@pytest.mark.parametrize("damage", [cut, shift, spoil_image, drop_record, Path.unlink])
def test_damaged_tfrecord(tmp_path, damage):
    write_tfrecord_dir(tmp_path / "t")
    damage(tmp_path / "t" / "svhn_cropped" / "3.1.0" / "svhn_cropped-train.tfrecord-00001-of-00002")
    with pytest.raises(UserError, match="3.1.0"):
        data.load("svhn", data_dir=str(tmp_path / "t"), download=False)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_damaged_array_record(tmp_path, monkeypatch, site, damage):
    folder, address, _ = site
    makers.svhn(folder)
    makers.register(monkeypatch, "svhn", folder, address)
    data.load("svhn", cache_dir="off")
    (file,) = (tmp_path / "tfds" / "ispf_svhn" / "1.0.0").glob("*-train.array_record*")
    damage(file)
    with pytest.raises(UserError, match="ispf_svhn/1.0.0 cannot be read"):
        data.load("svhn", cache_dir="off", download=False)


def test_crc32c_of_the_standard():
    """RFC 3720, B.4: 32 bytes of zeros."""
    assert makers.crc32c(bytes(32)) == 0x8A9136AA
    for content in (b"", b"123456789", bytes(range(256))):
        assert prepared.masked_crc32c(content) == makers.masked(content)
