"""The audit of one trial and forget set: what every model still knows of the forgotten classes, beside its references.

Original and retrained model come first: they are the two ends of the scale on which every residual measurement is placed. Each
model's measurements are kept in a file of their own, so an interrupted audit goes on with the next model. Beside them stands what they
were made from: the settings and the hashes of the model, of the references it was compared with and of the shadow models; where one is
another now, or unknown, the model is measured again. (Data and network of a work directory never change.)
"""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.config import AUDIT_METRICS, AuditConfig
from ispf_jax.evaluate import measure
from ispf_jax.evaluate.inputs import forget_mask as checked_mask
from ispf_jax.evaluate.placement import placement
from ispf_jax.evaluate.plane import plane
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_json, from_plain, to_plain
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.telemetry import format_duration

FORMAT = 1
PART_FORMAT = 3
"""Of the files with one model's measurements; those of another format are measured again."""
EPS = {"%": 2.0, "F1 x 100": 2.0, "ratio": 0.05, "nats": 0.02, "": 0.02}
"""Difference of original and retrained, by unit, below which a metric cannot tell them apart and nothing is placed."""
PLACED = (
    "mia2",
    "relearn/",
    "probe",
    "knn/",
    "prototype/",
    "cka_",
    "kl_retrain",
    "tv_retrain",
    "l2_original",
    "lira/",
    "mia1_",
)


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
      member: the training images it was selected on, bool [M] (the original's for a student).
      synthetic: images of a student's generator, uint8 [N, H, W, C'].
    """

    name: str
    variables: dict
    member: np.ndarray
    synthetic: np.ndarray | None = None


def audit(
    directory: Path,
    context: measure.Context,
    subjects: list[Subject],
    attackers: measure.Attackers,
    embeddings: list[dict],
    header: dict,
) -> dict:
    """Measure all subjects and leave `audit.json` in `directory`; returns its content.

    Args:
      subjects: "original" must be among them; "retrain" gives the other end of the scale and the gold of the anamnesis index.
      embeddings: two-dimensional pictures of real and synthetic features, passed through.
      header: what identifies the audit (forget set, seed, data, architecture), passed through.
    Raises:
      interruption.Interrupted: a signal asked to stop; the model measured when it came is saved.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _set_aside(directory, context.config)
    settings = to_plain(dataclasses.asdict(context.config))
    inputs = {
        "references": {name: weights_digest(v) for name, v in context.references.items()},
        "shadows": list(attackers.shadows),
    }
    order = {"original": 0, "retrain": 1}
    parts = {}
    for subject in sorted(subjects, key=lambda s: order.get(s.name, 2)):
        path = directory / f"{subject.name.replace('/', '_')}.json"
        made_from = {
            "format": PART_FORMAT,
            "settings": settings,
            "weights": weights_digest(subject.variables),
            "inputs": inputs,
        }
        part = _kept(path, made_from)
        if part is None:
            began = time.perf_counter()
            part = measure.model(context, subject, attackers, parts) | made_from
            atomic_write_json(path, part)
            print(
                f"audit {header['forget']} seed {header['seed']}: {subject.name} in "
                f"{format_duration(time.perf_counter() - began)}",
                file=sys.stderr,
                flush=True,
            )
        parts[subject.name] = part
        if interruption.requested():
            raise interruption.Interrupted(
                f"audit {header['forget']} seed {header['seed']}: saved after {subject.name}"
            )

    names = [s.name for s in subjects]
    content = {"format": FORMAT, **header, "settings": settings, "models": names, "measurements": []}
    for name in names:
        content["measurements"] += [_placed(m, parts) for m in parts[name]["measurements"]]
    content |= {
        "curves": [curve for name in names for curve in parts[name]["curves"]],
        "confusion": {name: parts[name]["confusion"] for name in names},
        "mean_prediction": {name: parts[name]["mean_prediction"] for name in names},
        "weights": {name: parts[name]["weights"] for name in names},
        "embedding": embeddings,
        "representation": [{"title": name} | part for name in names if (part := parts[name]["representation"])],
        "not_run": _not_run(context.config, names),
    }
    atomic_write_json(directory / "audit.json", content)
    return content


