"""The program as a process: exit code 2 and one line for what the user can put right. Texts are tested in-process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags as library

ROOT = Path(__file__).resolve().parents[1]
DIGITS = f"--config={ROOT}/configs/digits_ispf.py"


def launch(*args, cwd, **environment):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cwd / "cache"), **environment}
    return subprocess.run(
        [sys.executable, ROOT / "launch.py", *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def check_error(done, *parts):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert all(part in lines[0] for part in parts), lines[0]
    assert done.stdout == ""


def test_missing_config(tmp_path):
    check_error(launch(cwd=tmp_path), "--config is missing", "configs/digits_ispf.py")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path):
    done = launch(DIGITS, "--config.data.foo=1", f"--workdir={tmp_path}/work", cwd=tmp_path)
    check_error(done, "config.data.foo", "image_size")
    assert not (tmp_path / "work").exists()


def test_a_configuration_that_cannot_run_is_refused_by_the_pipeline(tmp_path):
    check_error(
        launch(DIGITS, "--config.forget=3,10", f"--workdir={tmp_path}/work", cwd=tmp_path),
        "config.forget='3,10'",
        "0 to 9",
    )


def test_batch_and_devices(tmp_path):
    done = launch(DIGITS, cwd=tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=3")
    check_error(done, "config.train.batch_size=128", "3 devices", "multiple of 3")


def test_a_file_in_the_place_of_the_work_directory(tmp_path):
    (tmp_path / "file").write_text("mine")
    check_error(launch(DIGITS, f"--workdir={tmp_path}/file", cwd=tmp_path), f"{tmp_path}/file", "work directory")
    assert (tmp_path / "file").read_text() == "mine"


def test_from_anywhere_with_the_default_work_directory(tmp_path):
    """A run of the program as users start it, stopped before there is anything to train."""
    done = launch(DIGITS + ":smoke", "--config.stages=report", "--config.devices=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "finished in" in done.stderr
    assert (
        json.loads((tmp_path / "runs" / "digits_ispf_smoke" / "config.json").read_text())["config"]["model.width"]
        == 0.0625
    )


# The command line's texts, in one process for all of them: absl's flags are global, so every case gets a fresh module.


COMMAND_LINES = {  # upper-case words stand for files
    "--config=nothere.py": ["--config=nothere.py cannot be read", "No such file", "configs/digits_ispf.py"],
    "--config=nothere.py --config.forget=1": ["--config=nothere.py cannot be read"],
    "--config=": ["--config= cannot be read"],
    "--config": ["Missing value for flag --config"],
    "--config=CONFIGS": ["cannot be read", "directory"],
    "--config=BROKEN": ["broken.py", "NameError", "'nothing'", "line 2"],
    "--config=SYNTAX": ["syntax.py", "SyntaxError"],
    "--confg=DIGITS": ["'confg'", "Did you mean: config"],
    "--config=DIGITS --workdri=x": ["'workdri'", "Did you mean: workdir"],
    "--config.forget=3": ["config.forget"],
    "--config.forget=3 --config=DIGITS": ["config.forget", "config"],
    "--config=DIGITS:bogus": ["digits_ispf.py:bogus", "'bogus'", "vit-small and smoke"],
    "--config=DIGITS:smoke,bogus": ["'bogus'", "vit-small and smoke"],
    "--config=DIGITS --config.foo=1": ["config.foo is no known key", "methods"],
    "--config=DIGITS --config.data.image_siz=1": ["did you mean config.data.image_size?"],
    "--config=DIGITS --noconfig.data.foo": ["config.data.foo is no known key", "image_size"],
    "--config=DIGITS --config.train.lr.foo=1": ["config.train.lr.foo is no known key"],
    "--config=DIGITS --config.train=1": ["config.train is a group", "epochs"],
    "--config=DIGITS --config.train.epochs=abc": ["config.train.epochs='abc'", "whole number"],
    "--config=DIGITS --config.train.epochs abc": ["config.train.epochs='abc'", "whole number"],
    "--config=DIGITS --config.train.epochs=1.5": ["config.train.epochs='1.5'", "whole number"],
    "--config=DIGITS --config.train.lr=fast": ["config.train.lr='fast'", "a number"],
    "--config=DIGITS --config.data.download=maybe": ["config.data.download='maybe'", "True or False"],
}


@pytest.fixture
def program(monkeypatch):
    """The program as a module with separate flags."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for name in ("DEFINE_string", "DEFINE_integer", "DEFINE_bool", "DEFINE_float"):
        define = getattr(flags, name)
        monkeypatch.setattr(
            flags, name, lambda *args, _define=define, **named: _define(*args, **named, flag_values=values)
        )
    define_config = library.DEFINE_config_file
    monkeypatch.setattr(
        library, "DEFINE_config_file", lambda *args, **named: define_config(*args, **named, flag_values=values)
    )
    monkeypatch.setattr(library.config_flags, "FLAGS", values)
    spec = importlib.util.spec_from_file_location("cli_under_test", ROOT / "ispf_jax" / "cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line, parts", list(COMMAND_LINES.items()))
