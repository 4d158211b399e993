"""Several processes find each other before JAX is asked to connect them, and notice when one of them is gone.

JAX waits in silence for a process that is missing, then aborts. Here every process says for whom it waits and until
when: process 0 listens at the coordinator's address, the others call it there, and once all have called it lets them go
on. The connections stay open: one that breaks off says that its process is gone.
"""

import logging
import os
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from ispf_jax.errors import UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.console import Quiet

_log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for one line of a process that has connected
_DONE, _STOPPED, _FAILED = "done", "stopped", "failed"


@dataclass
class _Crew:
    """The other processes: the connection to each (of process 0 to all, of others to process 0)."""

    process: int
    leaving: bool = False
    others: dict[int, socket.socket] = field(default_factory=dict)


_crew = _Crew(0)


def gather(coordinator: str, processes: int, process: int, wait: float):
    """Wait until all processes have called; then go on in all of them.

    Args:
      coordinator: "host:port" of process 0.
      processes, process: their number, and which this one is.
      wait: seconds.

    Raises:
      UserError: one did not come in time, two have the same number, or the address is wrong.
    """
    host, _, port = coordinator.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"the coordinator {coordinator!r} must be HOST:PORT, such as 10.0.0.1:1234.")
    until = time.monotonic() + wait
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + wait))
    whom = f"{processes - 1} other(s)" if process == 0 else "process 0"
    _log.info("process %d of %d: waiting for %s at %s, until %s", process, processes, whom, coordinator, clock)
    _crew.process = process
    if process == 0:
        _crew.others = _receive(coordinator, int(port), processes, until, wait)
    else:
        _crew.others = {0: _call(coordinator, host, int(port), (processes, process), until, wait)}
    threading.Thread(target=_watch, daemon=True).start()


def _receive(coordinator, port, processes, until, wait):
    """The connections of all others to process 0."""
    found = {}
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=processes)
    except OSError as error:
        raise UserError(f"cannot listen at {coordinator} ({error.strerror}); choose another port.") from error
    with listener:
        while len(found) < processes - 1:
            listener.settimeout(max(0.01, until - time.monotonic()))
            try:
                caller, _ = listener.accept()
            except TimeoutError:
                missing = [str(number) for number in range(1, processes) if number not in found]
                text = f"process {', '.join(missing)} of {processes} did not come to {coordinator} within {wait:g} s"
                _send(found.values(), f"no {text}")
                raise UserError(f"{text}; start all of them, or wait longer.") from None
            number, problem = _number(_read_line(caller), processes, found)
            if problem:
                _send([caller], f"no {problem}")
                caller.close()
            elif number:
                found[number] = caller
    _send(found.values(), "go")
    return found


def _number(line, processes, found):
    """(number of the calling process, what is wrong with it); (0, "") for a caller that is none of ours."""
    words = line.split()
    if len(words) != 3 or words[0] != "ispf" or not all(word.isdecimal() for word in words[1:]):
        return 0, ""
    said, number = map(int, words[1:])
    if said != processes:
        return 0, f"process 0 was started as one of {processes} processes, this one as one of {said}"
    if not 0 < number < processes or number in found:
        return 0, f"there is a process {number} already; give each its own number"
    return number, ""


def _call(coordinator, host, port, who, until, wait):
    """The connection to process 0, once all have called."""
    answer, problem = "", f"process 0 did not answer at {coordinator} within {wait:g} s; start it, check the address"
    while not answer:
        left = until - time.monotonic()
        if left <= 0:
            raise UserError(f"{problem}, or wait longer.")
        try:
            connection = socket.create_connection((host, port), timeout=min(left, _PATIENCE))
            _send([connection], f"ispf {who[0]} {who[1]}")
            connection.settimeout(max(0.01, until + 1 - time.monotonic()))  # process 0 says first who is missing
            problem = f"process 0 at {coordinator} was still waiting for others after {wait:g} s; start all of them"
            answer = _read_line(connection, None)
        except OSError:
            pass
        if not answer:
            time.sleep(0.2)
    if answer != "go":
        raise UserError(f"{answer.removeprefix('no ')}; start all of them, or wait longer.")
    return connection


def _send(connections, text):
    for connection in connections:
        with suppress(OSError):
            connection.sendall(f"{text}\n".encode())


def _read_line(connection, patience: float | None = _PATIENCE) -> str:
    """The next line of at most 300 characters; empty if the connection broke off."""
    if patience:
        connection.settimeout(patience)
    text = b""
    with suppress(OSError):
        while not text.endswith(b"\n") and len(text) < 300 and (more := connection.recv(1)):
            text += more
    return text.decode(errors="replace").strip() if text.endswith(b"\n") else ""


def _watch():
    """Wait for what the others say when they end, or for their connections to break off."""
    with selectors.DefaultSelector() as selector:
        for number, connection in _crew.others.items():
            connection.settimeout(None)
            selector.register(connection, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                said = _read_line(key.fileobj, None)
                selector.unregister(key.fileobj)
                if said != _DONE:
                    _lost(key.data, said)


def _lost(number, said):
    """End this process, which cannot go on without another; if that had its reasons, so may this one have."""
    if said == _FAILED or interruption.requested():
        time.sleep(interruption.GRACE)
    if _crew.leaving:
        return
    how = {_STOPPED: "was stopped", _FAILED: "ended with an error, which it has reported"}.get(said, "is gone")
    text = f"process {number} {how}; the same command in every process continues"
    print(text if said == _STOPPED else f"error: {text}.", file=Quiet(sys.stderr), flush=True)
    os._exit(interruption.EXIT_CODE if said == _STOPPED else 2)


def leave(code: int | None):
    """Say to the other processes how this one ends; if not well, end it here: JAX would wait for the others."""
    if not _crew.others:
        return
    _crew.leaving = bool(code)
    words = {0: _DONE, None: _DONE, interruption.EXIT_CODE: _STOPPED}
    _send(_crew.others.values(), words.get(code, _FAILED))
    if not code:
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    until = time.monotonic() + interruption.GRACE
    while _crew.process == 0 and time.monotonic() < until and not all(map(_is_closed, _crew.others.values())):
        time.sleep(0.05)  # JAX's service, which the others need until they have ended, ends with process 0
    os._exit(code)


def _is_closed(connection) -> bool:
    with suppress(BlockingIOError):
        connection.setblocking(False)
        try:
            return not connection.recv(1)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
    return False
