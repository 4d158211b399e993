"""A model card next to unlearned weights, and checksums of everything that a result rests on.

The checksums are those of `sha256sum`, so that somebody without this package can check them: `sha256sum -c SHA256SUMS`.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ispf_jax.errors import UserError
from ispf_jax.runtime.atomic import atomic_write_text
from ispf_jax.runtime.guard import read_bounded, regular_file

SUMS, CARD = "SHA256SUMS", "README.md"
_LIST, _FILE = 1 << 24, 1 << 40
LINE = r"(\\?)([0-9a-f]{64}) [ *]([^\n]+)"
"""A line of a file of checksums: whether the name is escaped, SHA-256, name."""

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Checked:
    """What `verify` found: names of files that are as recorded, that changed, and that are missing."""

    same: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.changed and not self.missing

    def __str__(self) -> str:
        words = (("as recorded", self.same), ("CHANGED", self.changed), ("missing", self.missing))
        return "\n".join(f"{name}: {word}" for word, names in words for name in names)


def sha256(path: Path) -> str:
    """The SHA-256 of a regular file, in hexadecimal."""
    with open(regular_file(path, _FILE), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(directory: Path, paths: Iterable[Path]) -> Path:
    """Write the checksums of files to `directory`/SHA256SUMS, by their paths from there."""
    lines = []
    for path in paths:
        name = os.path.relpath(path, directory)
        escaped = "".join(_ESCAPES.get(c, c) for c in name)  # as sha256sum does
        lines.append(f"{'' if escaped == name else chr(92)}{sha256(path)}  {escaped}\n")
    return atomic_write_text(directory / SUMS, "".join(lines))


def verify(path: str | Path) -> Checked:
    """Compare files with the checksums that were recorded when they were written.

    Args:
      path: a SHA256SUMS, the model card next to one, or their directory.

    Raises:
      UserError: there are no checksums, or the file holds something else.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    sums = path if path.name == SUMS else directory / SUMS
    found: dict[str, list[str]] = {"same": [], "changed": [], "missing": []}
    for number, line in enumerate(read_bounded(sums, _LIST).decode(errors="replace").splitlines(), start=1):
        parts = re.fullmatch(LINE, line)
        if not parts:
            raise UserError(f"line {number} of {sums} is no checksum of sha256sum: {line[:80]!r}.")
        name = parts[3]
        if parts[1]:
            name = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
        here = directory / name
        state = "missing" if not here.exists() else "same" if sha256(here) == parts[2] else "changed"
        found[state].append(name)
    if not any(found.values()):
        raise UserError(f"{sums} holds no checksum.")
    return Checked(**{state: tuple(names) for state, names in found.items()})


def model_card(
    title: str, sentences: Iterable[str], facts: Mapping[str, Any], files: Mapping[str, str], tags=()
) -> str:
    """A card in Markdown with a YAML header, as model hubs read it.

    Args:
      sentences: paragraphs: what the model is, how it was tested, what was not.
      facts: rows of a table.
      files: names of the weights' files and their SHA-256.
      tags: more tags.
    """
    header = {"library_name": "ispf_jax", "pipeline_tag": "image-classification"}
    header |= {"tags": ["machine-unlearning", "data-free", *tags]}
    table = [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items()]
    listing = [f"{digest}  {name}" for name, digest in files.items()]
    blocks = [f"# {title}", *sentences, "\n".join(["| | |", "| --- | --- |", *table])]
    blocks += ["Check the files with `ispf verify README.md` or `sha256sum -c SHA256SUMS`:"]
    blocks += ["\n".join(["```", *listing, "```"])]
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n" + "\n\n".join(blocks) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
