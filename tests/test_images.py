"""What a start says of images that are missing, damaged, too few or not learned, before and after it trains on them."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from ispf_jax import data as data_room
from ispf_jax.state import split_seed
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import check_refused, tiny


def folder(root, sizes, broken=()):
    """<split>/<class>/<n>.png with squares of the given sizes; names in `broken` hold no image."""
    for split, label, (number, size) in itertools.product(("train", "test"), ("cat", "dog"), enumerate(sizes)):
        path = root / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size), 40 * number, np.uint8)).save(path)
        if str(path.relative_to(root)) in broken:
            path.write_bytes(b"no image")
    return root


def folder_config(path):
    return tiny(
        data__name="image_folder",
        data__path=str(path),
        data__image_size=0,
        data__channels=0,
        data__max_train=0,
        data__max_test=0,
        forget="cat",
    )


def test_errors_of_the_data_name_keys_and_files(tmp_path):
    missing = folder_config(tmp_path / "none.tar")
    check_refused(missing, tmp_path / "work", ["config.data.path=", tmp_path / "none.tar", "does not exist", ".tar.xz"])
    broken = folder(tmp_path / "broken", (8, 8), broken=("test/dog/1.png",))
    check_refused(folder_config(broken), tmp_path / "work", ["test/dog/1.png", "damaged"])
    missing = tiny(data__name="svhn", data__download=False, data__data_dir=str(tmp_path / "tfds"))
    missing.data.update(image_size=0, channels=0)
    check_refused(missing, tmp_path / "work", ["SVHN", "train_32x32.mat", "manual_dir", "download is off"])


def test_what_the_forgotten_classes_are_called_is_reported(tmp_path):
    config = folder_config(folder(tmp_path / "a", (8,) * 5))
    config.update(forget="dog;0", dry_run=True)
    assert pipeline.run(config, str(tmp_path / "work")).splitlines()[0] == "to forget: 1 (dog); 0 (cat)"


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_original_that_would_not_see_a_class_is_refused_before_training(tmp_path, dry_run):
    """One image of five is held out: with some seeds the dog's only one."""
    root = folder(tmp_path / "a", (8,) * 4)
    for number in (1, 2, 3):
        (root / "train" / "dog" / f"{number}.png").unlink()
    splits = [data_room.train_val_split(5, 0.2, split_seed(seed, "original"))[1] for seed in range(20)]
    seed = next(seed for seed, val in enumerate(splits) if val[4])  # the dog is the last of the five
    config = folder_config(root)
    config.update(seeds=str(seed), stages="original", dry_run=dry_run)
    check_refused(
        config, tmp_path / "work", ["original", "class 1 (dog)", "of its 1 training image(s)", "val_fraction"]
    )
    assert not (tmp_path / "work" / "original").exists()


def test_an_original_no_better_than_guessing_on_the_forgotten_class_is_reported(tmp_path, caplog):
    """A learning rate at which nothing moves leaves a network that takes all images for one class."""
    config = tiny(stages="original", forget="each", train__lr=1e-12)
    config.train.update(epochs=1, decay_epochs="")
    pipeline.run(config, str(tmp_path / "poor"))
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("original seed 0: ")]
    files = [tmp_path / "poor" / "original" / "seed0" / "rows" / str(c) / "result.json" for c in range(5)]
    measured = [
        row["acc_forget"] for file in files for row in json.loads(file.read_text()) if row["method"] == "original"
    ]
    assert len(told) == 1 and "(20 %)" in told[0] and "config.train.epochs" in told[0]
    assert [f"class{c}" in told[0] for c in range(5)] == [measured[c] <= 20 for c in range(5)]
