"""The paper's methods as rows of one table: how the generator is trained, which samples are kept, which target is
distilled.

A method enters the compiled step as data (`Method.codes`), like the forget set and the thresholds, so one program
serves all methods, forget sets and thresholds. The choices that are not taken cost a few operations on [batch, classes]
arrays. The table may be added to: docs/extending.md.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ispf_jax.errors import ArgumentError
from ispf_jax.filters import KEEP, TARGETS, KeepRule, TargetRule


@dataclass(frozen=True)
class Method:
    """One way to unlearn.

    Attributes:
      inhibit: train the generator with inhibited synthesis (IS, Eq. 7).
      keep: which synthetic samples the student sees: a function, or a key of `filters.KEEP`. "all"; "block": drop those
        the teacher assigns to a forgotten class (BlockF); "prefilter": drop those with any forgotten class at or above
        the threshold (PreFilter, Eq. 3).
      target: what the student learns: a function, or a key of `filters.TARGETS`. "teacher": the teacher's prediction;
        "postfilter": with the forgotten logits redistributed (PF, Eq. 8-9); "project": with forgotten probabilities set
          to
        zero and the rest renormalised (PD, App. I).
    """

    inhibit: bool
    keep: str | KeepRule
    target: str | TargetRule

    def rules(self) -> "Rules":
        """The rules that a program for this method is compiled with: the tables as they are now, and the method's
        functions.

        Raises:
          ArgumentError: a name is in no table.
        """
        return Rules(
            _with(self._rule("keep", KEEP), tuple(KEEP.values())),
            _with(self._rule("target", TARGETS), tuple(TARGETS.values())),
        )

    def codes(self, rules: "Rules | None" = None) -> dict[str, jax.Array]:
        """The method as arrays, for a step that was compiled with `rules`."""
        rules = rules or self.rules()
        return {
            "inhibit": jnp.float32(self.inhibit),
            "keep": jnp.int32(rules.keep.index(self._rule("keep", KEEP))),
            "target": jnp.int32(rules.target.index(self._rule("target", TARGETS))),
        }

    def _rule(self, field, table):
        value = getattr(self, field)
        if callable(value):
            return value
        if value not in table:
            raise ArgumentError(field, f"={value!r} is unknown; use a function, or one of {', '.join(table)}.")
        return table[value]


@dataclass(frozen=True)
class Rules:
    """The rules a compiled step can choose from; what is compiled depends on them."""

    keep: tuple[KeepRule, ...] = tuple(KEEP.values())
    target: tuple[TargetRule, ...] = tuple(TARGETS.values())

    def kept_samples(self, codes, teacher_logits, forget_mask, threshold):
        """Mask [N] of 0/1 of the samples the student learns from, by the method's codes."""
        choices = [keep(teacher_logits, forget_mask, threshold) for keep in self.keep]
        return jnp.stack(choices)[codes["keep"]].astype(jnp.float32)

    def target_logits(self, codes, teacher_logits, forget_mask, post_threshold):
        """Logits [N, C] of the distribution the student learns, by the method's codes."""
        choices = [target(teacher_logits, forget_mask, post_threshold) for target in self.target]
        return jnp.stack(choices)[codes["target"]]


def _with(rule, rules):
    return rules if rule in rules else (*rules, rule)


METHODS = {
    "dfkd": Method(inhibit=False, keep="all", target="teacher"),
    "blockf": Method(inhibit=False, keep="block", target="teacher"),
    "gkt": Method(inhibit=False, keep="prefilter", target="teacher"),
    "is": Method(inhibit=True, keep="prefilter", target="teacher"),
    "pf": Method(inhibit=False, keep="all", target="postfilter"),
    "ispf": Method(inhibit=True, keep="all", target="postfilter"),
    "pd": Method(inhibit=False, keep="all", target="project"),
    "pd_is": Method(inhibit=True, keep="all", target="project"),
}


def method_named(method: "str | Method") -> Method:
    """The method of that name, or the method itself; raises ArgumentError if there is none."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise ArgumentError("method", f"={method!r} is unknown; use a Method, or one of {', '.join(METHODS)}.")
    return METHODS[method]
