"""The evidence about the paper's claims and the base `remix`: runs that continue where they stopped, and their table.

    python -m benchmarks.evidence run signs_quarter --data=gtsrb10_32.tar.xz --work=runs
    python -m benchmarks.evidence table --work=runs --out=results/evidence.csv

`run` starts `launch.py` once for every command of an experiment, in order of worth, in the work directory of the
experiment's name. `table` reads what is finished there, writes one line per model and prints a table of averages. An
interval is Wilson's over the retained test images: it holds for one student, not for another seed.
"""

import argparse
import csv
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ispf_jax.data import DataRequest, load
from ispf_jax.evaluate.statistics import wilson
from ispf_jax.report import workdir
from ispf_jax.report.names import model_name
from ispf_jax.report.results import grouped, summarise
from ispf_jax.runtime.provenance import read_started
from ispf_jax.runtime.rows import BEST_TEST, forget_order

NARROW = (
    "--config.model.width=0.25 --config.generator.width=0.5 --config.model.dtype=bfloat16 "
    "--config.distill.batch_size=128 --config.distill.cosine_epochs=0"
)
SIGNS, CIFAR = "--config=configs/signs_ispf.py", "--config=configs/cifar10_jpeg75_ispf.py"
SHORT = (
    "--config.distill.loops=1 --config.distill.epochs=300 --config.distill.lr=0.1 --config.train.epochs=12 "
    "--config.train.decay_epochs=8,11 --config.train.batch_size=128"
)
MODELS = "--config.stages=original,retrain,unlearn"
AUDIT = (
    "--config.stages=original,retrain,unlearn,audit,report --config.methods=gkt,is,ispf --config.base=dfq,remix "
    "--config.audit.metrics=accuracy,weights,mia1,relearn,features,leak --config.audit.relearn_steps=93 "
    "--config.audit.relearn_batch=128"
)
EXPERIMENTS = {
    "digits": [
        f"--config=configs/digits_ispf.py {MODELS} --config.seeds=0,1,2,3,4",
        f"--config=configs/digits_ispf.py {MODELS} --config.seeds=0,1,2,3,4 --config.base=remix",
    ],
    "signs_quarter": [
        f"{SIGNS} {NARROW} {MODELS}",
        f"{SIGNS} {NARROW} {MODELS} --config.methods=gkt,ispf --config.base=remix",
        f"{SIGNS} {NARROW} {AUDIT} --config.forget=13",
    ],
    "cifar_quarter": [
        f"{CIFAR} {NARROW} {SHORT} {MODELS} --config.methods=ispf --config.base=dfq,remix",
        f"{CIFAR} {NARROW} {SHORT} {MODELS} --config.methods=dfkd,gkt,is,pf",
    ],
    "signs": [f"{SIGNS} {MODELS} --config.forget=13", f"{SIGNS} {MODELS}"],
    "cifar": [f"{CIFAR} {MODELS} --config.forget=3", f"{CIFAR} {MODELS}"],
}
"""By the name of the work directory: the commands' flags. The last two are at the paper's own schedules and want a
GPU."""

STYLE = Path(workdir.__file__).with_name("pictures.mplstyle")
MECHANISM = ("forget_samples", "filtered", "entropy")


def run(name: str, data: str, work: Path):
    """Every command of an experiment, one after the other.

    Raises:
      SystemExit: a command failed; its exit status.
    """
    for flags in EXPERIMENTS[name]:
        command = [sys.executable, "launch.py", *flags.split(), f"--workdir={work / name}"]
        status = subprocess.run(command + [f"--config.data.path={data}"] * bool(data), check=False).returncode
        if status:
            sys.exit(status)


def lines(directory: Path) -> list[dict]:
    """The table's lines of one work directory: what the paper compares, the last epoch of every student."""
    contents, config = workdir.read(directory), read_started(directory).config
    keys = {key: config[f"data.{key}"] for key in DataRequest.__dataclass_fields__ if f"data.{key}" in config}
    labels = load(DataRequest(**keys | {"class_names": tuple(keys.get("class_names", ()))})).test.labels
    logs = {(f"{log.method}/{log.base}", log.forget, log.seed): log for log in contents.runs}
    ain = {m[:5]: m.value for m in contents.measurements if m.metric == "ain"}
    found = []
    for summary in summarise(contents.rows):
        for run, row in summary.runs.items():
            if summary.selection == BEST_TEST:
                continue
            forgotten = forget_order(row.forget)
            n = np.count_nonzero(~np.isin(labels, forgotten))
            low, high = wilson(row.acc_retain / 100, n)
            found.append(
                {
                    "testbed": row.dataset if row.dataset != "image_folder" else directory.name.partition("_")[0],
                    "network": row.arch,
                    "width": config["model.width"],
                    "forget": contents.forget_name(row.forget),
                    "seed": row.seed,
                    "base": row.base or "",
                    "method": row.method,
                    "steps": row.student_steps,
                    "acc_forget": round(row.acc_forget, 2),
                    "acc_retain": round(row.acc_retain, 2),
                    "low": round(low, 2),
                    "high": round(high, 2),
                    "ain": ain.get((row.dataset, row.arch, *run, row.model), ""),
                    "seconds": round(row.train_seconds),
                    "command": f"python -m benchmarks.evidence run {directory.name}",
                    **mechanism(logs.get((row.model, *run))),
                }
            )
    return found


