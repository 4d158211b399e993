"""SVHN, CIFAR-10 and CIFAR-100: looked for where they may be, downloaded if nowhere.

Order: decoded arrays in the cache; data that tensorflow-datasets prepared earlier; official archives in
`data.manual_dir`, read straight (no second copy on disk); download through our own tensorflow-datasets builders, which
verify the official checksums. The examples are put into one canonical order, so the same data set gives the same
arrays, and a seed the same splits, wherever it was found.
"""

import dataclasses
import hashlib
import logging
import threading
from pathlib import Path

import numpy as np

from ispf_jax.data import archives, cache, prepared
from ispf_jax.data.catalogue import CATALOGUE, Official
from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.data.pixels import check_shape, conform
from ispf_jax.errors import UserError

CONNECT_SECONDS = 5.0
log = logging.getLogger(__name__)


def load(request: Request) -> ImageData:
    """The data set `request.name`, 32x32 pixels in colour unless size (with `resize`) or channels say otherwise.

    A note says so if it is not the complete official data set.
    Raises UserError, offline within seconds, that names the files and the directory to put them in.
    """
    check_shape(request.image_size, request.channels)
    manual = find_manual(request.name, request.manual_dir)
    root = prepared.directory(request.data_dir)
    key = [str(root.absolute()), [cache.fingerprint(file) for file in manual]]
    data = cache.cached(request.cache_dir, request.name, key, lambda: _canonical(_obtain(request, root, manual)))
    side = data.image_shape[0]
    if request.image_size not in (0, side) and not request.resize:
        raise UserError(
            f"data.image_size is {request.image_size}, but {CATALOGUE[request.name].title} has {side}x{side} pixels; "
            f"set it to 0 or {side}, or set data.resize=True."
        )
    return dataclasses.replace(
        data,
        train=_resized(data.train, request),
        test=_resized(data.test, request),
        note=_note(CATALOGUE[request.name], data),
    )


def find_manual(name: str, manual_dir: str) -> list[Path]:
    """The official archive(s) of `name` in `manual_dir`, [] if it is not set or holds no complete group of them.

    Raises UserError if it is set and is not a directory.
    """
    if not manual_dir:
        return []
    folder = Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.manual_dir {folder} is not a directory; set it to the one that holds {_wanted(name)}.")
    for group in CATALOGUE[name].manual:
        files = [folder / file for file in group]
        if all(file.is_file() for file in files):
            return files
    log.warning("data.manual_dir %s does not hold %s.", folder, _wanted(name))
    return []


def _obtain(request: Request, root: Path, manual: list[Path]) -> ImageData:
    folder = prepared.find(request.name, root)
    if folder is not None:
        log.info("Reading %s.", folder)
        return prepared.read(request.name, folder)
    if manual:
        log.info("Reading %s.", ", ".join(map(str, manual)))
        return archives.read(request.name, manual)
    if not request.download:
        raise _missing(request, root, "data.download is off")
    return prepared.read(request.name, _download(request, root))


def _download(request: Request, root: Path) -> Path:
    """Tests the connection first: tensorflow-datasets alone repeats a hopeless request for minutes."""
    url = CATALOGUE[request.name].downloads[0].url
    if problem := _unreachable(url):
        raise _missing(request, root, f"{url} cannot be reached ({problem})")
    try:
        from ispf_jax.data.builders import prepare

        return prepare(request.name, root)
    except UserError:
        raise
    except Exception as error:  # network, disk, checksum, a missing wheel of array_record: all end the same way
        message = " ".join(str(error).split())[:200]
        raise _missing(request, root, f"the download failed ({type(error).__name__}: {message})") from error


def _unreachable(url: str) -> str | None:
    """Why `url` does not answer within `CONNECT_SECONDS`, or None. Respects the proxy settings, as the download does."""
    outcome = ["no answer"]

    def ask():
        import requests

        try:
            requests.head(url, timeout=CONNECT_SECONDS, allow_redirects=True).raise_for_status()
            outcome[0] = None
        except Exception as error:  # requests lets errors of its layers through
            outcome[0] = type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    return outcome[0]


def _wanted(name: str) -> str:
    return " or ".join(" and ".join(group) for group in CATALOGUE[name].manual)


def _missing(request: Request, root: Path, why: str) -> UserError:
    official = CATALOGUE[request.name]
    place = request.manual_dir or "a directory of your choice"
    urls = ", ".join(d.url for d in official.downloads)
    return UserError(
        f"{official.title} is neither in {root} (prepared by tensorflow-datasets) nor in data.manual_dir "
        f"({request.manual_dir or 'not set'}), and {why}: put {_wanted(request.name)} (from {urls}) into {place} "
        "and set data.manual_dir to it."
    )


def _canonical(data: ImageData) -> ImageData:
    """Examples sorted by a hash of image and label, because prepared data are shuffled and archives are not."""
    return dataclasses.replace(data, train=_sorted(data.train), test=_sorted(data.test))


def _sorted(split: ArrayDataset) -> ArrayDataset:
    hashes = [
        hashlib.blake2b(image.tobytes() + bytes([label]), digest_size=16).digest()
        for image, label in zip(split.images, split.labels)
    ]
    return split.take(np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=int))


def _resized(split: ArrayDataset, request: Request) -> ArrayDataset:
    return ArrayDataset(conform(split.images, request.image_size, request.channels), split.labels)


def _note(official: Official, data: ImageData) -> str:
    found, complete = (len(data.train), len(data.test)), official.counts
    if found == complete:
        return ""
    note = f"{found[0]} + {found[1]} images, not the complete {official.title} ({complete[0]} + {complete[1]})"
    log.warning("%s.", note)
    return note
