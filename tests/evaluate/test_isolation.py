"""The unlearning path never sees the evaluation: neither in its sources nor when it is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import ispf_jax

ROOT = Path(ispf_jax.__path__[0])
PATHS = (
    "steps",
    "models",
    "ops",
    "methods.py",
    "objectives.py",
    "optim.py",
    "state.py",
    "parallel.py",
    "training.py",
    "checkpoint.py",
    "stages/unlearn.py",
)


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_source_of_the_unlearning_path_imports_the_evaluation():
    files = [file for path in PATHS for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).glob("*.py"))]
    assert len(files) > 8
    for file in files:
        found = [name for name in imported(file.read_text()) if name.startswith("ispf_jax.evaluate")]
        assert not found, f"{file.name} imports {found}"


def test_importing_the_unlearning_path_does_not_load_the_evaluation():
    program = (
        "import sys, ispf_jax.unlearning, ispf_jax.supervised, ispf_jax.methods\n"
        "print([m for m in sys.modules if m.startswith(('ispf_jax.evaluate', 'sklearn'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"
