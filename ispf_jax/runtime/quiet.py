"""A console that may go away."""

from contextlib import suppress


class Quiet:
    """A text stream that may go away: reporting may fail, the work goes on."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self):
        self._try(self._stream.flush)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    @staticmethod
    def _try(function, *args):
        with suppress(OSError, ValueError):  # a closed pipe, a full device, a closed file
            function(*args)
