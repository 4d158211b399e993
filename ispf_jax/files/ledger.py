"""A ledger next to weights: which classes were forgotten when, by which method, from which weights."""

import json
from dataclasses import dataclass
from pathlib import Path

from ispf_jax.errors import UserError
from ispf_jax.runtime.guard import read_bounded
from ispf_jax.runtime.schema import Count, Word, fit, reason

LEDGER = "ledger.json"


@dataclass(frozen=True)
class Entry:
    """One request that was carried out.

    Attributes:
      forgot: ids of the classes that the weights lack from then on, and their names.
      source, weights: hashes of the variables before and after; see `provenance.weights_digest`.
      written: time in UTC.
    """

    forgot: list[Count]
    names: list[Word]
    method: Word
    source: Word
    weights: Word
    written: Word
    software: Word


def read_ledger(directory: Path) -> list[Entry]:
    """The entries of a directory's ledger, the oldest first; none if it has no ledger.

    Raises:
      UserError: it is damaged.
    """
    path = directory / LEDGER
    if not path.exists():
        return []
    try:
        return fit(list[Entry], json.loads(read_bounded(path, 1 << 20)))
    except (ValueError, RecursionError) as error:
        text = f"{path} is damaged ({reason(path, error)}); restore it, or remove it if nothing was forgotten before."
        raise UserError(text) from error


def history_of(directory: Path, weights: str) -> list[Entry]:
    """The entries that led to these weights; none where the ledger is of others."""
    entries = read_ledger(directory)
    last = max((i for i, entry in enumerate(entries) if entry.weights == weights), default=-1)
    return entries[: last + 1]


def forgotten(entries: list[Entry]) -> list[int]:
    """Ids of all classes that were forgotten."""
    return sorted({c for entry in entries for c in entry.forgot})
