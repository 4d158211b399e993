"""The program: `ispf --config=digits_ispf.py [--workdir=DIR] [--config.key=value ...]`, the same as `python launch.py`.

    ispf --config=FILE       train, retrain, unlearn, audit, report, as the configuration says; FILE is looked up in the
                             current directory, then among the configurations that come with the package
    ispf inspect FILE        say what a checkpoint is, and the command that unlearns it
    ispf verify PATH         compare files with the checksums written next to them: a SHA256SUMS, a model card, or their
                             directory
    ispf --help              all flags and configuration keys
    ispf --version           the version

On several machines, the same command on each: with --coordinator=HOST:PORT --processes=N --process=I (or --distributed
under SLURM) they share every run; with --config.spread=ray a Ray cluster takes whole runs.
"""

import difflib
import importlib.metadata
import os
import sys
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ispf_jax.errors import UserError, short_repr
from ispf_jax.runtime import console, interruption, rendezvous

if any(word.lstrip("-").partition("=")[0] == "flagfile" for word in sys.argv):  # absl would read it already here
    print("error: --flagfile is not supported; write the options on the command line.", file=sys.stderr)
    sys.exit(2)

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of all results; default runs/<name of the configuration>.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if several processes run together.")
_PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes run together.", lower_bound=0)
_PROCESS = flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several processes that the cluster's environment knows.")
_WAIT = flags.DEFINE_float("wait", 300.0, "Seconds to wait for the other processes.", lower_bound=1.0, upper_bound=1e6)
_FLAGS = (_WORKDIR, _COORDINATOR, _PROCESSES, _PROCESS, _DISTRIBUTED, _WAIT)
_COMMANDS = ("inspect", "verify")


def main():
    """Entry point of the console script and of launch.py."""
    interruption.listen()
    console.take_over()
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        code = _main(sys.argv)
    except SystemExit as ended:  # a signal
        code = ended.code
    console.show_held()
    rendezvous.leave(code)
    sys.exit(code)


def _main(argv) -> int:
    """Do what the command line says; returns the exit code, and says on the console what prevented it."""
    try:
        if argv[1:2] and argv[1] in _COMMANDS:
            return {"inspect": _inspect, "verify": _verify}[argv[1]](argv[2:])
        if {"--help", "-h", "--helpfull", "--helpshort"} & set(argv[1:]):
            print(_help())
        elif "--version" in argv[1:]:
            print(f"ispf {importlib.metadata.version('ispf-jax')}")
        else:
            _run(parse_flags(_found(argv)))
        return 0
    except UserError as error:
        return _said(f"error: {error}", error.code)
    except interruption.Interrupted as stopped:
        return _said(f"{stopped}; the same command continues", interruption.EXIT_CODE)
    except KeyboardInterrupt:
        return _said("stopped; the same command continues", 130)
    except Exception as error:
        return _said(f"error: {console.unforeseen(error)}", 1)


def _said(text, code) -> int:
    print(text, file=sys.stderr)
    return code


def _run(argv):
    from ispf_jax import devices  # takes seconds to import: wrong flags are reported at once
    from ispf_jax.sweep import pipeline

    if len(argv) > 1:
        near = difflib.get_close_matches(argv[1], _COMMANDS, 1)
        hint = f"did you mean ispf {near[0]}?" if near else "options are written --config.key=value."
        raise UserError(f"{argv[1]!r} is not understood; {hint}")
    if _CONFIG.value is None:
        raise UserError("--config is missing; for a first run use --config=configs/digits_ispf.py.")
    together = _COORDINATOR.value or _DISTRIBUTED.value
    if _COORDINATOR.value and not 0 <= _PROCESS.value < _PROCESSES.value:
        last = _PROCESSES.value - 1
        raise UserError(f"--process={_PROCESS.value} must be from 0 to {last}: one less than --processes={last + 1}.")
    if together and _CONFIG.value.spread != "batch":
        raise UserError(f"--config.spread={_CONFIG.value.spread} needs neither --coordinator nor --distributed.")
    if together:
        devices.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _WAIT.value)
        interruption.listen()
    workdir = _WORKDIR.value or pipeline.default_workdir(config_flags.get_config_filename(flags.FLAGS["config"]))
    tables = pipeline.run(_CONFIG.value, str(Path(workdir).expanduser()))
    if tables and devices.first_process():
        print(tables)


