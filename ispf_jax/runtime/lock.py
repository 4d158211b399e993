"""One run per directory: two that write the same checkpoints would spoil both."""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime.atomic import ensure_writable
from ispf_jax.runtime.schema import set_aside


@contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
    """Hold `directory/.lock` while the block runs; the system releases it however the process ends.

    Raises:
      UserError: another process holds it.
    """
    path = ensure_writable(directory) / ".lock"
    try:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            set_aside(path, "no regular file")
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror}); make it writable or use another directory."
        ) from error
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(200).strip() or "another process"
            raise UserError(
                f"{directory} is in use by {holder}; wait for it, stop it, or use another directory."
            ) from None
        except OSError:  # a file system without locks: better unprotected than refused
            pass
        with suppress(OSError):  # who holds it is for others to read
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
