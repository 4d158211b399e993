"""What is asked of every file from outside before anything in it is believed."""

import os
import stat
from pathlib import Path

MAX_FILE = 2 << 30  # bytes; ResNet18 with the state of its optimiser has 0.14 GiB
MAX_INDEX = 16 << 20  # bytes of the part of a file that lists its tensors
MAX_TENSORS = 10_000


class Unreadable(Exception):
    """A file cannot be used; the text continues a sentence that begins with its name."""


def read_bounded(path: Path, limit: int = MAX_FILE) -> bytes:
    """The content of a regular file of at most `limit` bytes; a pipe or a device is refused and never waited for.

    Raises:
      Unreadable: there is no such file, it is of another kind or too large, or the system does not let us read it.
    """
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("is not a regular file; name a file of weights.")
            content = file.read(limit + 1) if status.st_size <= limit else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"cannot be read ({reason}); name a file of weights, .pt or .safetensors.") from error
    if content is None or len(content) > limit:
        raise Unreadable(f"is larger than {limit / 2**30:g} GiB, the most that is read; save the state_dict alone.")
    return content


def shown(names, limit: int = 3) -> str:
    """Names from a file for a message: a few of them, short, with control characters escaped."""
    names = list(names)
    few = [name if name.isprintable() else ascii(name) for name in (str(name)[:100] for name in names[:limit])]
    return ", ".join(few) + (f" and {len(names) - limit} more" if len(names) > limit else "")
