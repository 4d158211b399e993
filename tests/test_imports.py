"""What a module may load: unlearning knows no data, and heavy or optional packages wait until they are needed."""

import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ispf_jax

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "torch", "tensorflow_datasets", "tensorboardX", "array_record", "clu")


def loaded_by(*modules):
    """Names of all modules that a fresh process has loaded after importing `modules`."""
    code = f"import importlib, json, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += "print(json.dumps(sorted(sys.modules)))"
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def of(packages, loaded):
    return sorted(name for name in loaded if any(name == p or name.startswith(p + ".") for p in packages))


def test_unlearning_loads_neither_data_nor_evaluation():
    loaded = loaded_by("ispf_jax.unlearning", "ispf_jax.distill")
    assert "ispf_jax.models.convnet" in loaded
    assert (
        of(
            ("ispf_jax.data", "ispf_jax.evaluate", "ispf_jax.sweep.pipeline", "sklearn", "PIL", "matplotlib", *HEAVY),
            loaded,
        )
        == []
    )


def test_the_whole_package_loads_nothing_heavy():
    names = [m.name for m in pkgutil.walk_packages(ispf_jax.__path__, "ispf_jax.")]
    assert {"ispf_jax.sweep.pipeline", "ispf_jax.data.official", "ispf_jax.training"} <= set(names)
    assert of(HEAVY, loaded_by(*names)) == []


def test_importing_the_package_starts_nothing_and_every_name_is_there():
    assert of(("jax", "numpy", "flax", *HEAVY), loaded_by("ispf_jax")) == []
    for name in ispf_jax.__all__:
        assert getattr(ispf_jax, name) is not None and name in dir(ispf_jax)
    with pytest.raises(AttributeError, match="'nothing'"):
        ispf_jax.nothing  # noqa: B018


def test_the_wheel_holds_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "ispf_jax").rglob("__init__.py")}
    assert set(listed) == found | {"ispf_jax.configs"}
