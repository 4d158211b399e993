"""The program: `ispf --config=digits_ispf.py [--workdir=DIR] [--config.key=value ...]`, the same as `python launch.py`.

    ispf --config=FILE       train, retrain, unlearn, audit, report, as the configuration says; FILE is looked up in the
                             current directory, then among the configurations that come with the package
    ispf inspect FILE        say what a checkpoint is, and the command that unlearns it
    ispf --help              all flags and configuration keys
    ispf --version           the version

On several machines, the same command on each: with --coordinator=HOST:PORT --processes=N --process=I (or --distributed
under SLURM) they share every run; with --config.spread=ray a Ray cluster takes whole runs.
"""

import difflib
import importlib.metadata
import logging
import os
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ispf_jax.errors import UserError, shown, visible
from ispf_jax.runtime import interruption
from ispf_jax.runtime.quiet import Quiet

if any(word.lstrip("-").partition("=")[0] == "flagfile" for word in sys.argv):  # absl would read it already here
    print("error: --flagfile is not supported; write the options on the command line.", file=sys.stderr)
    sys.exit(2)

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of all results; default runs/<name of the configuration>.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if several processes run together.")
_PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes run together.", lower_bound=0)
_PROCESS = flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several processes that the cluster's environment knows.")
_FLAGS = (_WORKDIR, _COORDINATOR, _PROCESSES, _PROCESS, _DISTRIBUTED)
_COMMANDS = ("inspect",)


def main():
    """Entry point of the console script and of launch.py."""
    sys.stdout, sys.stderr = Quiet(sys.stdout), Quiet(sys.stderr)
    _log_to_stderr()
    try:
        if sys.argv[1:2] and sys.argv[1] in _COMMANDS:
            sys.exit(_inspect(sys.argv[2:]))
        if {"--help", "-h", "--helpfull", "--helpshort"} & set(sys.argv[1:]):
            sys.exit(print(_help()))
        if "--version" in sys.argv[1:]:
            sys.exit(print(f"ispf {importlib.metadata.version('ispf-jax')}"))
        app.run(_run, argv=_found(sys.argv), flags_parser=parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except interruption.Interrupted as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        sys.exit(interruption.EXIT_CODE)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)


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
        devices.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
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


def parse_flags(argv):
    """absl's parser, with wrong flags, keys, values and configuration files as UserErrors."""
    from ispf_jax.config import ConfigFile
    from ispf_jax.settings import check_path, converted

    flags.FLAGS["config"].parser = ConfigFile()
    for word in argv:
        flag, _, text = word.partition("=")
        converted(str, flag if flag.isprintable() else shown(flag), text or flag)
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


def _log_to_stderr():
    """Messages of the library on the console; absl's and others' only from warnings on."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logger = logging.getLogger("ispf_jax")
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [handler], False


class _Plain(logging.Formatter):
    def format(self, record):
        warning = record.levelno >= logging.WARNING
        text = visible(record.getMessage(), kept="" if warning else "\n")  # tables have several lines
        return f"{record.levelname.lower()}: {text}" if warning else text
