"""The table of metrics: complete, and found by the names that audits write."""

import pytest

from ispf_jax.evaluate.settings import FAMILIES
from ispf_jax.runtime.metrics import TIERS, metric


@pytest.mark.parametrize(
    "name, label, kind, asked",
    [
        ("mia1", "MIA-I", "paper", "mia1"),
        ("mia1/class3", "MIA-I, class3", "paper", "mia1"),
        ("accuracy/class12", "Accuracy, class 12", "classes", "accuracy"),
        ("probe/penultimate", "Linear probe", "residue", "features"),
        ("probe/stage2_block1/bn1", "Linear probe, stage2_block1/bn1", "layers", "features"),
        ("probe_shots5/penultimate", "Probe, 5 per class", "residue", "features"),
        ("relearn/shots20", "Relearn, 20 per class", "residue", "relearn"),
        ("kl_retrain", "KL to retrained", "closeness", "divergence"),
        ("mia2", "MIA-II", "paper", "mia2"),
        ("lira/tpr0.1", "LiRA TPR at 0.1 %", "attack", "lira"),
        ("duplicates/pixels", "Near-duplicates, pixels", "generator", ""),
        ("unheard/of", "unheard/of", "other", ""),
    ],
)
def test_metrics_are_found_by_name(name, label, kind, asked):
    found = metric(name)
    assert (found.label, found.kind, found.asked) == (label, kind, asked)
    assert not found.family or (found.tier in TIERS and found.asks and found.asked in ("", *FAMILIES))
