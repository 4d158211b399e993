"""The files of an audit: one with each model's measurements, so that an interrupted audit goes on with the next model.

With the measurements stands what they were made from: the settings and the hashes of the model, of the references it
was compared with and of the shadow models. Where one of these has changed, or is unknown, the model is measured again.
"""

import dataclasses
import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path

from ispf_jax.evaluate.settings import Audit
from ispf_jax.runtime.atomic import atomic_write_json, to_plain
from ispf_jax.runtime.measurements import parse_model
from ispf_jax.runtime.schema import read_json

FORMAT = 4
"""Files of another format are measured again."""

log = logging.getLogger(__name__)


def plain(config: Audit) -> dict:
    """The settings that numbers depend on, as JSON gives them back."""
    return {name: value for name, value in to_plain(dataclasses.asdict(config)).items() if name != "by"}


def prepare(directory: Path, config: Audit) -> Audit:
    """Make the directory; returns the settings, with the metrics of an earlier start too if nothing else differs.

    Where more differs, the earlier measurements are moved into a directory `earlier1`, `earlier2`, ... which no report
    reads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    earlier = (read_json(_path(directory, "original"), parse_model) or {}).get(
        "settings", {}
    )  # the original is always the first
    wider = dataclasses.replace(config, metrics=tuple(dict.fromkeys((*earlier.get("metrics", ()), *config.metrics))))
    if not earlier or earlier == plain(wider) | {"metrics": earlier["metrics"]}:
        return wider
    aside = next(folder for i in count(1) if not (folder := directory / f"earlier{i}").exists())
    aside.mkdir()
    for path in directory.glob("*.json"):
        path.rename(aside / path.name)
    log.warning("%s was audited with other settings; these measurements are in %s now", directory, aside)
    return config


def part(directory: Path | None, model: str, made_from: dict, make: Callable[[], dict]) -> dict:
    """The measurements of a model: those of an earlier start if they were made from the same, or new ones."""
    made_from = {"format": FORMAT, **made_from}
    kept = read_json(_path(directory, model), parse_model) if directory else None
    if kept and all(kept.get(name) == value for name, value in made_from.items()):
        return kept
    made = make() | made_from
    if directory:
        atomic_write_json(_path(directory, model), made)
    return made


def _path(directory, model):
    return directory / f"{model.replace('/', '_')}.json"
