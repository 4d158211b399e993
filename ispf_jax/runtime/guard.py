"""The guard for files from outside: regular files of bounded size, and archives that hold what they declare."""

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ispf_jax.errors import UserError

_BLOCK, _CHUNK, _HEADERS = 512, 1 << 20, 1 << 20
_MEMBERS, _ENTRIES, _PADDING = 100_000, 100_000, 16 << 20
_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def regular_file(path, limit: int) -> Path:
    """`path` if it is, or links to, a regular file of at most `limit` bytes; not a FIFO, a device or a directory.

    Raises:
      UserError: it is something else, larger, or cannot be reached.
    """
    with _reachable(path):
        found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
        raise UserError(f"{path} is {what}, but must be a regular file; remove or replace it.")
    if found.st_size > limit:
        raise UserError(f"{path} has {found.st_size:,} bytes; at most {limit:,} are read.")
    return Path(path)


def read_bounded(path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; a pipe is refused and never waited for.

    Raises:
      UserError: see `regular_file`.
    """
    size, patient = regular_file(path, limit).stat().st_size, getattr(os, "O_NONBLOCK", 0)
    with _reachable(path), open(path, "rb", opener=lambda name, flags: os.open(name, flags | patient)) as file:
        content = file.read(size + 1) or b""
    if len(content) > size:
        raise UserError(f"{path} holds more than the {size:,} bytes that it should; it changes, or is no real file.")
    return content


def directory_digest(directory: Path, limit: int) -> tuple[int, str]:
    """The bytes of all files in a directory, and a hash of their names and content.

    Raises:
      UserError: something in it is neither a regular file nor a directory, or they have more than `limit` bytes.
    """
    total, digest = 0, hashlib.blake2b(digest_size=16)
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            content = read_bounded(path, limit - total)
            total += len(content)
            digest.update(f"{path.relative_to(directory)} {len(content)} ".encode(errors="surrogateescape") + content)
    return total, digest.hexdigest()


@contextmanager
def _reachable(path):
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


@contextmanager
def reading(what) -> Iterator[None]:
    """Whatever a reader raises within the block becomes a UserError about `what`; UserErrors that name a file pass."""
    try:
        yield
    except Exception as error:
        if type(error) is UserError:  # an ArgumentError names an argument that the user does not know
            raise
        if isinstance(error, MemoryError):
            raise UserError(f"{what} takes more memory than there is.") from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{what} is damaged or cannot be read ({reason}); check, replace or remove it.") from error


def stored_zip(file: BinaryIO, unread: str = "\0") -> zipfile.ZipFile:
    """The zip archive in an open file, of which no more is unpacked than there is: nothing is compressed or overlaps.

    Args:
      unread: part of the names of files that the caller does not open, and that may be compressed.

    Raises:
      Exception: it is another one; zipfile raises many kinds.
    """
    size, listed = file.seek(0, os.SEEK_END), 0
    file.seek(0)
    while block := file.read(_CHUNK):  # before zipfile makes an object of every entry
        listed += block.count(b"PK\x01\x02")
    if listed > _ENTRIES:
        raise ValueError("it is a zip archive of too many files")
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it is a zip archive with two files of the same name")
    read = [entry for entry in entries if unread not in entry.filename]
    if any(entry.compress_type for entry in read) or sum(entry.file_size for entry in read) > size:
        raise ValueError("it is a zip archive whose files are compressed or overlap")
    return archive


def tar_entries(
    path: Path, wanted: Callable[[str], bool], limit: int, total: int = 0
) -> Iterator[tuple[str, bytes | None]]:
    """The members of a tar archive (plain, gz, bz2 or xz) in the order stored; nothing is written to disk.

    Args:
      wanted: whether a file is to be read, from its name.
      limit: the largest file that is read, in bytes.
      total: what all files together may have; 0: 1 GiB, or 100 times the size of the archive if that is more.

    Returns:
      (name, content), where the content is None for what is not wanted and the name of a directory ends in "/".

    Raises:
      UserError: the archive is damaged or cut; it holds a link or anything else than files and directories; or it
        declares more than `total`, or more than 100,000 members and one for every 64 bytes of the archive.
    """
    size = regular_file(path, 1 << 62).stat().st_size
    most, members = total or max(1 << 30, 100 * size), max(_MEMBERS, size // 64)
    with reading(path):
        with path.open("rb") as file:
            start = file.read(5)
        opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), open)
        with opener(path, "rb") as stream:
            yield from _entries(path, stream, wanted, limit, most, members)


class _Headers:
    """The stream as tarfile sees it, which reads whatever a header declares: at most `left` bytes per member."""

    def __init__(self, stream):
        self.seek, self.tell, self._read, self.left = stream.seek, stream.tell, stream.read, _HEADERS

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("a header declares more than 1 MiB")
        found = self._read(size)
        if re.search(rb"\d{256}", found):  # on which the patterns of Python before 3.11.10 and 3.12.6 take for ever
            raise tarfile.ReadError("a header has numbers of more than 255 digits")
        return found


def _entries(path, stream, wanted, limit, most, members):
    headers = _Headers(stream)
    tar = tarfile.TarFile(fileobj=headers)
    tar.offset = declared = count = padding = 0
    while True:
        headers.left = _HEADERS
        stream.seek(tar.offset)
        try:  # by itself, `tar.next` would take a header that it cannot read for the end of the archive
            member = tarfile.TarInfo.fromtarfile(tar)
        except tarfile.EOFHeaderError:
            break
        name = posixpath.normpath(member.name)
        if ".." in name.split("/"):
            raise UserError(f"{name!r} in the archive {path} leads out of it; make the archive again without it.")
        if not (member.isfile() or member.isdir()) or member.issparse() or member.size < 0:
            what = "a link; tar --dereference --hard-dereference stores what links lead to"
            what = what if member.issym() or member.islnk() else "neither a plain file nor a directory"
            raise UserError(f"{name!r} in the archive {path} is {what}; make the archive again without it.")
        declared, count = declared + member.size + _BLOCK, count + 1
        if declared > most or count > members:
            raise UserError(f"The archive {path} declares {declared:,} bytes in {count:,} members, which is too much.")
        content = None
        if member.isfile() and wanted(name):
            if member.size > limit:
                raise UserError(
                    f"{name!r} in the archive {path} has {member.size:,} bytes; at most {limit:,} are read."
                )
            stream.seek(member.offset_data)
            content = stream.read(member.size)
            if len(content) < member.size:
                raise tarfile.ReadError("unexpected end of data")
        yield name + "/" * member.isdir(), content
    while rest := stream.read(_CHUNK):  # to the end, where the checksum of a compressed archive is
        padding += len(rest)
        if rest.strip(b"\0") or padding > _PADDING:
            raise tarfile.ReadError(f"there is more after the end of the archive at byte {tar.offset}")