def widened(config: AuditConfig, directory: Path) -> AuditConfig:
    """The settings, with the metrics of an earlier start too if nothing else differs: a start adds to an audit and takes nothing away."""
    earlier = _earlier(directory)
    wider = dataclasses.replace(config, metrics=tuple(dict.fromkeys((*earlier.get("metrics", ()), *config.metrics))))
    return wider if _same_but_for_metrics(earlier, wider) else config


def _set_aside(directory, config):
    """Move what was measured with other settings into a directory of its own, which no report reads."""
    earlier = _earlier(directory)
    if not earlier or _same_but_for_metrics(earlier, config):
        return
    aside = next(folder for i in count(1) if not (folder := directory / f"earlier{i}").exists())
    aside.mkdir()
    for path in directory.glob("*.json"):
        path.rename(aside / path.name)
    print(
        f"{directory} was audited with other settings; these measurements are in {aside} now",
        file=sys.stderr,
        flush=True,
    )


def _earlier(directory):
    """The settings of what was measured before; empty if nothing was. The original is always the first."""
    try:
        return json.loads((directory / "original.json").read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _same_but_for_metrics(earlier, config):
    return earlier == to_plain(dataclasses.asdict(config)) | {"metrics": earlier.get("metrics")}


def _placed(measurement, parts):
    """The measurement with its place between retrained (0) and original (1), where the metric has one."""
    metric, place = measurement["metric"], None
    if metric.startswith(PLACED) and "retrain" in parts and measurement["value"] is not None:
        ends = [_value(parts[name], metric) for name in ("original", "retrain")]
        if None not in ends:
            place = placement(measurement["value"], *ends, EPS[measurement["unit"]]).place
    return measurement | {"place": place}


def _value(part, metric):
    return next((m["value"] for m in part["measurements"] if m["metric"] == metric), None)


def _kept(path, made_from):
    """The measurements of an earlier start, if they were made from the same; None otherwise."""
    try:
        part = from_plain(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
    return part if all(part.get(name) == value for name, value in made_from.items()) else None


def _not_run(config, names):
    missing = [
        {"metric": family, "why": f"not in config.audit.metrics={','.join(config.metrics)!r}"}
        for family in AUDIT_METRICS
        if family not in config.metrics
    ]
    if "masked_head" not in names:
        missing.append(
            {
                "metric": "masked_head",
                "why": "with a single retained class the mean of the retained logits is the logit of that class",
            }
        )
    if "retrain" not in names:
        missing.append(
            {
                "metric": "places, ain, distances to retraining",
                "why": "there is no retrained model; add retrain to config.stages",
            }
        )
    if "lira" in config.metrics and not config.lira_shadows:
        missing.append({"metric": "lira", "why": "config.audit.lira_shadows=0; set it to 16 or more (even)"})
    if "mia2" in config.metrics and not config.shadows:
        missing.append({"metric": "mia2", "why": "config.audit.shadows=0; set it to 5"})
    return missing


def embedding(title, teacher_pass, real, real_labels, synthetic, forget, threshold, seed) -> dict:
    """Figures 1 and 3 of the paper: a t-SNE picture of the teacher's features of real and of synthetic images.

    Args:
      teacher_pass: images uint8 -> (logits, penultimate features).
      threshold: PreFilter's, to tell kept from filtered samples.
    """
    mask = checked_mask(np.isin(np.arange(int(teacher_pass(real[:1])[0].shape[1])), forget))
    (_, real_features), (logits, features) = teacher_pass(real), teacher_pass(synthetic)
    probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    of_forget, filtered = mask[logits.argmax(axis=1)], probability[:, mask].max(axis=1) >= threshold
    kinds = np.where(mask[real_labels], "real forgotten", "real retained").tolist()
    kinds += np.where(
        of_forget, "synthetic forgotten", np.where(filtered, "synthetic filtered", "synthetic kept")
    ).tolist()
    points = plane(np.concatenate([real_features, features]), seed)
    return {
        "title": title,
        "method": "t-SNE of the original's penultimate features",
        "points": np.round(points, 2).tolist(),
        "kind": kinds,
    }
