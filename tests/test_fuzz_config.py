"""Configurations and command lines at random: each becomes Experiments or is refused in one sentence.

The cases follow from a seed. They pass through the doors that the program uses: `parse_flags` and `make_experiments`.
"""

import random
import sys
import time
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict, config_dict

from ispf_jax.config import default_config, make_experiments
from ispf_jax.errors import UserError
from ispf_jax.experiment import Experiment, keys
from tests.test_launch import ROOT, program

__all__ = ["program"]

pytestmark = pytest.mark.slow
DEFAULTS = {path: field.default for path, _, field, _ in keys()}
PATHS = list(DEFAULTS)
CASES = 1000  # of each kind


class Hostile:
    def __repr__(self):
        raise RuntimeError


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic():
    value = []
    value.append(value)
    return value


SCALARS = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**32, 2**63, 10**400, 10**5000, 0.0, 0.5, -0.5, 1e-300, 1e300, 1j,
    float("nan"), float("inf"), np.int64(3), np.float32(0.5), np.bool_(True), np.array(3), np.array([1, 2]), b"x",
    object, len, Hostile(), range(3), nested(400), cyclic(), {1, 2}, frozenset(), lambda: 1, NotImplemented, ...,
)  # fmt: skip
TEXTS = (
    "", " ", "0", "1,2", "3;4", "each", "auto", "off", "gkt,ispf", "gkt,gkt", "dfq", "none", "nan", "1e999", "-1", "\0",
    "\n", "\x1b[2J", "\ud800", "\udcff", "~nosuchuser/x", "/dev/zero", "../..", "x" * 300, "9" * 6000, "id:", "name:",
    "\u0663", "é", "\u202e", "," * 1000, ";" * 50, "1," * 20_000, "pt,safetensors", "True", "=", "{}", "config",
)  # fmt: skip
NAMES = ("a", "", "..", "a/b", "report", "x" * 300, "a\nb", "\ud800", "é", 3, None, True, (1,), "parts", "data")


