"""One run per work directory: two that write the same checkpoints would spoil both. Runs that share out jobs may
share it."""

import fcntl
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime.atomic import ensure_writable


@contextmanager
def locked(workdir: str | os.PathLike, shared: bool = False):
    """Hold `workdir/.lock` while the block runs; the system releases it however the process ends.

    Args:
      shared: allow others that hold it shared too.

    Raises:
      UserError: another process holds it.
    """
    path = Path(ensure_writable(workdir)) / ".lock"
    try:
        file = open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror}); make it writable or use another --workdir."
        ) from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by {file.read().strip() or 'another process'}; wait for it, stop it, or use another --workdir. "
                "Several processes may share out the jobs of a sweep if all are started with --config.spread=jobs."
            ) from None
        except OSError:  # a file system without locks: better unprotected than refused
            pass
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
