"""Walking through an image folder: its class folders and encoded images, from a directory or a tar archive."""

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ispf_jax.data.pixels import SUFFIXES
from ispf_jax.errors import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
SPLITS = ("train", "test", "val", "valid")
TAR_BLOCK = 512


class Entry(NamedTuple):
    """An image, or a class folder if `encoded` is None (so that an empty class can be noticed)."""

    split: str
    label: str
    file: str = ""
    encoded: bytes | None = None


def directory_entries(root: Path) -> Iterator[Entry]:
    """The entries of the directory `root`, sorted. Links are followed; folders inside a class are not entered."""
    for split in SPLITS:
        for folder in _visible(root / split, os.DirEntry.is_dir):
            yield Entry(split, folder.name)
            for file in _visible(folder, os.DirEntry.is_file):
                if _is_image(file.name):
                    yield Entry(split, folder.name, file.name, Path(file).read_bytes())


def directory_fingerprint(root: Path) -> list:
    """[absolute path, digest]: changes when an image is added, removed, renamed, moved, resized or written again.

    Looks at names, sizes and times of change, not into the files: about 0.3 s for 60,000.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        for folder in _visible(root / split, os.DirEntry.is_dir):
            digest.update(f"{split}/{folder.name}\n".encode(errors="surrogateescape"))
            for file in _visible(folder, os.DirEntry.is_file):
                stat = file.stat()
                line = f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return [str(root.absolute()), digest.hexdigest()]


def archive_entries(archive: Path) -> Iterator[Entry]:
    """The entries of a tar archive in the order it stores them, in one pass, nothing written to disk.

    One folder may lie above the splits. Raises UserError if the archive is damaged or ends too early.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if len(parts) > 1 and parts[0] not in SPLITS:
                    parts = parts[1:]
                if not parts or parts[0] not in SPLITS or any(part.startswith(".") for part in parts):
                    continue
                if member.isdir() and len(parts) == 2:
                    yield Entry(*parts)
                elif member.isfile() and len(parts) == 3 and _is_image(parts[2]):
                    yield Entry(*parts, tar.extractfile(member).read())
        if archive.name.lower().endswith(".tar"):
            _check_end(archive)
    except PermissionError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(
            f"The archive {archive} is damaged or truncated ({error}); copy or download it again."
        ) from error


def _check_end(archive: Path) -> None:
    """A tar ends with zero blocks. Without compression nothing else tells that one was cut between two files."""
    with archive.open("rb") as file:
        file.seek(-TAR_BLOCK, os.SEEK_END)
        if any(file.read()):
            raise EOFError("the end of the archive is missing")


def _visible(folder, kind) -> list[os.DirEntry]:
    """Entries of one kind that are not hidden, sorted by name; none if there is no such folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".") and kind(e)), key=lambda e: e.name)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
