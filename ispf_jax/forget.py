"""Sets of classes to forget: from what users write to class ids, and back to what readers are told."""

from collections.abc import Iterable, Sequence

from ispf_jax.errors import UserError


def forget_sets(spec: str, class_names: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The sets of class ids that `config.forget` asks for, each sorted.

    Sets are separated by ";", classes by ","; a class is an id or a name, as `id:5` or `name:05` where a word could be both; "each" is
    every class by itself.
    """
    classes = len(class_names)
    if spec.strip() == "each":
        return tuple((c,) for c in range(classes))
    sets = tuple(
        tuple(sorted(_class_id(word.strip(), spec, class_names) for word in s.split(","))) for s in spec.split(";")
    )
    for ids in sets:
        if len(set(ids)) < len(ids):
            raise UserError(f"config.forget={spec!r} names a class twice in one set; name every class once.")
        if len(ids) == classes:
            raise UserError(
                f"config.forget={spec!r} forgets all {classes} classes at once; leave at least one to retain."
            )
    if len(set(sets)) < len(sets):
        raise UserError(f"config.forget={spec!r} names the same set twice; name every set once.")
    return sets


def _class_id(word, spec, class_names):
    """The class that a word means: a name, an id, or `name:...` and `id:...` where one word could be both."""
    kind, _, rest = word.partition(":")
    number = rest if kind == "id" else word
    numbered = int(number) if number.isdecimal() and int(number) < len(class_names) else None
    called = next(
        (class_names.index(name) for name in (word, rest if kind == "name" else word) if name in class_names), None
    )
    if called is None and numbered is None:
        known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        raise UserError(
            f"config.forget={spec!r}: there is no class {word!r}; allowed are 0 to {len(class_names) - 1} or a name ({known})."
        )
    if word.isdecimal() and numbered is not None:
        # A folder "05" may be the fourth class: taking it, or "5", for class 5 would remove the wrong one.
        alike = [i for i, name in enumerate(class_names) if name.isdecimal() and int(name) == numbered]
        other = called if called is not None else alike[0] if alike else numbered
        if other != numbered:
            raise UserError(
                f"config.forget={spec!r}: {word!r} is class {numbered} by its number, which is called {class_names[numbered]!r}, and class "
                f"{other} by its name; write id:{numbered} or name:{class_names[other]}."
            )
    return numbered if called is None else called


def named(forget: Iterable[int], class_names: Sequence[str]) -> str:
    """A forget set for readers: "3" or, if classes have names of their own, "3 (cat)"."""
    names = ((c, class_names[c] if c < len(class_names) else str(c)) for c in forget)
    return ", ".join(str(c) if name == str(c) else f"{c} ({name})" for c, name in names)
