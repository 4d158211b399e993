"""The exceptions that are meant for the user's eyes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_LONGEST = 2000


def visible(text: object, kept: str = "") -> str:
    """`text` with everything that a terminal would obey instead of showing it (and is not `kept`) as an escape."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in str(text))


def few(names: Iterable, limit: int = 3) -> str:
    """A few names from a file, each of them short, for a message."""
    names = list(names)
    first = ", ".join(str(name)[:100] for name in names[:limit])
    return first + (f" and {len(names) - limit} more" if len(names) > limit else "")


class UserError(ValueError):
    """Something only the user can put right: an argument, a data file, a work directory.

    The message is one sentence (or two) that names the argument or file, the value found, what is allowed and what to
    do; as a string it is one line. The program prints it without a traceback and exits with `code`.
    """

    code = 2

    def __str__(self) -> str:
        text = visible(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


class ArgumentError(UserError):
    """A wrong value of an argument; the program shows the name of the configuration key in place of the argument's.

    Args:
      argument: the argument's name.
      text: the rest of the sentence, which follows the name at once: "=0 must be greater than 0."
    """

    def __init__(self, argument: str, text: str):
        super().__init__(argument + text)
        self.argument, self.text = argument, text

    def __reduce__(self):
        return type(self), (self.argument, self.text)


class StorageError(UserError):
    """Results cannot be written. No other job of a sweep would fare better, so it stops the whole run."""


class RejectedError(UserError):
    """Everything is done, but students were not exported because they are too far from the original."""

    code = 3


@contextmanager
def keyed(prefix: str) -> Iterator[None]:
    """Within the block arguments in errors get the prefix of their configuration keys, such as "config.data."."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(prefix + error.argument, error.text) from error


def short_repr(value: Any, most: int = 80) -> str:
    """`repr` of a value for a message: one line, short, and never an error, whatever the object does."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number of more than 4,300 digits, for one
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."
