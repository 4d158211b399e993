"""The files of an audit: one with each model's measurements, so that an interrupted audit goes on with the next model.

With the measurements stands what they were made from: the settings and the hashes of the model, of the references it
was compared with and of the shadow models. Where one of these has changed, or is unknown, the model is measured again.
"""

import dataclasses
import json
import logging
from itertools import count
from pathlib import Path

from ispf_jax.evaluate.settings import Audit
from ispf_jax.runtime.atomic import from_plain, to_plain

FORMAT = 3
"""Files of another format are measured again."""

_log = logging.getLogger(__name__)


def plain(config: Audit) -> dict:
    """The settings as JSON gives them back."""
    return to_plain(dataclasses.asdict(config))


def prepare(directory: Path, config: Audit) -> Audit:
    """Make the directory; returns the settings, with the metrics of an earlier start too if nothing else differs.

    Where more differs, the earlier measurements are moved into a directory `earlier1`, `earlier2`, ... which no report
    reads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    earlier = _earlier(directory)
    wider = dataclasses.replace(config, metrics=tuple(dict.fromkeys((*earlier.get("metrics", ()), *config.metrics))))
    if not earlier or earlier == plain(wider) | {"metrics": earlier.get("metrics")}:
        return wider
    aside = next(folder for i in count(1) if not (folder := directory / f"earlier{i}").exists())
    aside.mkdir()
    for path in directory.glob("*.json"):
        path.rename(aside / path.name)
    _log.warning("%s was audited with other settings; these measurements are in %s now", directory, aside)
    return config


def path_of(directory: Path, model: str) -> Path:
    """The file of a model's measurements."""
    return directory / f"{model.replace('/', '_')}.json"


def kept(path: Path, made_from: dict) -> dict | None:
    """The measurements of an earlier start, if they were made from the same; None otherwise."""
    try:
        part = from_plain(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
    return part if all(part.get(name) == value for name, value in made_from.items()) else None


def _earlier(directory):
    """The settings of what was measured before; empty if nothing was. The original is always the first."""
    try:
        return json.loads(path_of(directory, "original").read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
