"""The layout of a work directory: where the files of every job are, and whose a file is.

::

    config.json                                   the configuration and a fingerprint of the data
    jobs.jsonl  log.txt  .lock                    what every job took; messages of other libraries; who is at work
    original/seed0/{checkpoints,metrics.jsonl,split.npz,rows/3/result.json}
    retrain/3/seed0/{...,result.json}
    unlearn/dfq/ispf/3/seed0/{...,samples.png,result.json}
    .../weights.pt, weights.safetensors           networks for other programs, in the same directories
    shadows/mia2/shadow0/                         shadow models of the audit's attacks
    audit/3/seed0/{original.json,...,audit.json}  what is left of the forgotten classes
    .../README.md, SHA256SUMS                     a card for a student's weights, and checksums, next to them
    report/ results.json results.csv ...          written by the report
    SHA256SUMS                                    of all that is handed on
    *.damaged                                     what did not fit its schema (`schema.py`) and was set aside
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ispf_jax.forget import ForgetSet, joined

CONFIG, JOURNAL, LOG, RESULTS = "config.json", "jobs.jsonl", "log.txt", "results.json"
RESULT, METRICS, CHECKPOINTS, SAMPLES, AUDIT = (
    "result.json",
    "metrics.jsonl",
    "checkpoints",
    "samples.png",
    "audit.json",
)

_PLACES = {
    "original": "original/seed{seed}",
    "retrain": "retrain/{forget}/seed{seed}",
    "unlearn": "unlearn/{base}/{method}/{forget}/seed{seed}",
    "shadow": "shadows/{method}/shadow{seed}",
    "audit": "audit/{forget}/seed{seed}",
}
_PARTS = {"seed": r"(0|[1-9][0-9]{0,9})", "forget": r"([0-9]{1,9}(?:-[0-9]{1,9})*)"}


@dataclass(frozen=True)
class Job:
    """One piece of work with results that stand for themselves.

    Attributes:
      kind: original, retrain, unlearn, shadow or audit.
      seed: the trial; of a shadow model its number.
      forget: the forget set; empty for original and shadow models, which all forget sets share.
      base, method: of unlearning; of a shadow model `method` is the attack it serves.
    """

    kind: str
    seed: int
    forget: ForgetSet = ()
    base: str = ""
    method: str = ""

    def __str__(self) -> str:
        if self.kind == "shadow":
            return f"shadow model {self.seed + 1} ({self.method})"
        words = {
            "retrain": "retrain without {}",
            "unlearn": f"unlearn {self.method} ({self.base}) forget {{}}",
            "audit": "audit {}",
        }
        return words.get(self.kind, self.kind).format(self.forgets) + f" seed {self.seed}"

    @property
    def forgets(self) -> str:
        """The forget set as rows have it, "1,7"."""
        return joined(self.forget, ",")

    @property
    def place(self) -> Path:
        """Its directory below the work directory."""
        return Path(_PLACES[self.kind].format(**vars(self) | {"forget": joined(self.forget)}))

    def result(self, forget: ForgetSet) -> Path:
        """Its rows, below the work directory; those of an original are kept for every forget set."""
        place = self.place / "rows" / joined(forget) if self.kind == "original" else self.place
        return place / RESULT

    def needs(self, other: "Job") -> bool:
        """Whether `other`, if it is to be done at all, has to be done first."""
        if self.kind == "audit":
            mine = other.kind in ("retrain", "unlearn") and (other.seed, other.forget) == (self.seed, self.forget)
            return mine or other.kind == "shadow" or other == Job("original", self.seed)
        return self.kind == "unlearn" and other == Job("original", self.seed)


def job_at(place: Path) -> Job | None:
    """The job whose directory below the work directory this is."""
    for kind, pattern in _PLACES.items():
        names = re.findall(r"{(\w+)}", pattern)
        expression = pattern.format(**{name: _PARTS.get(name, "([^/]+)") for name in names})
        if found := re.fullmatch(expression, place.as_posix()):
            said = dict(zip(names, found.groups()))
            forget = tuple(map(int, said.pop("forget").split("-"))) if "forget" in said else ()
            return Job(kind, int(said.pop("seed")), forget, **said)
    return None


def files(workdir: Path, kind: str, name: str) -> list[tuple[Job, Path]]:
    """(job, path) of the files of this name, which may hold "*", in the directories of all jobs of a kind."""
    depth = Path(name).parts
    found = Path(workdir).glob(f"{re.sub(r'{[a-z]+}', '*', _PLACES[kind])}/{name}")
    owned = ((job_at(path.parents[len(depth) - 1].relative_to(workdir)), path) for path in sorted(found))
    return [(job, path) for job, path in owned if job]
