"""python launch.py --config=configs/digits_ispf.py [--workdir=DIR] [--config.key=value ...]

Trains the original classifier, retrains it without the forgotten classes, unlearns them without data, and reports. Intentionally short:
the story is in ispf_jax/pipeline.py.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from ispf_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of all results; default runs/<name of the configuration>.")


def main(argv):
    from ispf_jax import pipeline  # takes seconds to import: wrong flags are told at once

    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not understood; options are written --config.key=value.")
    if _CONFIG.value is None:
        raise UserError("--config is missing; for a first run use --config=configs/digits_ispf.py.")
    pipeline.run(_CONFIG.value, _WORKDIR.value or pipeline.default_workdir(config_flags.get_config_filename(flags.FLAGS["config"])))


def parse_flags(argv):
    """absl's parser, with wrong flags and configurations as UserErrors."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        raise UserError(" ".join(str(error.args[0] if error.args else error).split())) from error


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
