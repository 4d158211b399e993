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

from ispf_jax.data import archives, cache, prepared
from ispf_jax.data.archives import OFFICIAL, Official
from ispf_jax.data.dataset import ArrayDataset, DataRequest, ImageData
from ispf_jax.data.pixels import conform
from ispf_jax.errors import ArgumentError, UserError

CONNECT_SECONDS = 5.0
log = logging.getLogger(__name__)


def load(request: DataRequest) -> ImageData:
    """The data set `request.name`, 32x32 pixels in colour unless size (with `resize`) or channels say otherwise.

    A note says so if it is not the complete official data set.

    Raises:
      ArgumentError: `image_size` is another without `resize`, or `manual_dir` does not hold the archives.
      UserError: the data are damaged or, within seconds offline, missing; it names the files and where to put them.
    """
    official = OFFICIAL[request.name]
    if request.image_size not in (0, 32) and not request.resize:
        text = f"={request.image_size} must be 0 or 32, the size of {official.title}, or set resize=True."
        raise ArgumentError("image_size", text)
    root = request.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(os.path.expanduser(root))
    manual = _archives(official, request.manual_dir) if request.manual_dir else []
    if request.manual_dir and not manual:
        raise ArgumentError("manual_dir", f"={request.manual_dir!r} does not hold {' and '.join(official.files)}.")
    folder = prepared.find(official, root)

    def obtain():
        if folder:
            log.info("Reading %s.", folder)
            data = prepared.read(official, folder)
        else:
            files = manual or _archives(official, root / "downloads") or _download(official, root, request.download)
            data = archives.read(official, files)
        return dataclasses.replace(data, train=_sorted(data.train), test=_sorted(data.test))

    marks = [*manual, folder / "dataset_info.json"] if folder else manual
    key = [str(root.absolute()), [cache.fingerprint(file) for file in marks]]
    data = cache.cached(request.cache_dir, request.name, key, obtain)
    note, found = "", (len(data.train), len(data.test))
    if found != official.counts:
        note = "{} + {} images, not the complete {} ({} + {})".format(*found, official.title, *official.counts)
        log.warning("%s.", note)
    train, test = ((conform(s.images, request.image_size, request.channels), s.labels) for s in (data.train, data.test))
    return ImageData(train, test, data.class_names, request.name, note)


def _archives(official: Official, folder: str | Path) -> list[Path]:
    """All official archives, or [] if not all of them are in `folder`."""
    files = [Path(folder).expanduser() / file for file in official.files]
    return files if all(file.exists() for file in files) else []


def _download(official: Official, root: Path, allowed: bool) -> list[Path]:
    """Tests the connection first: by itself, tensorflow-datasets repeats a hopeless request for minutes."""
    urls, folder = [official.site + file for file in official.files], root / "downloads"
    problem = _unreachable(urls[0]) if allowed else "download is off"
    try:
        if not problem:
            import tensorflow_datasets as tfds

            known = tfds.builder_cls(official.builder).url_infos  # official sizes and SHA-256
            manager = tfds.download.DownloadManager(
                download_dir=folder, url_infos=known, force_checksums_validation=True
            )
            for found, file in zip(manager.download(urls), official.files):
                os.replace(found, folder / file)
    except Exception as error:  # network, disk, checksum: all end the same way
        problem = f"the download failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if problem:
        raise UserError(
            f"{official.title} is not in {root}, and {problem}: put {' and '.join(official.files)} "
            f"(from {', '.join(urls)}) into a directory and set manual_dir to it."
        )
    return _archives(official, folder)


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
