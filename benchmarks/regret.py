"""What choosing a student without test images costs, from the metrics of finished work directories.

    python -m benchmarks.regret runs/digits_ispf [WORKDIR ...]

For every unlearning run that was looked at on test images: retained accuracy of the last epoch, of the epoch with the
highest agreement, and of the best epoch on test images; regret is the difference from the last of these. Only epochs
that were looked at can be chosen. The rank correlation is that of agreement and accuracy over epochs.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ispf_jax.runtime.telemetry import read_metrics

COLUMNS = "| run | epochs | last | by agreement | best on test | regret of last | regret of agreement | correlation |"


def regret(records: list[dict]) -> tuple[int, float, float, float, float] | None:
    """(epochs looked at, accuracy of the last, of the chosen and of the best one, correlation); None if none was."""
    seen = [(r["agreement"], r["test/acc_retain"]) for r in records if {"agreement", "test/acc_retain"} <= r.keys()]
    if len(seen) < 3:
        return None
    agreement, accuracy = np.array(seen, float).T
    chosen = accuracy[agreement.argmax()]
    return len(seen), accuracy[-1], chosen, accuracy.max(), spearmanr(agreement, accuracy).statistic


def main(workdirs):
    """Print the table."""
    print(f"{COLUMNS}\n|{' --- |' * COLUMNS.count(' | ')} --- |")
    for workdir in map(Path, workdirs):
        for path in sorted(workdir.glob("unlearn/**/metrics.jsonl")):
            if found := regret(read_metrics(path)):
                epochs, last, chosen, best, correlation = found
                cells = [path.parent.relative_to(workdir / "unlearn"), epochs]
                cells += [f"{value:.2f}" for value in (last, chosen, best, best - last, best - chosen, correlation)]
                print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main(sys.argv[1:])
