"""Going through a tar archive without overlooking that it is damaged."""

import tarfile
from collections.abc import Iterator

_BLOCK, _CHUNK = 512, 1 << 20


def whole_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in the order they are stored; at the end, the archive is proved to be all there.

    tarfile takes a header that it cannot read for the end of the archive, and stops before the sum behind a compressed
    one: damage in the middle would pass for an archive with fewer files, or with other pixels. Behind the end there are zeros only.
    Raises tarfile.ReadError, EOFError, OSError, zlib.error or lzma.LZMAError for an archive that is damaged or cut.
    """
    yield from tar
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(_BLOCK)
    if end != bytes(_BLOCK):
        raise tarfile.ReadError(f"there is neither a file nor the end of the archive at byte {tar.offset}")
    while rest := tar.fileobj.read(_CHUNK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"there is more behind the end of the archive at byte {tar.offset}")
