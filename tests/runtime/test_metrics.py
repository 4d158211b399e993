"""The table of metrics: complete, and found by the names that audits write."""

import pytest

from ispf_jax.evaluate.settings import FAMILIES
from ispf_jax.runtime.metrics import TIERS, metric

EPS = {"mia2": 2.0, "l2_original": 0.05, "kl_retrain": 0.02, "lira/auc": 0.02}


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


@pytest.mark.parametrize(
    "name, value, original, retrained, place",
    [
        *(("probe/bn1", v, 90.0, 20.0, p) for v, p in ((20.0, 0), (90.0, 1), (55.0, 0.5), (13.0, -0.1), (97.0, 1.1))),
        ("kl_retrain", 4.0, 1.0, 5.0, 0.25),
        *((name, 0.7, 1.1 * eps, 0.0, 0.7 / (1.1 * eps)) for name, eps in EPS.items()),
        *((name, 0.7, 0.9 * eps, 0.0, None) for name, eps in EPS.items()),
        ("accuracy/forget", 50.0, 90.0, 20.0, None),
        *(("probe/bn1", *(None if j == i else 50.0 * j for j in range(3)), None) for i in range(3)),
    ],
)
def test_places_run_from_retrained_to_original(name, value, original, retrained, place):
    """On rising and falling scales; ends within `eps` have no places between them."""
    found = metric(name).place(value, original, retrained)
    assert found is None if place is None else found == pytest.approx(place, abs=1e-12)
