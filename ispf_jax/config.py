"""The door for configurations: from a ConfigDict of text and numbers to an `Experiment`; nothing else imports
ml_collections.
"""

import difflib
import inspect
import re
import runpy
import sys
import traceback
from dataclasses import fields, is_dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FieldReference, FrozenConfigDict

from ispf_jax import models
from ispf_jax.errors import ArgumentError, UserError, short_repr
from ispf_jax.experiment import Experiment, keys, keys_of
from ispf_jax.runtime.guard import regular_file
from ispf_jax.settings import check_path

WITH_AUDIT = "original,retrain,unlearn,audit,report"

_FILE_BYTES = 1 << 20
_PART = re.compile(r"[\w-]{1,100}")
_TAKEN = ("report",)  # directories of a sweep that are no part's
_OF_ALL = ("dry_run", "spread", "compilation_cache")


def default_config(variant: str = "") -> ConfigDict:
    """Every key at its default. `variant`: words after a colon in `--config=file.py:word,word`; see `vary`."""
    c = ConfigDict()
    for path, _, field, _ in keys():
        group, _, name = path.rpartition(".")
        if group and group not in c:
            c[group] = ConfigDict()
        place: Any = c[group] if group else c
        place[name] = field.default
    c.parts = ConfigDict()  # sub-experiments {name: {keys that differ}}, each in its own directory; see `sweep`
    return vary(c, variant)


def presets() -> Path:
    """The directory of the configurations that come with the package."""
    packaged = Path(__file__).with_name("configs")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def preset(name: str, variant: str = "") -> ConfigDict:
    """A configuration that comes with the package: preset("svhn_ispf", "resnet18")."""
    return runpy.run_path(str(presets() / f"{name}.py"))["get_config"](variant)


def sweep(parts: dict[str, ConfigDict], variant: str = "", **common) -> ConfigDict:
    """One configuration out of several: what all `parts` share can be set once, what differs is set per part.

    Keys in which a part differs from the first are changed on the command line as `--config.parts.<name>.<key>`, all
    others as `--config.<key>`.

    Args:
      variant: as of the parts; `smoke` leaves one class and one trial of the sweep.
      common: keys to set in all parts, such as `methods` or `forget`.
    """
    if "smoke" in variant.split(","):
        common |= {"forget": "3", "seeds": "0"}
    for config in parts.values():
        config.update(common)
    c = next(iter(parts.values())).copy_and_resolve_references()
    c.parts = ConfigDict({name: _difference(config.to_dict(), c.to_dict()) for name, config in parts.items()})
    return c


def _difference(config: dict, base: dict) -> dict:
    """The nested keys of `config` whose values differ from those in `base`."""
    return {k: _difference(v, base[k]) if isinstance(v, dict) else v for k, v in config.items() if v != base[k]}


def vary(c: ConfigDict, variant: str) -> ConfigDict:
    """Apply the words of a config argument: a network's name, or `smoke`.

    `smoke` runs the whole pipeline in under a minute on two cores: synthetic images of the configuration's size, one
    sixteenth of the width, few steps, the first of the forget sets.
    """
    for word in filter(None, variant.split(",")):
        if word in models.CLASSIFIERS:
            c.model.name = word
        elif word == "smoke":
            _shrink(c)
        else:
            raise UserError(f"unknown variant {word!r}; known are {', '.join(models.CLASSIFIERS)} and smoke")
    return c


def _shrink(c):
    c.forget = c.forget.split(";")[0]
    c.export_floor = 0.0
    c.data.update(name="synthetic", path="", cache_dir="off")
    c.data.update(max_train=max(400, 4 * c.data.classes), max_test=max(100, 2 * c.data.classes))
    if not c.data.image_size:
        c.data.update(image_size=32, channels=3)
    c.model.width = c.generator.width = 0.0625
    c.train.update(epochs=2, batch_size=64, decay_epochs="1")
    c.distill.update(epochs=2, loops=1, student_steps=2, warmup_epochs=1, batch_size=32)
    c.audit.update(shadows=1, relearn_steps=2, relearn_batch=32, shots="1", layers=1, barrier_points=3)
    c.audit.update(barrier_images=50, synthetic_images=64, embedding_images=50)


class ConfigFile(flags.ArgumentParser):
    """What `--config=FILE:VARIANT` means: the ConfigDict that `get_config(VARIANT)` of a Python file returns."""

    def parse(self, text: str) -> ConfigDict:
        """Run the file; whatever goes wrong in it is a UserError of one line."""
        file, colon, variant = text.partition(":")
        flag = f"--config={text if text.isprintable() else short_repr(text)}"
        try:
            check_path("--config", file)
            regular_file(file, _FILE_BYTES)
        except UserError as error:
            raise UserError(f"{flag} cannot be read: {error} Name a file such as configs/digits_ispf.py.") from error
        try:
            loader = SourceFileLoader("config_config", file)
            module = module_from_spec(spec_from_loader(loader.name, loader))  # pyright: ignore
            sys.modules[loader.name] = module
            loader.exec_module(module)
            if not hasattr(module, "get_config"):
                raise UserError("it has no function get_config.")
            config = module.get_config(*[variant] * bool(colon))
            if inspect.iscoroutine(config):
                config.close()  # otherwise Python warns of it in lines of its own
            if not isinstance(config, ConfigDict):
                raise UserError(f"get_config() returned {short_repr(config)}, but must return a ConfigDict.")
            _given(config)
            return (ConfigDict(config) if isinstance(config, FrozenConfigDict) else config).lock()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit
            raise UserError(f"{flag}: {_said(error, file)}") from error


