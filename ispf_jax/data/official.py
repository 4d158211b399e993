"""SVHN, CIFAR-10 and CIFAR-100: looked for where they may be, downloaded if nowhere.

Order: decoded arrays in the cache; data that tensorflow-datasets prepared earlier; official archives in `manual_dir` or
`data_dir`/downloads; a download by tensorflow-datasets, which verifies the official checksums. The examples are put
into one canonical order, so the same data set gives the same arrays, and a seed the same splits, wherever it was found.
"""

import dataclasses
import hashlib
import logging
import os
import threading
from pathlib import Path

import numpy as np

from ispf_jax.data import cache, prepared
from ispf_jax.data.archives import read_archives
from ispf_jax.data.dataset import ArrayDataset, DataRequest, ImageData
from ispf_jax.data.pixels import conform
from ispf_jax.errors import ArgumentError, UserError

CONNECT_SECONDS = 5.0
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Official:
    """A data set: its title, images in the complete splits, name in tensorflow-datasets, site and archives there."""

    title: str
    counts: tuple[int, int]
    builder: str
    site: str
    files: tuple[str, ...]


_SVHN, _CIFAR = "http://ufldl.stanford.edu/housenumbers/", "https://www.cs.toronto.edu/~kriz/"
OFFICIAL = {
    # Without the 531,131 easier "extra" images (1.3 GB), which the method does not use.
    "svhn": Official("SVHN", (73257, 26032), "svhn_cropped", _SVHN, ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": Official("CIFAR-10", (50000, 10000), "cifar10", _CIFAR, ("cifar-10-binary.tar.gz",)),
    "cifar100": Official("CIFAR-100", (50000, 10000), "cifar100", _CIFAR, ("cifar-100-binary.tar.gz",)),
}


def load(request: DataRequest) -> ImageData:
    """The data set `request.name`, 32x32 pixels in colour unless size (with `resize`) or channels say otherwise.

    A note says so if it is not the complete official data set.

    Raises:
      ArgumentError: `image_size` is another without `resize`, or `manual_dir` is not a directory.
      UserError: the data are damaged or, within seconds offline, missing; it names the files and where to put them.
    """
    official = OFFICIAL[request.name]
    if request.image_size not in (0, 32) and not request.resize:
        text = f"={request.image_size} must be 0 or 32, the size of {official.title}, or set resize=True."
        raise ArgumentError("image_size", text)
    manual = Path(request.manual_dir).expanduser()
    if request.manual_dir and not manual.is_dir():
        text = f" {manual} is not a directory; set it to the one that holds {' and '.join(official.files)}."
        raise ArgumentError("manual_dir", text)
    root = Path(request.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = prepared.find(official.builder, root)
    archives = _archives(official, manual) if request.manual_dir else []
    if request.manual_dir and not archives:
        log.warning("manual_dir %s does not hold %s.", manual, " and ".join(official.files))

    def obtain():
        found = archives or _archives(official, root / "downloads")
        if folder:
            log.info("Reading %s.", folder)
            data = prepared.read(request.name, official.builder, folder, official.counts)
        else:
            data = read_archives(request.name, found or _download(official, root, request), official.counts)
        return dataclasses.replace(data, train=_sorted(data.train), test=_sorted(data.test))

    marks = [*archives, folder / "dataset_info.json"] if folder else archives
    key = [str(root.absolute()), [cache.fingerprint(file) for file in marks]]
    data = cache.cached(request.cache_dir, request.name, key, obtain)
    train, test = ((conform(s.images, request.image_size, request.channels), s.labels) for s in (data.train, data.test))
    return ImageData(train, test, data.class_names, data.name, _note(official, len(data.train), len(data.test)))


def _archives(official: Official, folder: Path) -> list[Path]:
    """All official archives, or [] if not all of them are in `folder`."""
    files = [folder / file for file in official.files]
    return files if all(file.exists() for file in files) else []


def _download(official: Official, root: Path, request: DataRequest) -> list[Path]:
    """Tests the connection first: by itself, tensorflow-datasets repeats a hopeless request for minutes."""
    urls = [official.site + file for file in official.files]
    problem = "download is off" if not request.download else _unreachable(urls[0])
    if not problem:
        try:
            import tensorflow_datasets as tfds

            folder, known = root / "downloads", tfds.builder_cls(official.builder).url_infos
            manager = tfds.download.DownloadManager(
                download_dir=folder, url_infos=known, force_checksums_validation=True
            )
            for found, file in zip(manager.download(urls), official.files):  # verified, under a name of the manager's
                os.replace(found, folder / file)
            return _archives(official, folder)
        except Exception as error:  # network, disk, checksum: all end the same way
            message = " ".join(str(error).split())[:200]
            problem = f"the download failed ({type(error).__name__}: {message})"
    raise UserError(
        f"{official.title} is neither in {root} nor in manual_dir ({request.manual_dir or 'not set'}), and {problem}: "
        f"put {' and '.join(official.files)} (from {', '.join(urls)}) into {request.manual_dir or 'a directory'} "
        "and set manual_dir to it."
    )


def _unreachable(url: str) -> str:
    """Why `url` does not answer within `CONNECT_SECONDS`, or "". Proxy settings count, as for the download."""
    outcome = ["no answer"]

    def ask():
        import requests

        try:
            requests.head(url, timeout=CONNECT_SECONDS, allow_redirects=True).raise_for_status()
            outcome[0] = ""
        except Exception as error:  # requests lets errors of its layers through
            outcome[0] = type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)  # a name server may take any time
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    return outcome[0] and f"{url} cannot be reached ({outcome[0]})"


def _sorted(split: ArrayDataset) -> ArrayDataset:
    """Sorted by a hash of image and label, because prepared data are shuffled and archives are not."""
    hashes = [
        hashlib.blake2b(image.tobytes() + bytes([label]), digest_size=16).digest()
        for image, label in zip(split.images, split.labels)
    ]
    return split.take(np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=int))


def _note(official: Official, *found: int) -> str:
    if found == official.counts:
        return ""
    note = "{} + {} images, not the complete {} ({} + {})".format(*found, official.title, *official.counts)
    log.warning("%s.", note)
    return note
