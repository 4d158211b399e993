"""Stopping on SIGTERM or SIGINT without losing work: the running epoch is finished and saved, then the run ends."""

import signal
import sys

EXIT_CODE = 75
"""Exit code of a run that was stopped this way and can be continued by the same command (EX_TEMPFAIL of sysexits.h)."""

_requested: list[int] = []


class Interrupted(Exception):
    """Raised between two epochs, after a checkpoint, when a stop was requested."""


def listen():
    """Take SIGTERM and SIGINT as requests to stop; a second SIGINT stops at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request)


def requested() -> bool:
    """Whether a stop was requested since `listen`."""
    return bool(_requested)


def request():
    """Ask all threads of this process to stop, as a signal would."""
    if not _requested:
        _requested.append(0)


def _request(number, frame):
    if number == signal.SIGINT and _requested:
        raise KeyboardInterrupt
    _requested.append(number)
    print(
        f"{signal.Signals(number).name}: stopping after this epoch; the same command will continue",
        file=sys.stderr,
        flush=True,
    )
