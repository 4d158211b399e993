"""The guards: a sentence that names what is wrong."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs


@pytest.mark.parametrize(
    "check, sentence",
    [
        (lambda: inputs.finite("losses", [1.0, np.nan, np.inf]), "2 of 3 values of losses are NaN or infinite"),
        (lambda: inputs.finite("losses", []), "There are no losses"),
        (lambda: inputs.matrix("features", [1.0]), "features have shape"),
        (lambda: inputs.logits("logits", [[1.0], [2.0]]), "1 class"),
        (lambda: inputs.logits("logits", [[1.0, -np.inf]]), "use a finite number"),
        (lambda: inputs.labels("labels", [0, 3], 3), "must be in 0..2"),
        (lambda: inputs.labels("labels", [-1, 3]), "must be 0 or more"),
        (lambda: inputs.labels("labels", [0.5]), "integers"),
        (lambda: inputs.labels("labels", []), "non-empty"),
        (lambda: inputs.same_length(test_images=[1, 2], labels=[1]), "test images 2, labels 1"),
        (lambda: inputs.forget_mask([0, 0]), "0 of 2 classes"),
        (lambda: inputs.forget_mask([1, 1]), "2 of 2 classes"),
        (
            lambda: inputs.forgotten_rows("test images", [0, 2], [0, 1, 0]),
            "None of the 2 test images belongs to a forgotten class",
        ),
        (lambda: inputs.several_classes("training images", [2, 2]), "only class 2"),
        (lambda: inputs.two_sides("examples", [True, True]), "2 positive of 2"),
    ],
)
def test_degenerate_inputs_raise(check, sentence):
    with pytest.raises(UserError, match=sentence):
        check()


def test_good_inputs_pass():
    assert inputs.forgotten_rows("images", [0, 1, 2], [0, 1, 0]).tolist() == [False, True, False]
    assert inputs.logits("logits", np.zeros((2, 3), np.float32)).dtype == np.float64
