"""The exceptions that are meant for the user's eyes."""


class UserError(Exception):
    """Something only the user can put right: a config value, a data file, a work directory.

    The message is one sentence (or two) that names the key or file, the value found, what is allowed and what to do.
    `launch.py` prints it without a traceback and exits with code 2.
    """


class StorageError(UserError):
    """Results cannot be written. No other job of a sweep would fare better, so it stops the whole run."""