def mechanism(log) -> dict[str, float | str]:
    """Means over all student steps, per batch: images of forgotten classes, images that the filter took out, and the
    entropy of the retained classes (nats, summed over what the student learned from; Eq. 11)."""
    return dict(zip(MECHANISM, log.series(*MECHANISM).mean(axis=0).round(1) if log else [""] * 3))


def averages(rows: list[dict]) -> str:
    """A Markdown table: mean and least to greatest over classes and seeds, for every testbed, base and method."""
    by = ("testbed", "width", "base", "method")
    text = [
        f"| {' | '.join(by)} | runs | forgotten | retained (least to greatest) | images of forgotten classes | "
        "filtered | entropy | seconds |",
        "|" + " --- |" * 11,
    ]
    for key, group in grouped(rows, itemgetter(*by)).items():
        mean = {name: sum(r[name] for r in group) / len(group) for name in ("acc_forget", "acc_retain", "seconds")}
        kept = [r["acc_retain"] for r in group]
        spread = f"{mean['acc_retain']:.1f} ({min(kept):.1f} to {max(kept):.1f})"
        cells = [*map(str, key), str(len(group)), f"{mean['acc_forget']:.1f}", spread]
        cells += [f"{sum(r[name] for r in group) / len(group):.0f}" if key[2] else "" for name in MECHANISM]
        cells.append(f"{mean['seconds']:.0f}")
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def picture(rows: list[dict], path: Path):
    """Forgotten and retained accuracy of every model: a bar to the mean, a point for every class and seed."""
    groups = grouped(rows, itemgetter("base", "method"))
    bases = {base for base, _ in groups} - {""}
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(7.2, 0.32 * len(groups) + 1.1))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, field, title in zip(
            panels, ("acc_forget", "acc_retain"), ("forgotten class (0 is right)", "retained classes (more is better)")
        ):
            for place, ((base, _), group) in enumerate(groups.items()):
                values = [row[field] for row in group]
                colour = "0.65" if not base else "#0072B2" if base == "remix" else "#56B4E9"
                axes.barh(place, sum(values) / len(values), color=colour, height=0.7)
                axes.plot(values, [place] * len(values), "o", color="black", markersize=3)
            axes.set(xlim=(0, 100), xlabel="accuracy on test images, %", title=title)
        names = [model_name(f"{method}/{base}" if base else method, len(bases) > 1) for base, method in groups]
        panels[0].set_yticks(range(len(groups)), names)
        panels[0].invert_yaxis()
        figure.savefig(path, dpi=150, metadata={"Software": None})


def main(argv=None):
    """Parse the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("name", choices=EXPERIMENTS)
    one.add_argument("--data", default="", help="image folder or tar archive")
    table = commands.add_parser("table")
    table.add_argument("--out", type=Path, default=Path("results/evidence.csv"))
    table.add_argument("--pictures", type=Path, help="directory for a picture of every experiment")
    for command in (one, table):
        command.add_argument("--work", type=Path, default=Path("runs"), help="directory of the work directories")
    args = parser.parse_args(argv)
    if args.command == "run":
        return run(args.name, args.data, args.work)
    rows = [
        line for name in EXPERIMENTS if (args.work / name / "config.json").exists() for line in lines(args.work / name)
    ]
    if not rows:
        parser.error(f"there is no finished experiment in {args.work}; allowed names: {', '.join(EXPERIMENTS)}")
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name, group in grouped(rows, itemgetter("command")).items() if args.pictures else ():
        if any(row["base"] for row in group):  # students, not references alone
            picture(group, args.pictures / f"evidence_{name.split()[-1]}.png")
    print(averages(rows))
    return None


if __name__ == "__main__":
    main()
