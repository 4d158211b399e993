"""Files that are none, files that are too large, and archives that are not what they seem."""

import gzip
import io
import logging
import os
import resource
import tarfile
import zipfile

import pytest

from ispf_jax.errors import ArgumentError, UserError, few
from ispf_jax.memory import host_bytes
from ispf_jax.runtime import console, guard
from ispf_jax.runtime.guard import read_bounded, reading, stored_zip, tar_entries


def test_text_of_files_does_not_reach_the_terminal_as_it_is():
    """Escape sequences, line breaks, other directions of writing, and what no terminal can encode."""
    text = "a\x1b[2J\r\n\x9b\u202e\u2028\udce9é中"
    escaped = "a\\x1b[2J\\r\\n\\x9b\\u202e\\u2028\\udce9é中"
    assert str(UserError(text)) == escaped and str(ArgumentError("path", text)) == "path" + escaped
    record = logging.LogRecord("ispf_jax", logging.WARNING, "", 0, "%s", (text,), None)
    assert console.line(record) == f"warning: {escaped}"
    record.levelno = logging.INFO
    assert console.line(record) == escaped.replace("\\n", "\n")
    assert (
        len(str(UserError("x" * 10**6))) < 3000 and few(["x" * 10**6] * 5) == ", ".join(["x" * 100] * 3) + " and 2 more"
    )


def test_memory():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < host_bytes() <= machine
    with pytest.raises(UserError, match="file takes more memory than there is"), reading("file"):
        raise MemoryError
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def zipped(*entries, **options):
    with zipfile.ZipFile(file := io.BytesIO(), "w", **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file


def test_stored_zip():
    assert stored_zip(zipped(("a", b"x"), ("b", b"y"))).read("b") == b"y"
    content = zipped(("a", b"x" * 999), ("b", b"x" * 999)).getvalue()
    larger = content.replace((999).to_bytes(4, "little"), (9999).to_bytes(4, "little"))
    for file, words in [
        (zipped(("a", b"x" * 999), compression=zipfile.ZIP_DEFLATED), "compressed or overlap"),
        (io.BytesIO(larger), "compressed or overlap"),
        (io.BytesIO(content.replace(b"b", b"a")), "two files of the same name"),
        (io.BytesIO(b"PK\1\2" * 100_001), "too many files"),
    ]:
        with pytest.raises(ValueError, match=words):
            stored_zip(file)


def test_read_bounded(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    (tmp_path / "link").symlink_to(file)
    assert read_bounded(file, 5) == read_bounded(str(tmp_path / "link"), 99) == b"hello"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, limit, words in [
        ("file", 4, "file has 5 bytes; at most 4"),
        ("fifo", 99, "fifo is a pipe, socket or device"),
        ("/dev/zero", 99, "zero is a pipe, socket or device"),
        ("", 99, "is a directory"),
        ("none", 99, "none cannot be read .No such file"),
        ("loop", 99, "loop cannot be read"),
        ("nul\0", 99, "cannot be read"),
        ("/proc/self/maps", 99, "more than the 0 bytes that it should"),
    ]:
        with pytest.raises(UserError, match=words):
            read_bounded(tmp_path / name, limit)


def member(name="a.png", content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def written(path, *members, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def read(path, limit=1000):
    return list(tar_entries(path, lambda name: name.endswith(".png"), limit))


def test_tar_entries(tmp_path):
    members = (
        member("./b/", type=tarfile.DIRTYPE),
        member("b/a.png", b"x" * 512),
        member("c.txt", b"y"),
        member("z" * 300),
    )
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = written(tmp_path / "a.tgz", *members, form=form)
        assert read(path) == [("b/", None), ("b/a.png", b"x" * 512), ("c.txt", None), ("z" * 300, None)]


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{1 << 40},0"}
SPARSE |= {"GNU.sparse.size": str(1 << 40), "GNU.sparse.realsize": str(1 << 40)}
HOSTILE = {
    "symbolic link": (
        [member(type=tarfile.SYMTYPE, linkname="b.png")],
        "'a.png' in the archive .* is a link; tar --dereference",
    ),
    "hard link": ([member("b.png"), member(type=tarfile.LNKTYPE, linkname="b.png")], "is a link"),
    "device": ([member(type=tarfile.CHRTYPE)], "neither a plain file nor a directory"),
    "unknown type": ([member(type=b"Q")], "neither a plain file nor a directory"),
    "sparse": ([member(pax_headers=SPARSE)], "neither a plain file nor a directory"),
    "above the root": ([member("../a.png")], "leads out of it"),
    "too large a file": ([member(content=bytes(1001))], "has 1,001 bytes; at most 1,000"),
    "header of 2 MB": ([member(pax_headers={"comment": "x" * (2 << 20)})], "header declares more than 1 MiB"),
    "digits": ([member(pax_headers={"comment": "1" * 900_000})], "numbers of more than 255 digits"),
    "header of 2 MB, later": ([member(), member(pax_headers={"comment": "x" * (2 << 20)})], "more than 1 MiB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members(tmp_path, case):
    members, words = HOSTILE[case]
    with pytest.raises(UserError, match=words):
        read(written(tmp_path / "a.tgz", *members))


def test_totals_and_numbers_of_members(tmp_path, monkeypatch):
    """Very many members take little of a compressed file, but time."""
    path = written(tmp_path / "a.tgz", member(content=bytes(900)), member("b", bytes(900)))
    assert len(list(tar_entries(path, bool, 1000, 3000))) == 2
    with pytest.raises(UserError, match="declares 2,824 bytes in 2 members"):
        list(tar_entries(path, bool, 1000, 2800))
    monkeypatch.setattr(guard, "_MEMBERS", 1000)
    with gzip.open(path, "wb") as stream:
        stream.write(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT) * 1001)
    with pytest.raises(UserError, match="in 1,001 members"):
        read(path)


def header(size: bytes) -> bytes:
    """A header of a file, with its size as it is written."""
    block = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content, words",
    [
        (header(b"\x80" + (6 << 30).to_bytes(11, "big")) + bytes(1024), "declares 6,442,451,456 bytes in 1 members"),
        (header(b"\xff" * 12) + bytes(1024), "neither a plain file"),  # -1 bytes
        (header(b"00000001750\0"), "damaged or cannot be read .unexpected end|empty"),
        (header(b"00000000000\0") + bytes(512) + b"x" * 512, "more after the end"),
        (bytes(20 << 20), "more after the end"),
        (b"", "damaged or cannot be read"),
        (b"\0" * 100, "damaged or cannot be read"),
    ],
)
def test_hostile_streams(tmp_path, content, words):
    for file, opener in ((tmp_path / "a.tar", open), (tmp_path / "a.tgz", gzip.open)):
        with opener(file, "wb") as stream:
            stream.write(content)
        with pytest.raises(UserError, match=words):
            read(file)
