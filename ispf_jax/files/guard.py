"""What is asked of every file from outside before anything in it is believed."""

MAX_FILE = 2 << 30  # bytes; ResNet18 with the state of its optimiser has 0.14 GiB
MAX_INDEX = 16 << 20  # bytes of the part of a file that lists its tensors
MAX_TENSORS = 10_000


class Unreadable(Exception):
    """A file cannot be used; the text continues a sentence that begins with its name."""


def shown(names, limit: int = 3) -> str:
    """Names from a file for a message: a few of them, short, with control characters escaped."""
    names = list(names)
    few = [name if name.isprintable() else ascii(name) for name in (str(name)[:100] for name in names[:limit])]
    return ", ".join(few) + (f" and {len(names) - limit} more" if len(names) > limit else "")
