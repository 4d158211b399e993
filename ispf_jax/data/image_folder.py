"""Image folders: `<split>/<class>/<file>`, as a directory or as one tar archive."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from ispf_jax.data import cache
from ispf_jax.data.dataset import DataRequest, ImageData
from ispf_jax.data.pixels import ENCODED_BYTES, SUFFIXES, Decoder
from ispf_jax.errors import ArgumentError, UserError, visible
from ispf_jax.runtime.guard import read_bounded, reading, tar_entries

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
LAYOUT = "train/<class>/<image> and test/<class>/<image>"
TEST_NAMES = ("test", "val", "valid")  # in this order of preference
SPLITS = ("train", *TEST_NAMES)
log = logging.getLogger(__name__)

Place = tuple[str, ...]
"""(split, class, file), (split, file) or (split, class, folder, ..., file)."""


def load(request: DataRequest) -> ImageData:
    """The images under `path`, a directory or a tar archive (plain, gz, bz2, xz), which is read without unpacking it.

    Splits: `train`, which may be left out, and `test` or else `val` or `valid`; in an archive one folder may lie above
    them. Classes are `class_names`, or else the folder names, sorted. Each has images in `train`; `test` may lack some,
    as it does where a class was deleted. Images are PNG, JPEG, BMP, WebP or
    PPM. Other files, and those in folders inside a class, are ignored, and the note counts them by their kind; hidden
    ones are not counted. Examples are in the order of (class, file name), so an archive gives
    the same arrays as the directory it was made from. Sizes and channels: see `pixels.Decoder`; where grey and colour
    images are mixed, grey ones get three equal channels. The decoded arrays are cached.

    Raises:
      ArgumentError: `path` does not name such a folder or archive.
      UserError: a file is missing, damaged, of the wrong size or partly transparent.
    """
    path = Path(request.path).expanduser()
    decoder = Decoder(request.image_size, request.resize, request.channels)
    try:
        if path.is_dir():
            places = sorted(_directory(path))
            mark = _fingerprint(path, places)
            entries = ((p, read_bounded(path.joinpath(*p), ENCODED_BYTES) if _is_image(p) else None) for p in places)
        elif path.is_file() and path.name.lower().endswith(ARCHIVES):
            mark, entries = cache.fingerprint(path), _archive(path)
        else:
            what = "is not a directory or a tar archive" if path.exists() else "does not exist"
            text = f"={request.path!r} {what}; it must be a directory or *{', *'.join(ARCHIVES)} with {LAYOUT}."
            raise ArgumentError("path", text)
        key = [mark, request.image_size, request.resize, request.channels, *request.class_names]
        name = path.name.split(".")[0] or "images"
        decode = partial(_decode, name, path, entries, decoder, request.class_names)
        data = cache.cached(request.cache_dir, f"folder-{name}", key, decode)
    except OSError as error:
        raise ArgumentError("path", f"={request.path!r} cannot be read ({error}); check its permissions.") from error
    if data.note:
        log.warning("%s: %s.", path, data.note)
    return data


def _directory(root: Path) -> Iterator[Place]:
    """All files that are not hidden. Links are followed, except those to folders inside a class."""
    stack: list[Place] = [(split,) for split in SPLITS if (root / split).is_dir()]
    while stack:
        folder = stack.pop()
        with os.scandir(root.joinpath(*folder)) as found:
            for entry in found:
                place = (*folder, entry.name)
                if entry.is_dir(follow_symlinks=len(place) == 2) and not entry.name.startswith("."):
                    stack.append(place)
                    yield (*place, "")
                elif not entry.name.startswith("."):
                    yield place


def _fingerprint(root: Path, places: Iterable[Place]) -> list:
    """[absolute path, digest]: changes when an image is added, removed, renamed, moved, resized or written again."""
    digest = hashlib.sha256()
    for place in places:
        mark = cache.fingerprint(root.joinpath(*place))[1:] if _is_image(place) else ""
        digest.update(f"{'/'.join(place)} {mark}\n".encode(errors="surrogateescape"))
    return [str(root.absolute()), digest.hexdigest()]


def _archive(path: Path) -> Iterator[tuple[Place, bytes | None]]:
    """What the archive holds in its splits, which may be under one folder."""
    roots = set()
    for name, content in tar_entries(path, lambda name: _is_image(_place(name)), ENCODED_BYTES):
        place = _place(name)
        if place and not name.endswith("/"):
            roots.add(name.removesuffix("/".join(place)) or "./")
            yield place, content
        elif len(place) == 2:
            yield (*place, ""), None
    if len(roots) > 1:
        raise UserError(f"The archive {path} has splits in {' and in '.join(sorted(roots))}; keep one of them.")


def _place(name: str) -> Place:
    """The place of a member of an archive; () of one that is hidden or in no split."""
    parts = name.strip("/").split("/")
    at = 0 if parts[0] in SPLITS else 1
    hidden = any(part.startswith(".") for part in parts)
    return tuple(parts[at:]) if parts[at : at + 1] and parts[at] in SPLITS and not hidden else ()


def _is_image(place: Place) -> bool:
    """Whether <split>/<class>/<file> is the place and the name of an image."""
    return len(place) == 3 and place[2].lower().endswith(SUFFIXES)


def _decode(name: str, path: Path, entries: Iterator, decoder: Decoder, known: tuple[str, ...]) -> ImageData:
    """The images of (place, content); the name of a class folder is a place with an empty third part."""
    images: dict[str, dict[Place, np.ndarray]] = {}  # split -> (class, file)
    ignored, folders = [], set()
    for place, encoded in entries:
        files = images.setdefault(place[0], {})
        if len(place) > 2:
            folders.add(place[:2])
        if encoded is None:
            ignored += [place] if place[-1] else []
            continue
        try:
            files[place[1:]] = decoder(encoded, f"{path}/{'/'.join(place)}")
        except UserError:
            all(entries)  # at its end, an archive says whether the archive itself is damaged
            raise
    test_name = next((split for split in TEST_NAMES if split in images), "")
    used = [split for split in ("train", test_name) if split in images]
    ignored = [place for place in ignored if place[0] in used]
    found = {label for split, label in folders if split in used}
    names = list(known or sorted(found))
    if not images.get(test_name) or len(names) < 2:
        raise UserError(f"{path} has no split test (or val, valid) with 2 or more classes; it must hold {LAYOUT}.")
    if strange := sorted(found - {*names}):
        raise ArgumentError("class_names", f"={','.join(names)} lacks the folder {strange[0]!r} of {path}; name all.")
    for label in names if "train" in used else ():
        if not any(of == label for of, _ in images["train"]):
            raise UserError(f"{path}/train/{label} holds no image; the split train must hold images of all classes.")
    channels = max(image.shape[2] for split in used for image in images[split].values())

    def stacked(split):
        files = sorted(images.get(split, {}).items())
        pixels = np.empty((len(files), decoder.size, decoder.size, channels), np.uint8)
        for i, (_, image) in enumerate(files):
            pixels[i] = image  # grey among colour gets three equal channels
        return pixels, np.array([names.index(label) for (label, _), _ in files], np.int32)

    with reading(f"The class folders of {path}"):
        empty = [label for label in names if not any(of == label for of, _ in images[test_name])]
        notes = [f"no test images of {', '.join(map(visible, empty))}"] * bool(empty) + [_note(ignored)] * bool(ignored)
        return ImageData(stacked("train"), stacked(test_name), names, name, "; ".join(notes))


def _note(ignored: list[Place]) -> str:
    """How many files are ignored, by their kind and with an example of each; "" if none."""
    kinds: dict[str, list[str]] = {}
    for place in ignored:
        kind = PurePath(place[-1]).suffix.lower() or "without a suffix"
        kind = {2: "in no class folder", 3: kind}.get(len(place), "in folders inside a class")
        kinds.setdefault(kind, []).append("/".join(place))
    parts = [f"{len(files)} {kind} (such as {min(files)})" for kind, files in sorted(kinds.items())]
    return visible(f"ignored files: {', '.join(parts)}" if parts else "")
