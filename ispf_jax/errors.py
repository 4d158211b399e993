"""The exceptions that are meant for the user's eyes."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something only the user can put right: an argument, a data file, a work directory.

    The message is one sentence (or two) that names the argument or file, the value found, what is allowed and what to
    do. The program prints it without a traceback and exits with code 2.
    """


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


@contextmanager
def keyed(prefix: str) -> Iterator[None]:
    """Within the block arguments in errors get the prefix of their configuration keys, such as "config.data."."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(prefix + error.argument, error.text) from error
