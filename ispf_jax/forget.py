"""Classes to forget: from what users write to class ids, and back to what readers see."""

import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Integral

from ispf_jax.errors import ArgumentError, short_repr

ForgetSet = tuple[int, ...]
_LARGE = 10**9  # more than any number of classes


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes, from a file or a user.

    Raises:
      ArgumentError: one is no text, empty, equal to another, or not to be shown on a terminal.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ArgumentError("class_names", f"={names!r} must be a sequence of names.")
    seen: dict[str, None] = {}
    for i, name in enumerate(names):
        text = isinstance(name, str) and name.strip() and name not in seen
        if not text or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
            rule = "must be text in UTF-8, not empty, without control characters and different from the other names."
            raise ArgumentError("class_names", f"[{i}]={name!r} {rule}")
        seen[str(name)] = None
    return tuple(seen)


def forget_set(forget: int | str | Iterable[int | str], class_names: Sequence[str]) -> ForgetSet:
    """The ids, sorted, of the classes to forget.

    Args:
      forget: an id or a name, several of them, or text with commas; `id:5` or `name:05` where a word could be both.

    Raises:
      ArgumentError: there is no such class, one is named twice, or none would be retained.
    """
    try:
        words = forget.split(",") if isinstance(forget, str) else list(forget)  # pyright: ignore
    except TypeError:
        words = [forget]
    ids = tuple(sorted(_class_id(word, forget, class_names) for word in words))
    if len(set(ids)) < len(ids):
        raise ArgumentError("forget", f"={short_repr(forget)} names a class twice in one set; name every class once.")
    if not ids:
        raise ArgumentError("forget", f"={short_repr(forget)} names no class.")
    if len(ids) == len(class_names):
        raise ArgumentError(
            "forget", f"={short_repr(forget)} forgets all {len(ids)} classes at once; leave at least one to retain."
        )
    return ids


def forget_sets(spec: str, class_names: Sequence[str]) -> tuple[ForgetSet, ...]:
    """The sets of classes that a text names: sets are separated by ";", classes by ","; "each" is every class by
    itself."""
    if not spec.strip():
        known = ", ".join(named([c], class_names) for c in range(min(len(class_names), 10)))
        more = ", ..." if len(class_names) > 10 else ""
        raise ArgumentError("forget", f"={spec!r} names no class; name the classes to forget, of {known}{more}.")
    if spec.strip() == "each":
        return tuple((c,) for c in range(len(class_names)))
    sets = tuple(forget_set(words, class_names) for words in spec.split(";"))
    if len(set(sets)) < len(sets):
        raise ArgumentError("forget", f"={short_repr(spec)} names the same set twice; name every set once.")
    return sets


def _class_id(word, spec, class_names):
    """The class that a word means: a name, an id, or `name:...` and `id:...` where one word could be both."""
    if isinstance(word, bool) or not isinstance(word, (Integral, str)):
        raise ArgumentError("forget", f"={short_repr(spec)}: {short_repr(word)} is neither a class id nor a name.")
    word = word.strip() if isinstance(word, str) else f"id:{min(max(int(word), -_LARGE), _LARGE)}"
    kind, _, rest = word.partition(":")
    number = rest if kind == "id" else word
    numbered = int(number) if number.isdecimal() and len(number) < 10 and int(number) < len(class_names) else None
    called = next(
        (class_names.index(name) for name in (word, rest if kind == "name" else word) if name in class_names), None
    )
    if called is None and numbered is None:
        known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        allowed = f"allowed are 0 to {len(class_names) - 1} or a name ({known})"
        raise ArgumentError(
            "forget", f"={short_repr(spec)}: there is no class {short_repr(word.removeprefix('id:'))}; {allowed}."
        )
    if word.isdecimal() and numbered is not None:
        # A folder "05" may be the fourth class: taking it, or "5", for class 5 would remove the wrong one.
        alike = [i for i, name in enumerate(class_names) if name.isdecimal() and int(name) == numbered]
        other = called if called is not None else alike[0] if alike else numbered
        if other != numbered:
            raise ArgumentError(
                "forget",
                f"={short_repr(spec)}: {word!r} is class {numbered} by its number, which is called "
                f"{class_names[numbered]!r}, and class {other} by its name; write id:{numbered} or "
                f"name:{class_names[other]}.",
            )
    return numbered if called is None else called


def named(forget: Iterable[int], class_names: Sequence[str]) -> str:
    """A forget set for readers: "3" or, if classes have names, "3 (cat)"."""
    names = ((c, class_names[c] if c < len(class_names) else str(c)) for c in forget)
    return ", ".join(str(c) if name == str(c) else f"{c} ({name})" for c, name in names)


def joined(forget: Iterable[int], separator: str = "-") -> str:
    """A forget set in file names, "1-7", or with "," in rows and texts."""
    return separator.join(map(str, forget))


def check_again(forget: Iterable[int], before: Iterable[int], class_names: Sequence[str]):
    """ArgumentError if a request leaves out classes that the teacher has forgotten `before`: it would learn them from
    nothing."""
    left_out = sorted(set(before) - set(forget))
    if left_out:
        what = f"{named(left_out, class_names)}, which the weights have forgotten already"
        raise ArgumentError("forget", f"={joined(forget, ',')} must also name {what}.")
