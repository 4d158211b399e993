"""Damage to every file of a finished work directory: a right result, or set aside and said, or one sentence.

Seeded and bounded. What a file says without contradicting itself or another file is believed: such changes are counted
as "another value", and there must be none where a hash stands beside the numbers.
"""

import json
import logging
import random
import shutil
from collections import Counter

import pytest

from ispf_jax.config import make_experiment
from ispf_jax.errors import UserError
from ispf_jax.evaluate import parts
from ispf_jax.report import write_report
from ispf_jax.runtime.layout import Job
from ispf_jax.runtime.lock import locked
from ispf_jax.runtime.measurements import parse_model
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import read_provenance
from ispf_jax.runtime.schema import found_aside, read_json
from ispf_jax.sweep import pipeline
from ispf_jax.sweep.export import export
from ispf_jax.training import Split
from ispf_jax.unlearning import restore
from tests.sweep.test_audit import audited

ORIGINAL, STUDENT = Job("original", 0), Job("unlearn", 0, (1,), "dfq", "ispf")
TEXTS = {  # files that the report reads, and how often each is damaged
    "config.json": 40,
    "jobs.jsonl": 30,
    "results.json": 30,
    "original/seed0/rows/1/result.json": 50,
    "retrain/1/seed0/result.json": 30,
    "unlearn/dfq/ispf/1/seed0/result.json": 50,
    "unlearn/dfq/ispf/1/seed0/metrics.jsonl": 50,
    "unlearn/dfq/ispf/1/seed0/samples.png": 10,
    "audit/1/seed0/audit.json": 70,
    "audit/1/seed0/ispf_dfq.json": 30,
}
OTHERS = {"original/seed0/split.npz": 40, ".lock": 10}
OTHERS |= {f"unlearn/dfq/ispf/1/seed0/{name}": 20 for name in ("weights.safetensors", "SHA256SUMS")}
CHECKPOINTS = {f"{job.place}/checkpoints": 90 for job in (ORIGINAL, STUDENT)}
HASHED = ("split.npz", "weights.safetensors", "checkpoints", "samples.png")
WRONG = (None, True, -1, 0.5, 1e308, -(10**400), 2**70, "nan", "inf", "x", "\ud800", "a\nb", "1" * 5000, [], {}, [[]])


@pytest.fixture(scope="module")
def config():
    small = {"audit__metrics": "accuracy,divergence", "audit__embedding_images": 12, "audit__shadows": 0}
    return audited(export="safetensors", evaluate__every=1, **small)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("fuzz") / "whole"
    pipeline.run(config, str(workdir))
    return workdir


def flipped(content, rng):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def edited(content, rng):
    """One place of the JSON in a file, or in a line of it, removed, added to, buried or replaced."""
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines)) if content[:1] == b"{" and content.count(b"\n{") else None
    value = json.loads(content if at is None else lines[at])
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    how = rng.randrange(8)
    if how == 0:
        del place[key]
    elif how == 1 and isinstance(place, dict):
        place[rng.choice(("more", "\ud800", "x" * 10_000, ""))] = rng.choice(WRONG)
    elif how == 2:
        for _ in range(rng.choice((1, 30, 900))):
            place[key] = [place[key]]
    elif how == 3:
        place[key] = float("nan")
    elif how == 4 and isinstance(place[key], int | float):
        place[key] = rng.choice((-1, 10**6, 1e-9)) * (place[key] + 1)
    else:
        place[key] = rng.choice(WRONG)
    text = json.dumps(value) if how != 5 else "[" * 100_000 + "]" * 100_000
    return (text if at is None else "\n".join([*lines[:at], text, *lines[at + 1 :]]) + "\n").encode()


def mutated(name, content, rng):
    kinds = (flipped, cut, edited, edited, edited) if name.endswith(("json", "jsonl", "metadata")) else (flipped, cut)
    return rng.choice(kinds)(content, rng)


def report(worker, workdir):
    """All that a report says, pictures aside."""
    read_provenance(workdir)
    read_json(workdir / "audit/1/seed0/ispf_dfq.json", parse_model)
    parts.prepare(workdir / "audit/1/seed0", worker.e.audit)
    text = write_report(workdir)
    return text, (workdir / "tables.md").read_text(), (workdir / "results.csv").read_text()


def others(worker, workdir):
    """The split, the export and the lock."""
    with locked(workdir):
        exported = export(worker, [STUDENT])[0]
        split = Split.load(workdir / ORIGINAL.place, len(worker.data.train))
    return exported, split and split.train.tolist() + split.validation.tolist()


def checkpoints(worker, workdir):
    """Hashes of what the checkpoints hold, and what they note."""
    original, student = worker.read(ORIGINAL, "best"), worker.read(STUDENT, "last")
    settings = {"config": worker.e.distill, "checkpoints": workdir / STUDENT.place, "devices": 1}
    again = restore(original, STUDENT.forget, "ispf", **settings)
    found = [weights_digest(c.variables) for c in (original, student, again.classifier, again.best)]
    return found, original.origin["meta"], again.meta, weights_digest(again.generator.variables)


def outcome(read, worker, workdir, right, caplog):
    """What came of a damaged file; anything but the allowed outcomes is an error of the test."""
    caplog.clear()
    try:
        found = read(worker, workdir)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return "set aside, then refused" if found_aside(workdir) else "refused"
    messages = [
        r.getMessage() for r in caplog.records if r.name.startswith("ispf_jax") and r.levelno >= logging.WARNING
    ]
    assert not any("\n" in message for message in messages)
    if found_aside(workdir):
        assert any("damaged" in message for message in messages)
        return "set aside"
    return "right" if found == right else "another value"


def damaged_set(whole, workdir, names, read, config, caplog):
    """Counts of outcomes by file."""
    counts, rng = {}, random.Random(0)
    needless = shutil.ignore_patterns("figures", "tensorboard", *(["checkpoints"] if read is report else []))
    shutil.copytree(whole, workdir, ignore=needless)
    worker = pipeline.Run(make_experiment(config), workdir).workers[0]
    right = read(worker, workdir)
    for name, times in names.items():
        files = [path for path in sorted((whole / name).rglob("*")) if path.is_file()] or [whole / name]
        files = [path for path in files if path.stat().st_size]
        counts[name] = Counter()
        for _ in range(times):
            path = rng.choice(files)
            content = mutated(path.name, path.read_bytes(), rng)
            (workdir / path.relative_to(whole)).write_bytes(content)
            counts[name][outcome(read, worker, workdir, right, caplog)] += 1
            shutil.rmtree(workdir)
            shutil.copytree(whole, workdir, ignore=needless)
    print(*(f"{name}: {dict(found)}" for name, found in counts.items()), sep="\n")
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("names, read", [(TEXTS, report), (OTHERS, others), (CHECKPOINTS, checkpoints)])
def test_damage_is_survived(whole, tmp_path, config, caplog, monkeypatch, names, read):
    monkeypatch.setattr("ispf_jax.report.page.draw", lambda picture, *formats: [b"<svg/>"] * len(formats))
    counts = damaged_set(whole, tmp_path / "damaged", names, read, config, caplog)
    assert sum(sum(found.values()) for found in counts.values()) == sum(names.values())
    for name, found in counts.items():
        assert not name.endswith(HASHED) or not found["another value"], (name, found)


def test_there_are_enough():
    assert sum(sum(names.values()) for names in (TEXTS, OTHERS, CHECKPOINTS)) >= 600