def test_a_wrong_command_line_is_one_sentence(program, line, parts, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def get_config():\n    return nothing\n")
    (tmp_path / "syntax.py").write_text("def get_config(:\n")
    files = {"DIGITS": f"{ROOT}/configs/digits_ispf.py", "CONFIGS": f"{ROOT}/configs"}
    for word, file in (files | {"BROKEN": f"{tmp_path}/broken.py", "SYNTAX": f"{tmp_path}/syntax.py"}).items():
        line = line.replace(word, file)
    argv = ["launch.py", *line.split()]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(program.UserError) as caught:
        program.parse_flags(argv)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    assert all(part in message for part in parts), message


def test_a_right_command_line_is_parsed(program, monkeypatch):
    argv = [
        "launch.py",
        DIGITS + ":smoke",
        "--config.train.lr=1",
        "--config.forget=0;1",
        "--noconfig.tensorboard",
        "--workdir=x",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    assert program.parse_flags(argv) == ["launch.py"]
    config = program._CONFIG.value
    assert (config.train.lr, config.forget, config.tensorboard, config.data.name) == (1.0, "0;1", False, "synthetic")


def test_home_is_expanded_in_the_work_directory(program, monkeypatch, tmp_path):
    argv = ["launch.py", DIGITS, "--workdir=~/work"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", argv)
    started = []
    monkeypatch.setattr("ispf_jax.sweep.pipeline.run", lambda config, workdir: started.append(workdir) or "")
    monkeypatch.setattr(program.interruption, "listen", lambda: None)
    program._run(program.parse_flags(argv))
    assert started == [f"{tmp_path}/work"]


def test_words_that_are_no_options(program, monkeypatch):
    argv = ["launch.py", DIGITS, "forget=3"]
    monkeypatch.setattr(sys, "argv", argv)
    rest = program.parse_flags(argv)
    with pytest.raises(program.UserError, match="'forget=3' is not understood"):
        program._run(rest)


def test_help_lists_every_key_and_version_the_version(tmp_path):
    done = launch("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "--config.distill.weight_bn=1.0\n      weight of batch-norm matching" in done.stdout
    assert "--workdir: Directory of all results" in done.stdout and "ispf inspect FILE" in done.stdout
    done = launch("--version", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("ispf ")


def test_configurations_come_with_the_package_and_the_current_directory_wins(tmp_path):
    """A name that is no file here is looked up among the packaged configurations."""
    done = launch("--config=digits_ispf.py:smoke", "--config.forget=77", cwd=tmp_path)
    check_error(done, "config.forget='77'")
    (tmp_path / "digits_ispf.py").write_text("def get_config():\n    return mine\n")
    check_error(launch("--config=digits_ispf.py", cwd=tmp_path), "digits_ispf.py", "NameError", "'mine'")


def test_inspect(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    check_error(launch("inspect", "empty.pt", cwd=tmp_path), "empty.pt")
    check_error(launch("inspect", cwd=tmp_path), "ispf inspect needs the name of a file")
