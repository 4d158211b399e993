"""Walking through an image folder: its class folders and encoded images, from a directory or a tar archive."""

import hashlib
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ispf_jax.data.pixels import SUFFIXES
from ispf_jax.data.whole_tar import whole_members
from ispf_jax.errors import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
SPLITS = ("train", "test", "val", "valid")


class Entry(NamedTuple):
    """An image; a file that is ignored if `encoded` is None; a class folder if `file` is "" too (it may be empty).

    label: "" of a file beside the class folders. file: of one deeper inside a class with its folders, "more/1.png".
    """

    split: str
    label: str
    file: str = ""
    encoded: bytes | None = None


def directory_entries(root: Path) -> Iterator[Entry]:
    """The entries of the directory `root`, sorted. Links are followed, but not those to folders inside a class."""
    for path, found, is_folder in _walk_splits(root):
        if not is_folder:
            yield _file(path, Path(found).read_bytes() if _is_image(path) else None)
        elif len(path) == 2:
            yield Entry(*path)


def directory_fingerprint(root: Path) -> list:
    """[absolute path, digest]: changes when an image is added, removed, renamed, moved, resized or written again.

    Looks at names, sizes and times of change, not into the files: about 0.3 s for 60,000.
    """
    digest = hashlib.sha256()
    for path, found, is_folder in _walk_splits(root):
        line = "/".join(path) + "/" * is_folder
        if _is_image(path):
            stat = found.stat()
            line += f" {stat.st_size} {stat.st_mtime_ns}"
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return [str(root.absolute()), digest.hexdigest()]


def archive_entries(archive: Path) -> Iterator[Entry]:
    """The entries of a tar archive in the order it stores them, as if it had been unpacked; nothing is written to disk.

    One folder may lie above the splits. A compressed archive is gone through twice: only its end tells which files are
    replaced by later ones of the same name.
    Raises UserError if it is damaged or ends too early, has splits in several places, or links to what is not in it.
    """
    try:
        with tarfile.open(archive) as tar:
            members = _members(tar)
            yield from _unpacked(tar, _paths(members, archive))
    except PermissionError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(
            f"The archive {archive} is damaged or truncated ({error}); copy or download it again."
        ) from error


def _members(tar) -> dict[str, tarfile.TarInfo]:
    """The last member of every name; in the place of a hard link the file that had the other name at that point."""
    members = {}
    for member in whole_members(tar):
        name = posixpath.normpath(member.name)
        members[name] = members.get(posixpath.normpath(member.linkname), member) if member.islnk() else member
    return members


def _paths(members, archive) -> dict[tarfile.TarInfo, list[tuple[str, ...]]]:
    """The paths, from the split on, under which every member is to be found: several where links lead to it."""
    paths, roots = {}, set()
    for name in members:
        parts = name.lstrip("/").split("/")
        root = [] if parts[0] in SPLITS else parts[:1]
        path = tuple(parts[len(root) :])
        if path and path[0] in SPLITS and not any(part.startswith(".") for part in parts):
            roots.add("".join(root) or ".")
            paths.setdefault(_followed(members, name, path, archive), []).append(path)
    if len(roots) > 1:
        raise UserError(
            f"The archive {archive} has splits in {' and in '.join(sorted(roots))}; make an archive of one of them."
        )
    return paths


def _followed(members, name, path, archive) -> tarfile.TarInfo:
    """The member at the end of symbolic links. Where no image and no class is expected, a link may lead anywhere."""
    target, followed = name, []
    while (member := members.get(target)) and member.issym() and target not in followed:
        followed.append(target)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(target), member.linkname))
    if member and (member.isfile() or (member.isdir() and not followed)):
        return member
    if _is_image(path) or len(path) < 3:
        raise UserError(
            f"{name} in the archive {archive} is neither a file nor a link to one in the archive; "
            "make the archive with tar --dereference, which stores what links lead to."
        )
    return members[name]


def _unpacked(tar, paths) -> Iterator[Entry]:
    for member in sorted(paths, key=lambda member: member.offset_data):  # going back means decompressing again
        images = member.isfile() and any(map(_is_image, paths[member]))
        encoded = tar.extractfile(member).read() if images else None
        for path in paths[member]:
            if not member.isdir():
                yield _file(path, encoded if _is_image(path) else None)
            elif len(path) == 2:
                yield Entry(*path)


def _walk_splits(root: Path) -> Iterator[tuple[tuple[str, ...], os.DirEntry, bool]]:
    """(path from the split on, what is there, whether it is a folder) of all that is not hidden, sorted."""
    for split in SPLITS:
        if os.path.isdir(root / split):
            yield from _walk((split,), root / split)


def _walk(path, folder):
    with os.scandir(folder) as entries:
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for found in visible:
        inner = (*path, found.name)
        is_folder = found.is_dir(follow_symlinks=len(inner) == 2)  # links further down may lead in circles
        yield inner, found, is_folder
        if is_folder:
            yield from _walk(inner, found)


def _file(path, encoded) -> Entry:
    label, file = (path[1], path[2:]) if len(path) > 2 else ("", path[1:])
    return Entry(path[0], label, "/".join(file), encoded)


def _is_image(path) -> bool:
    """Whether <split>/<class>/<file> is the place and the name of an image."""
    return len(path) == 3 and path[2].lower().endswith(SUFFIXES)