def _said(error, file) -> str:
    """What an error says, in one line, with the line of the file that it came from."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = "an error that cannot be printed"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    text = text if text.isprintable() else ascii(text)
    words = [text] if isinstance(error, UserError) else [type(error).__name__, text]
    return ": ".join(filter(None, words)) + "".join(f" (line {line})" for line in lines[-1:])


def make_experiment(config: Any) -> Experiment:
    """Check a ConfigDict (or plain nested dict) and turn it into an `Experiment`; its `parts` do not count.

    Raises:
      ArgumentError: a key is unknown, missing or has a wrong value; the message names it as "config.<key>".
    """
    given, values = _given(config), {}
    for path, group, field, _ in keys():
        values.setdefault(group, {})[field.name] = _resolved(path, given[path])
    for group, cls in {field.name: field.type for field in fields(Experiment) if is_dataclass(field.type)}.items():
        with keys_of(group):
            values[""][group] = cls(**values[group])
    with keys_of(""):
        return Experiment(**values[""])


def make_experiments(config: Any) -> dict[str, Experiment]:
    """All experiments of a configuration by name: one named "", or one for each of its `parts`.

    A part holds only what it changes. Raises UserError naming the part and the key.
    """
    raw = _plain(config)
    parts = raw.pop("parts", None)
    parts = {} if parts is None else parts
    if not isinstance(parts, dict):
        raise ArgumentError("config.parts", f"={short_repr(parts)} must be {{name: {{keys that differ}}}}.")
    experiments = {} if parts else {"": make_experiment(raw)}
    for name, changes in parts.items():
        label = f"config.parts.{_name(name)}"
        if not isinstance(name, str) or not _PART.fullmatch(name) or name in _TAKEN:
            rule = f"use 1 to 100 letters, digits, '_' and '-', but not {', '.join(_TAKEN)}: it becomes a directory."
            raise ArgumentError(label, f" is no name of a part; {rule}")
        if not isinstance(changes, dict) or "parts" in changes:
            raise ArgumentError(label, f"={short_repr(changes)} must be {{keys that differ}}, without parts.")
        try:
            experiments[name] = made = make_experiment(_merged(raw, changes))
        except UserError as error:
            raise UserError(f"part {name!r}: {error}") from error
        for key in _OF_ALL:
            if getattr(made, key) != getattr(next(iter(experiments.values())), key):
                raise ArgumentError(f"{label}.{key}", f" is of the whole run; set config.{key}, for all parts alike.")
    return experiments


def override_problem(path: str, text: str) -> str:
    """What is wrong with `--config.<path>=<text>` by itself, in a sentence; "" if the key exists and the text has its
    type.
    """
    if path.startswith("parts."):  # the parser knows which parts there are
        path = path.split(".", 2)[2] if path.count(".") > 1 else ""
    known = {path: field.type for path, _, field, _ in keys()}
    inside = sorted(key.partition(".")[2] for key in known if key.startswith(f"{path}."))
    if inside:
        return f"config.{path} is a group of keys; set config.{path}.<key>, where <key> is one of {', '.join(inside)}."
    if path and path not in known:
        return f"config.{_name(path)}{_unknown(path, known)}"
    kind = known.get(path)
    if kind in (int, float):
        try:
            kind(text)
        except ValueError:
            return f"config.{path}={short_repr(text)} must be {'a whole number' if kind is int else 'a number'}."
    if kind is bool and text.lower() not in ("true", "false", "t", "f", "1", "0"):
        return f"config.{path}={short_repr(text)} must be True or False."
    return ""


def _plain(config) -> dict:
    """A configuration as a new nested dict."""
    try:
        return dict(config.to_dict(preserve_field_references=True) if isinstance(config, ConfigDict) else config)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        text = f"the configuration {short_repr(config)} cannot be read as keys with values ({said})."
        raise UserError(text) from error


def _resolved(path, value):
    """A value, where the configuration holds a reference to one."""
    try:
        return value.get() if isinstance(value, FieldReference) else value
    except Exception as error:  # such as that of a placeholder which nobody has filled
        raise ArgumentError(f"config.{path}", f" has no value ({type(error).__name__}); set it.") from error


def _given(config) -> dict[str, Any]:
    """{path: value} of a configuration that has all keys and no others; what the values are is not asked."""
    known = [path for path, *_ in keys()]
    groups = {path.partition(".")[0] for path in known if "." in path}
    flat = {}
    for name, value in _plain(config).items():
        if isinstance(value, dict) and name not in (*known, "parts"):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        elif name in groups:
            raise ArgumentError(f"config.{name}", f"={short_repr(value)} must be a group of keys, config.{name}.<key>.")
        else:
            flat[str(name)] = value
    flat.pop("parts", None)
    for path in (*flat, *known):
        if path not in known:
            raise ArgumentError(f"config.{_name(path)}", _unknown(path, known))
        if path not in flat:
            raise ArgumentError(f"config.{path}", " is missing; start from ispf_jax.config.default_config().")
    return flat


def _merged(config: dict, changes: dict) -> dict:
    """`config` with the nested `changes`."""
    both = {
        k: config[k] | v if isinstance(v, dict) and isinstance(config.get(k), dict) else v for k, v in changes.items()
    }
    return config | both


def _name(path) -> str:
    """A key as a message shows it."""
    return path if isinstance(path, str) and path.isprintable() and len(path) < 100 else short_repr(path)


def _unknown(path, known):
    group, _, name = path.rpartition(".")
    near = [p for p in known if p.rpartition(".")[2] == name] or difflib.get_close_matches(path[:100], known, 1, 0.8)
    inside = sorted(p for p in known if p.rpartition(".")[0] == group) or sorted(known)
    advice = f"did you mean config.{near[0]}?" if near else f"allowed are {', '.join(inside)}."
    return f" is no known key; {advice}"