def value(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return [rng.choice(SCALARS + TEXTS) for _ in range(rng.randrange(4))]
    if kind == 2:
        return tuple(rng.choice(SCALARS + TEXTS) for _ in range(rng.randrange(3)))
    if kind == 3:
        return {rng.choice(NAMES): rng.choice(SCALARS + TEXTS) for _ in range(rng.randrange(3))}
    return rng.choice(SCALARS)


def changes(rng, known=0.9):
    """A nested dict of keys, most of which exist, with values of all kinds."""
    found = {}
    for _ in range(rng.randrange(1, 4)):
        path = rng.choice(PATHS)
        *groups, name = path.split(".")
        name = name if rng.random() < known else rng.choice(NAMES)
        place = found.setdefault(groups[0], {}) if groups and rng.random() < 0.95 else found
        if isinstance(place, dict):
            place[name] = DEFAULTS[path] if rng.random() < 0.5 else value(rng)
    return found


def configuration(rng):
    """A whole configuration with some keys changed, removed or added, as one of the types that a file may return."""
    config = default_config().to_dict()
    for name, changed in changes(rng).items():
        whole = isinstance(changed, dict) and isinstance(config.get(name), dict)
        config[name] = config[name] | changed if whole else changed
    if rng.random() < 0.1:
        config.pop(rng.choice(list(config)))
    if rng.random() < 0.3:
        parts = {rng.choice(NAMES): rng.choice((changes(rng), value(rng))) for _ in range(rng.randrange(3))}
        config["parts"] = rng.choice((parts, parts, parts, value(rng)))
    kind = rng.choice((dict, dict, ConfigDict, FrozenConfigDict))
    try:
        return kind(config)
    except Exception:  # ml_collections does not take it: the file's own error
        return config


def outcome(action) -> str:
    """What an action ends in; anything but experiments and one sentence fails the test."""
    began = time.process_time()
    try:
        made = action()
        assert made and all(isinstance(e, Experiment) for e in made.values())
        return "experiments"
    except UserError as error:
        text = str(error)
        assert text and len(text.splitlines()) == 1 and "Traceback" not in text and len(text) < 5000, text
        text.encode()
        return "refused"
    finally:
        assert time.process_time() - began < 10


def test_configurations():
    rng, found = random.Random(0), Counter()
    for _ in range(CASES):
        config = configuration(rng)
        found[outcome(lambda config=config: make_experiments(config))] += 1
    whole = (3, None, [], "text", {}, ConfigDict(), config_dict.placeholder(int), Hostile(), cyclic(), Experiment())
    found.update(outcome(lambda config=config: make_experiments(config)) for config in whole)
    print(f"configurations: {dict(found)}")
    assert min(found["experiments"], found["refused"]) > 20, found


BODIES = (
    "", "x =", "\0", "import nothing_here", "raise SystemExit(0)", "raise SystemExit('a\\nb')", "get_config = 3",
    "def get_config(a, b): pass", "def get_config(v=''): return get_config(v)", "def get_config(v=''): return {value}",
    "def get_config(v=''): raise {error}",
    "def get_config(v=''):\n    c = default_config()\n    {change}\n    return c",
    "def get_config(v=''):\n    c = default_config()\n    c.unlock()\n    {change}\n    return c",
)  # fmt: skip
VALUES = ("3", "None", "[]", "{'a': 1}", "ConfigDict()", "ConfigDict({'parts': {}})", "lambda: 1", "b''.decode")
ERRORS = (
    "ValueError('a\\nb')",
    "KeyError",
    "BaseException",
    "GeneratorExit",
    "MemoryError",
    "b'\\xff'.decode()",
    "Bad()",
)
CHANGES = (
    "c.forget = 3", "c.train = None", "c.train.epochs = 'x'", "c.x = c", "c[5] = 1", "c.parts = {'a': {}}",
    "del c.data", "c.seeds = [1]", "c.forget = placeholder(str)", "c.forget = required_placeholder(str)",
    "c.train.epochs = 10**30",
    "c.parts = ConfigDict({'a': {'train': {'epochs': 3}}, 'b': {}})", "c['a\\nb'] = 1", "c.methods = c.get_ref('base')",
)  # fmt: skip
HEADER = (
    "from ml_collections import ConfigDict\nfrom ml_collections.config_dict import placeholder, required_placeholder\n"
    "from ispf_jax.config import default_config\nclass Bad(Exception):\n    def __str__(self): raise ValueError\n"
)
FLAGS = ("--workdir={}", "--processes={}", "--process={}", "--coordinator={}", "--{}=1", "--no{}", "{}", "--v={}", "--")


def test_files_and_command_lines(program, tmp_path, monkeypatch):
    rng, found = random.Random(1), Counter()
    digits = f"{ROOT}/configs/digits_ispf.py"
    for i in range(CASES):
        file = tmp_path / f"c{i}.py"
        body = rng.choice(BODIES)
        for word, choices in (("value", VALUES), ("error", ERRORS), ("change", CHANGES)):
            body = body.replace(f"{{{word}}}", rng.choice(choices))
        file.write_text(HEADER + body)
        words = [f"--config={rng.choice((file, digits, digits + ':smoke', digits + ':x', tmp_path, '/dev/zero', ''))}"]
        for _ in range(rng.randrange(4)):
            if rng.random() < 0.7:
                key = rng.choice((*PATHS, "data", "parts", "parts.a.train.epochs", "x.y", ""))
                words.append(f"--{rng.choice(('', '', '', 'no'))}config.{key}={rng.choice(TEXTS)}")
            else:
                words.append(rng.choice(FLAGS).format(rng.choice(TEXTS)))
        argv = ["launch.py", *words]
        monkeypatch.setattr(sys, "argv", argv)
        values = program.flags.FLAGS
        for name in [name for name in values if name.startswith("config.")]:
            delattr(values, name)
        values.unparse_flags()

        def parsed(argv=argv):
            program.parse_flags(argv)
            return make_experiments(program._CONFIG.value)

        found[outcome(parsed)] += 1
    print(f"files and command lines: {dict(found)}")
    assert min(found["experiments"], found["refused"]) > 20, found
