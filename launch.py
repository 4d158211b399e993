"""python launch.py --config=configs/digits_ispf.py [--workdir=DIR] [--config.key=value ...]

On several machines, the same command on each: with --coordinator=HOST:PORT --processes=N --process=I (or --distributed under SLURM)
they share every run, with --config.spread=jobs and nothing more they share out the jobs.

Trains the original classifier, retrains it without the forgotten classes, unlearns them without data, and reports. Intentionally short:
the story is in ispf_jax/pipeline.py.
"""

import sys
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ispf_jax.errors import UserError
from ispf_jax.runtime import interruption

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of all results; default runs/<name of the configuration>.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, if several processes run together; give it to each."
)
_PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes run together.", lower_bound=0)
_PROCESS = flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes that the cluster's environment knows (SLURM, Open MPI, Kubernetes)."
)


def main(argv):
    from ispf_jax import parallel, pipeline  # takes seconds to import: wrong flags are told at once

    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not understood; options are written --config.key=value.")
    if _CONFIG.value is None:
        raise UserError("--config is missing; for a first run use --config=configs/digits_ispf.py.")
    if _COORDINATOR.value and not 0 <= _PROCESS.value < _PROCESSES.value:
        raise UserError(
            f"--process={_PROCESS.value} must be from 0 to {_PROCESSES.value - 1}: one less than --processes={_PROCESSES.value}."
        )
    if (_COORDINATOR.value or _DISTRIBUTED.value) and _CONFIG.value.spread == "jobs":
        raise UserError(
            "--config.spread=jobs needs neither --coordinator nor --distributed: start the same command as often as you like."
        )
    if _COORDINATOR.value or _DISTRIBUTED.value:
        parallel.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    interruption.listen()
    workdir = _WORKDIR.value or pipeline.default_workdir(config_flags.get_config_filename(flags.FLAGS["config"]))
    pipeline.run(_CONFIG.value, str(Path(workdir).expanduser()))


def parse_flags(argv):
    """absl's parser, with wrong flags, keys, values and configuration files as UserErrors."""
    try:
        rest = flags.FLAGS(argv)
        getattr(_CONFIG.value, "to_dict", None)  # a file that cannot be read is told only when its content is wanted
        return rest
    except Exception as error:
        raise UserError(explain(argv, error)) from error


def explain(argv, error) -> str:
    """One line on why the command line was refused: what the package knows about its keys, else what the parser said."""
    from ispf_jax.config import override_problem

    words = [word if "=" in word else "=".join(argv[i : i + 2]) for i, word in enumerate(argv)]
    options = [word.lstrip("-").removeprefix("no").partition("=") for word in words if word.startswith("-")]
    for key, _, text in options:
        if key.startswith("config.") and (problem := override_problem(key.removeprefix("config."), text)):
            return problem
    said = " ".join(
        (str(error).strip() or type(error).__name__).splitlines()[-1].split()
    )  # of a traceback, its last line
    if isinstance(error, flags.Error) and "Traceback" not in str(error):
        return said
    file = next((text for key, _, text in options if key == "config"), "")
    if isinstance(error, OSError):
        return f"--config={file} cannot be read ({said}); name a file such as configs/digits_ispf.py."
    if not isinstance(error, flags.Error):  # the file itself is wrong
        said = f"{type(error).__name__}: {said} (line {traceback.extract_tb(error.__traceback__)[-1].lineno})"
    return f"--config={file}: {said.removeprefix('ValueError: ')}"


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except interruption.Interrupted as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        sys.exit(interruption.EXIT_CODE)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
