"""A console that goes away does no harm, and what other libraries say goes to a bounded file."""

import os
import subprocess
import sys

import pytest

from ispf_jax.errors import UserError
from ispf_jax.runtime import console
from ispf_jax.runtime.lock import locked
from tests.test_launch import ROOT

PROGRAM = """
import logging, sys, threading, warnings
from pathlib import Path
from ispf_jax.runtime import console
console.take_over()
log = logging.getLogger("ispf_jax.test")
logging.getLogger("orbax").warning("held until there is a file")
if len(sys.argv) > 1:
    console.attach(Path(sys.argv[1]))
for i in range(3000):
    log.info("line %d", i)
    print("out", i)
logging.getLogger("orbax").warning("a warning")
logging.getLogger("orbax").warning("%d", "no number")
warnings.warn("another")
import os; os.write(2, b"raw\\n")
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
(Path(sys.argv[2]) if len(sys.argv) > 2 else Path(os.devnull)).write_text("done")
console.show_held()
sys.exit(7)
"""


def run(shell, *args):
    code = f"'{sys.executable}' -c \"$PROGRAM\" {' '.join(map(str, args))} {shell}"
    return subprocess.run(["bash", "-c", code], cwd=ROOT, env=os.environ | {"PROGRAM": PROGRAM}, capture_output=True)


@pytest.mark.parametrize(
    "shell",
    [
        "2>&1 | head -1; exit ${PIPESTATUS[0]}",
        "2>/dev/full >/dev/full",
        "2>&- >&-",
        "2>&- >&- <&-",
        "2>&1 | true; exit ${PIPESTATUS[0]}",
    ],
)
def test_the_work_goes_on_without_a_console(tmp_path, shell):
    done = run(shell, tmp_path, tmp_path / "result")
    assert done.returncode == 7 and (tmp_path / "result").read_text() == "done"
    assert "a warning" in (tmp_path / "log.txt").read_text()


def test_others_go_to_the_file_and_the_package_to_both(tmp_path):
    done = run("", tmp_path, tmp_path / "result")
    said, kept = done.stderr.decode(), (tmp_path / "log.txt").read_text()
    assert said.splitlines() == [f"line {i}" for i in range(3000)] and done.stdout.decode().endswith("out 2999\n")
    for text in ("held until there is a file", "a warning", "another", "raw\n", "ZeroDivisionError", "line 2999"):
        assert text in kept


def test_without_a_work_directory_warnings_are_shown():
    said = run("").stderr.decode()
    assert "held until there is a file" in said and "a warning" in said and "raw\n" in said


def test_the_file_is_appended_to_and_bounded(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    path.write_text("earlier\n")
    run("", tmp_path)
    assert path.read_text().startswith("earlier\n")
    path.write_text("x" * (console.LIMIT + 1))
    run("", tmp_path)
    assert console.LIMIT // 2 < path.stat().st_size < console.LIMIT


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("mine", path)])
@pytest.mark.parametrize("name", [".lock", "log.txt"])
def test_what_stands_in_the_place_of_a_file_is_set_aside(tmp_path, name, make):
    (tmp_path / "mine").write_text("mine")
    make(tmp_path / name)
    if name == ".lock":
        with locked(tmp_path), pytest.raises(UserError, match="in use"), locked(tmp_path):
            pass
    else:
        run("", tmp_path)
    assert (tmp_path / name).is_file() and os.path.lexists(tmp_path / f"{name}.damaged")
    assert (tmp_path / "mine").read_text() == "mine"
