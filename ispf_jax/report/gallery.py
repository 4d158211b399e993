"""Which pictures a work directory allows, in the order in which the page shows them."""

from dataclasses import dataclass, replace

from ispf_jax.report.cells import in_part
from ispf_jax.report.figures import accuracy, audit, generator, training
from ispf_jax.report.figures.style import Picture
from ispf_jax.report.workdir import Contents


@dataclass(frozen=True)
class Gallery:
    """All pictures; `audits` has one list per audit. The loss terms are for `figures/` only."""

    accuracy: list[Picture]
    audits: list[tuple[str, list[Picture]]]
    training: list[Picture]
    classes: list[Picture]
    synthesis: list[Picture]
    losses: list[Picture]

    @property
    def all(self) -> list[Picture]:
        of_audits = [picture for _, pictures in self.audits for picture in pictures]
        return [*self.accuracy, *of_audits, *self.training, *self.classes, *self.synthesis, *self.losses]

    def beyond(self, shown: int) -> int:
        """How many pictures of audits, training and classes are not on a page that shows so many of each."""
        return sum(len(pictures) for _, pictures in self.audits[shown:]) + sum(
            max(0, len(p) - shown) for p in (self.training, self.classes)
        )


def gallery(contents: Contents) -> Gallery:
    """The pictures of everything there is."""
    kinds = (
        audit.relearning,
        audit.class_accuracies,
        audit.confusion,
        audit.closeness,
        audit.representations,
        audit.embeddings,
    )
    audits = [
        (
            f"Forgetting {contents.forget_name(a.forget)}, seed {a.seed}",
            [p for kind in kinds for p in kind(a, contents.bases)],
        )
        for a in contents.audits
    ]
    return Gallery(
        accuracy.accuracy_bars(contents.rows),
        audits,
        training.training_curves(contents.runs),
        generator.class_histograms(contents.runs),
        generator.synthesis_against_accuracy(contents),
        training.loss_curves(contents.runs),
    )


def combined_gallery(parts: dict[str, Contents]) -> Gallery:
    """The pictures that sum up a part, for every part of a sweep; all others are on the parts' own pages."""

    def named(part: str, pictures: list[Picture]) -> list[Picture]:
        return [replace(p, name=f"{p.name}_{part}", title=in_part(p.title, part)) for p in pictures]

    bars = [picture for part, c in parts.items() for picture in named(part, accuracy.accuracy_bars(c.rows))]
    synthesis = [
        picture for part, c in parts.items() for picture in named(part, generator.synthesis_against_accuracy(c))
    ]
    return Gallery(bars, [], [], [], synthesis, [])
