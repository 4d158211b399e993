"""Stopping on SIGTERM, SIGINT or SIGHUP without losing work.

Once a run has epochs to lose, the running one is finished and saved before the process ends. At any other time (data
are read, programs are compiled, results are written) it ends at once, within seconds even inside of code that Python
cannot interrupt.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_CODE = 75
"""Exit code of a run that was stopped this way and can be continued by the same command (EX_TEMPFAIL of sysexits.h)."""

GRACE = 5.0
"""Seconds in which a process that is to end may clean up."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_requested: list[int] = []
_finishing: list[object] = []


class Interrupted(Exception):
    """Raised between two epochs, after a checkpoint, when a stop was requested."""


def listen():
    """Take SIGTERM, SIGINT and SIGHUP as requests to stop; a second SIGINT stops at once.

    A SIGHUP that is ignored, as under nohup, stays so. To be called again after a library has taken signals for itself.
    """
    new = signal.getsignal(signal.SIGTERM) is not _request
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _request)
    if new:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextmanager
def finishing() -> Iterator[None]:
    """Within the block a request to stop is left to the block, which asks `requested` and ends by itself."""
    mark = object()
    _finishing.append(mark)
    try:
        yield
    finally:
        _finishing.remove(mark)


def requested() -> bool:
    """Whether a stop was requested since `listen`."""
    return bool(_requested)


def request():
    """Ask all threads of this process to stop, as a signal would."""
    if not _requested:
        _requested.append(0)


def _request(number, frame):
    """The handler: in the main thread, between two steps of Python."""
    again = number == signal.SIGINT and number in _requested
    _requested.append(number)
    if again:
        raise KeyboardInterrupt
    name = signal.Signals(number).name
    if _finishing:
        _say(f"{name}: stopping after this epoch; the same command will continue")
    else:
        _say(f"{name}: stopped; the same command continues")
        raise SystemExit(EXIT_CODE)


def _watch(reader):
    """See to it that a signal ends the process also where the handler is not reached, or its exception is lost."""
    heard = []
    while True:
        heard += [number for number in os.read(reader, 16) if number in _SIGNALS]
        if heard:
            code = 130 if heard.count(signal.SIGINT) > 1 else EXIT_CODE
            threading.Thread(target=_end, args=(code,), daemon=True).start()


def _end(code):
    """End the process once there is nothing to finish and it has had its time to clean up."""
    while _finishing and code == EXIT_CODE:
        time.sleep(0.1)
    for _ in range(round(GRACE / 0.1)):
        time.sleep(0.1)
        if signal.getsignal(signal.SIGTERM) is not _request:  # whoever called `listen` has taken it back
            return
    if not _requested:
        _say("stopped; the same command continues")
    os._exit(code)


def _say(text):
    with suppress(OSError, ValueError, AttributeError):  # the console may have gone away
        os.write(sys.stderr.fileno(), f"{text}\n".encode())  # the stream itself may be in the middle of a write
