"""Own images: `<split>/<class>/<file>`, as a directory or as one tar archive."""

import logging
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from ispf_jax.data import cache
from ispf_jax.data.dataset import ArrayDataset, ImageData, Request
from ispf_jax.data.folder_entries import ARCHIVES, Entry, archive_entries, directory_entries, directory_fingerprint
from ispf_jax.data.pixels import Decoder
from ispf_jax.errors import UserError

LAYOUT = "train/<class>/<image> and test/<class>/<image>"
TEST_NAMES = ("test", "val", "valid")  # in this order of preference
log = logging.getLogger(__name__)


def load(request: Request) -> ImageData:
    """The images under `path`, a directory or a tar archive (plain, gz, bz2, xz), which is read without unpacking it.

    Splits: `train`, which may be left out, and `test` or else `val` or `valid`; in an archive one folder may lie above them. Classes are the
    folder names, sorted, and must be the same in both splits. Images are PNG, JPEG, BMP or WebP. Other files
    and those in folders inside a class are ignored, which the note tells with counts; hidden ones are not counted. Examples are in
    the order of (class, file name), so an archive gives the same arrays as the directory it was made of. Sizes and channels: see
    `pixels.Decoder`; grey images beside coloured ones get three equal channels. The decoded arrays are cached.
    Pillow decodes small images one after the other: two threads were slower (1.45 s instead of 1.02 s for 13,170).

    Raises UserError naming the file if something is missing, empty, damaged, truncated, of the wrong size or
    partly transparent.
    """
    if not request.path:
        raise UserError(f"data.path is empty; set it to a directory or a tar archive with {LAYOUT}.")
    path = Path(request.path).expanduser()
    decoder = Decoder(request.image_size, request.resize, request.channels)
    try:
        if path.is_dir():
            mark, entries = directory_fingerprint(path), directory_entries
        elif path.is_file() and path.name.lower().endswith(ARCHIVES):
            mark, entries = cache.fingerprint(path), archive_entries
        else:
            what = "is not a directory or a tar archive" if path.exists() else "does not exist"
            raise UserError(
                f"data.path {path} {what}; it must be a directory or one of *{', *'.join(ARCHIVES)} with {LAYOUT}."
            )
        key = [mark, request.image_size, request.resize, request.channels]
        name = path.name.split(".")[0] or "images"
        data = cache.cached(
            request.cache_dir, f"folder-{name}", key, lambda: _decode(name, path, entries(path), decoder)
        )
    except OSError as error:
        raise UserError(f"data.path {path} cannot be read ({error}); check the file and its permissions.") from error
    if data.note:
        log.warning("%s: %s.", path, data.note)
    return data


def _decode(name: str, path: Path, entries: Iterator[Entry], decoder: Decoder) -> ImageData:
    splits: dict[str, dict[str, list]] = {}  # split -> class -> [(file name, pixels)]
    ignored: dict[str, list[Entry]] = {}  # split -> files
    for entry in entries:
        if entry.file and entry.encoded is None:
            ignored.setdefault(entry.split, []).append(entry)
            continue
        files = splits.setdefault(entry.split, {}).setdefault(entry.label, [])
        if entry.encoded is not None:
            files.append((entry.file, decoder(entry.encoded, f"{path}/{entry.split}/{entry.label}/{entry.file}")))
    test_name = next((split for split in TEST_NAMES if split in splits), None)
    if test_name is None:
        raise UserError(f"{path} has no split test (or val, valid); it must hold {LAYOUT}.")
    test = splits[test_name]
    train = splits.get("train", dict.fromkeys(test, []))
    if odd := sorted(train.keys() ^ test.keys()):
        where = "train" if odd[0] in train else test_name
        raise UserError(f"The class {odd[0]} of {path} is only in {where}; both splits must hold the same classes.")
    for split in filter(splits.__contains__, ("train", test_name)):
        for label, files in sorted(splits[split].items()):
            if not files:
                raise UserError(
                    f"The class folder {path}/{split}/{label} holds no image; "
                    "add images or remove the class from both splits."
                )
    for label in sorted(test):
        if any("\ud800" <= letter <= "\udfff" for letter in label):  # Python's stand-ins for bytes that are no UTF-8
            raise UserError(
                f"The class folder {label!r} of {path} has a name that is not UTF-8, as results are; rename it in both splits."
            )
    if len(test) < 2:
        raise UserError(f"{path} has {len(test)} class; at least 2 are needed.")
    names = sorted(test)
    channels = max(pixels.shape[2] for classes in (train, test) for files in classes.values() for _, pixels in files)
    note = _note(ignored.get("train", []) + ignored.get(test_name, []))
    tested = _stack(test, names, channels)
    trained = _stack(train, names, channels) if "train" in splits else tested.take(slice(0))
    return ImageData(name, trained, tested, tuple(names), note)


def _note(ignored: list[Entry]) -> str:
    """How many files are ignored, by their kind and with an example of each; "" if none."""
    kinds: dict[str, list[str]] = {}
    for split, label, file, _ in ignored:
        kind = PurePath(file).suffix.lower() or "without a suffix"
        kind = "in no class folder" if not label else "in folders inside a class" if "/" in file else kind
        kinds.setdefault(kind, []).append("/".join(filter(None, (split, label, file))))
    parts = [f"{len(files)} {kind} (such as {min(files)})" for kind, files in sorted(kinds.items())]
    note = f"ignored files: {', '.join(parts)}" if parts else ""
    return note.encode(errors="backslashreplace").decode()


def _stack(classes: dict[str, list], names: list[str], channels: int) -> ArrayDataset:
    images = [pixels for label in names for _, pixels in sorted(classes[label], key=lambda item: item[0])]
    images = [np.broadcast_to(pixels, (*pixels.shape[:2], channels)) for pixels in images]  # grey beside colour
    labels = [np.full(len(classes[label]), i, np.int32) for i, label in enumerate(names)]
    return ArrayDataset(np.stack(images), np.concatenate(labels))