def _inspect(argv) -> int:
    """`ispf inspect FILE ...`."""
    from ispf_jax.files import inspect

    if not argv:
        raise UserError("ispf inspect needs the name of a file: ispf inspect model.pt")
    for path in argv:
        print(inspect(path))
    return 0


def _verify(argv) -> int:
    """`ispf verify PATH ...`."""
    from ispf_jax.files.card import verify

    if not argv:
        raise UserError(
            "ispf verify needs a work directory, a SHA256SUMS or a model card: ispf verify runs/digits_ispf"
        )
    found = {path: verify(path) for path in argv}
    for checked in found.values():
        print(checked)
    wrong = [f"{name} (in {path})" for path, checked in found.items() for name in checked.changed + checked.missing]
    if wrong:
        raise UserError(f"not as recorded: {', '.join(wrong)}.")
    return 0


def parse_flags(argv):
    """absl's parser, with wrong flags, keys, values and configuration files as UserErrors."""
    from ispf_jax.config import ConfigFile
    from ispf_jax.settings import check_path, converted

    flags.FLAGS["config"].parser = ConfigFile()
    for word in argv:
        flag, _, text = word.partition("=")
        converted(str, flag if flag.isprintable() else short_repr(flag), text or flag)
    try:
        rest = flags.FLAGS(argv)
        check_path("--workdir", _WORKDIR.value or "")
        return rest
    except UserError:
        raise
    except Exception as error:
        raise UserError(explain(argv, error)) from error


def explain(argv, error) -> str:
    """One line on why the command line was refused: what the package knows about its keys, else what the parser
    said."""
    from ispf_jax.config import override_problem

    if isinstance(error.__context__, UserError):
        return str(error.__context__)
    words = [word if "=" in word else "=".join(argv[i : i + 2]) for i, word in enumerate(argv)]
    options = [word.lstrip("-").removeprefix("no").partition("=") for word in words if word.startswith("-")]
    for key, _, text in options:
        if key.startswith("config.") and (problem := override_problem(key.removeprefix("config."), text)):
            return problem
        if key.startswith("config.parts.") and isinstance(error, (KeyError, AttributeError)):
            return f"--{key} does not exist: in a part only what the part changes can be set."
    said = " ".join(str(error).split())[:500] or type(error).__name__
    return (
        said if isinstance(error, flags.Error) else f"the command line cannot be read ({type(error).__name__}: {said})."
    )


def _found(argv):
    """The command line with configurations that are not in the current directory looked up in the package."""
    from ispf_jax.config import presets

    found = list(argv)
    for i, word in enumerate(found):
        flag, _, value = word.partition("=")
        at = i + 1 if flag in ("--config", "-config") and not value and i + 1 < len(found) else i
        name = found[at] if at > i else value
        if flag not in ("--config", "-config") or not name:
            continue
        file, colon, variant = name.partition(":")
        packaged = presets() / Path(file).name
        if not os.path.exists(file) and Path(file).parent.name in ("", "configs") and os.path.exists(packaged):
            found[at] = ("" if at > i else f"{flag}=") + f"{packaged}{colon}{variant}"
    return found


def _help() -> str:
    from ispf_jax.config import keys

    lines = [__doc__, "Flags:"]
    lines += [f"  --{flag.name}: {flags.FLAGS[flag.name].help}" for flag in _FLAGS]
    lines += ["", "Configuration keys, with their defaults:"]
    lines += [f"  --config.{path}={field.default!s}\n      {text}" for path, _, field, text in keys()]
    return "\n".join(lines)
