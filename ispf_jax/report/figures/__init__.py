"""The pictures of the report. Matplotlib, which takes a second to import, is imported by the files here and nowhere else."""

from dataclasses import dataclass, field, replace

from ispf_jax.report.figures import audits, runs
from ispf_jax.report.figures.style import Picture
from ispf_jax.report.tables import in_part
from ispf_jax.report.workdir import Contents


@dataclass(frozen=True)
class Gallery:
    """All pictures in the order of the page; `audits` has (heading, pictures) of every audit, `losses` are not on the page."""

    accuracy: list[Picture] = field(default_factory=list)
    audits: list[tuple[str, list[Picture]]] = field(default_factory=list)
    training: list[Picture] = field(default_factory=list)
    classes: list[Picture] = field(default_factory=list)
    synthesis: list[Picture] = field(default_factory=list)
    losses: list[Picture] = field(default_factory=list)

    @property
    def all(self) -> list[Picture]:
        of_audits = [picture for _, pictures in self.audits for picture in pictures]
        return [*self.accuracy, *of_audits, *self.training, *self.classes, *self.synthesis, *self.losses]

    def first(self, most: int) -> "Gallery":
        """What a page shows: pictures of so many audits and runs, and no losses."""
        cut = {name: getattr(self, name)[:most] for name in ("audits", "training", "classes")}
        return replace(self, losses=[], **cut)


def gallery(contents: Contents) -> Gallery:
    """The pictures of everything there is."""
    return Gallery(
        runs.accuracy_bars(contents.rows),
        [
            (f"Forgetting {contents.forget_name(a.forget)}, seed {a.seed}", audits.pictures(a, contents.bases))
            for a in contents.audits
        ],
        runs.training_curves(contents.runs),
        runs.class_histograms(contents.runs),
        runs.synthesis_against_accuracy(contents),
        runs.loss_curves(contents.runs),
    )


def combined_gallery(parts: dict[str, Contents]) -> Gallery:
    """The pictures that sum up a part, for every part of a sweep; all others are on the parts' own pages."""

    def of_part(part: str, pictures: list[Picture]) -> list[Picture]:
        return [replace(p, name=f"{p.name}_{part}", title=in_part(p.title, part)) for p in pictures]

    return Gallery(
        accuracy=[p for part, c in parts.items() for p in of_part(part, runs.accuracy_bars(c.rows))],
        synthesis=[p for part, c in parts.items() for p in of_part(part, runs.synthesis_against_accuracy(c))],
    )
