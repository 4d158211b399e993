"""The console of the program, which may go away, and the log file in the work directory for what others have to say."""

import logging
import os
import shlex
import stat
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from ispf_jax.errors import visible
from ispf_jax.runtime.layout import LOG
from ispf_jax.runtime.schema import set_aside

LIMIT = 4 << 20
"""Bytes of the log file from which on only its last half is kept."""

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class Quiet:
    """A text stream that may go away, or not be there at all: reporting may fail, the work goes on."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self):
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def _try(self, name, *args):
        with suppress(OSError, ValueError, AttributeError):  # a closed pipe, a full device, a closed file, no stream
            return getattr(self._stream, name)(*args)


def line(record: logging.LogRecord) -> str:
    """A message of the package as the console shows it."""
    warning = record.levelno >= logging.WARNING
    text = visible(record.getMessage(), kept="" if warning else "\n")  # tables have several lines
    return f"{record.levelname.lower()}: {text}" if warning else text


class _Messages(logging.Handler):
    """The package's messages on the console, and in the log file."""

    def emit(self, record):
        with suppress(Exception):
            print(line(record), file=sys.stderr, flush=True)
            others.emit(record)


class _Others(logging.Handler):
    """Messages of other libraries: held until there is a log file, or shown at the end where there is none."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.held: list[str] = []
        self.taken, self.path = False, None

    def emit(self, record):
        with suppress(Exception):  # a disk that is full; a message that does not fit its arguments
            text = _FORMAT.format(record) + "\n"
            if self.path:
                _shorten(self.path)
                os.write(2, text.encode(errors="backslashreplace"))
            elif not record.name.startswith("ispf_jax"):
                self.held = [*self.held[-999:], text]


others = _Others()


def take_over():
    """Make this process's console safe, and send warnings and tracebacks of other libraries past it."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # what is opened next must not become the console
        pass
    os.close(spare)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = open(os.dup(2), "w", encoding=encoding, errors="backslashreplace", buffering=1)
    sys.stdout, sys.stderr, others.taken = Quiet(sys.stdout), Quiet(console), True
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logging.getLogger().handlers = [others]
    ours = logging.getLogger("ispf_jax")
    ours.handlers, ours.propagate = [_Messages()], False
    ours.setLevel(logging.INFO)
    log = logging.getLogger("thread")
    threading.excepthook = lambda args: log.error("", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
    sys.unraisablehook = lambda args: log.error(
        "%s", args.err_msg, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )


def attach(workdir: Path):
    """Send what goes to the process's error output, from whatever library, to the log file of a work directory.

    Only in the program, which has called `take_over`; without a log file everything stays as it is.
    """
    if not others.taken or others.path:
        return
    path = Path(workdir) / LOG
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            set_aside(path, "no regular file")
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        others.path = path
        others.emit(logging.makeLogRecord({"msg": shlex.join(sys.argv), "name": "ispf_jax", "levelname": "START"}))
        for text in others.held:
            os.write(2, text.encode(errors="backslashreplace"))


def unforeseen(error: BaseException) -> str:
    """One line on an error that is not the user's; its traceback goes to the log file, or into the line's tail."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no message'}"
    text = "".join(traceback.format_exception(error))
    if not others.path:
        return f"{said}\n{text}"
    with suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
    return f"{said} (the traceback is in {others.path})"


def show_held():
    """Show what was held back, where no work directory was opened to keep it."""
    if not others.path:
        for text in others.held:
            print(text, end="", file=sys.stderr)
        others.held = []


def _shorten(path):
    """Keep the last half of a log file that has grown beyond its limit."""
    size = os.fstat(2).st_size
    if size > LIMIT:
        with open(path, "rb") as file:
            file.seek(size - LIMIT // 2)
            rest = file.read(LIMIT // 2)
        os.ftruncate(2, 0)
        os.write(2, b"... (the beginning was cut)\n" + rest)
