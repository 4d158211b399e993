"""Every configuration file: it validates, with and without its variants, and holds the paper's numbers (Appendix C)."""

import importlib
import itertools

import pytest

from configs import cifar100_multi_ispf
from ispf_jax.config import default_config, make_experiment, make_experiments, preset
from ispf_jax.forget import forget_sets
from ispf_jax.methods import METHODS

TABLES = ("svhn_table1", "cifar10_table1", "cifar100_table2", "table6", "table7", "table8")
NAMES = (
    "digits_ispf",
    "svhn_ispf",
    "cifar10_ispf",
    "cifar100_ispf",
    "cifar100_multi_ispf",
    "image_folder_ispf",
    "own_ispf",
    "signs_ispf",
    "cifar10_jpeg75_ispf",
)
VARIANTS = ("", "resnet18", "smoke", "resnet18,smoke", "smoke,resnet18", "allcnn")

# Supervised lr, epochs, decay; student lr, epochs, loops; normalisation; augmentation; threshold.
HALF = ((0.5,), (0.5,), "none", 0.01)
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "crop_flip", 0.01)
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), "crop_flip", 0.001)
PAPER = {
    ("svhn_ispf", ""): (0.01, 10, (), 0.1, 100, 1, *HALF),
    ("svhn_ispf", "resnet18"): (0.01, 10, (), 0.05, 100, 1, *HALF),
    ("cifar10_ispf", ""): (0.1, 50, (30,), 0.05, 200, 5, *CIFAR10),
    ("cifar10_ispf", "resnet18"): (0.1, 100, (60, 80), 0.05, 200, 5, *CIFAR10),
    ("cifar100_ispf", ""): (0.1, 100, (60, 80), 0.05, 200, 10, *CIFAR100),
    ("cifar100_multi_ispf", ""): (0.1, 100, (60, 80), 0.05, 200, 10, *CIFAR100),
}
ARCHITECTURE = {("cifar100_ispf", ""): "resnet18", ("cifar100_multi_ispf", ""): "resnet18"}
STUDENT_STEPS = {"svhn_ispf": 1_000, "cifar10_ispf": 10_000, "cifar100_ispf": 20_000, "cifar100_multi_ispf": 20_000}

# Superclass of each of CIFAR-100's classes, in the order of the class ids, from the official `coarse_labels`.
SUPERCLASS = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1,
    10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2,
    12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15,
    6, 0, 17, 8, 14, 13,
)  # fmt: skip
AQUATIC_MAMMALS, FISH = 0, 1
SIGNS = ("01", "02", "04", "05", "09", "10", "12", "13", "25", "38")  # folders of the ten largest classes of GTSRB


def load(name, variant=""):
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    if config.data.name == "image_folder":
        config.data.path = "photos.tar"  # the one key that has no default
    return config


@pytest.mark.parametrize("name, variant", [*itertools.product(NAMES, VARIANTS)])
def test_configuration_validates(name, variant):
    experiment = make_experiment(load(name, variant))
    classes = 100 if "cifar100" in name else 10
    assert experiment.data.classes == classes
    names = SIGNS if name == "signs_ispf" else tuple(map(str, range(classes)))
    assert experiment.forget == "" if name == "own_ispf" else forget_sets(experiment.forget, names)
    if "resnet18" in variant:
        assert experiment.model.name == "resnet18"
    if "smoke" in variant:
        full = make_experiment(load(name))
        assert experiment.data.name == "synthetic" and experiment.methods == full.methods
        assert experiment.forget == full.forget.split(";")[0]
        assert (experiment.data.image_size, experiment.data.channels) == ((16, 1) if name == "digits_ispf" else (32, 3))


@pytest.mark.parametrize("name, variant", PAPER)
def test_hyper_parameters_are_the_papers(name, variant):
    e = make_experiment(load(name, variant))
    t, d = e.train, e.distill
    found = (
        t.lr,
        t.epochs,
        t.decay_epochs,
        d.lr,
        d.epochs,
        d.loops,
        e.model.mean,
        e.model.std,
        t.augment,
        d.threshold or 0.1 / e.data.classes,
    )
    assert found == PAPER[name, variant]
    assert e.data.name == name.split("_")[0]
    assert e.model.name == ARCHITECTURE.get((name, variant), variant or "allcnn")
    assert d.epochs * d.loops * d.student_steps == STUDENT_STEPS[name]
    assert (t.batch_size, t.momentum, t.weight_decay, t.decay_factor, t.augment_validation) == (
        256,
        0.9,
        1e-4,
        0.1,
        False,
    )
    assert (d.batch_size, d.generator_steps, d.student_steps, d.warmup_epochs) == (256, 1, 10, 2)
    assert (d.momentum, d.weight_decay, d.lr_final, d.cosine_epochs) == (0.9, 1e-4, 2e-4, 200)
    assert (d.generator_lr, d.generator_b1, d.generator_b2, d.latent_dim) == (1e-3, 0.5, 0.999, 256)
    assert (d.weight_adv, d.weight_bn, d.weight_oh, d.weight_balance, d.weight_act) == (1, 1, 1, 1, 0)
    assert d.thresholded_post_filter is False and t.val_fraction == 0.2
    assert (e.model.width, d.generator_width, e.model.dtype) == (1, 1, "float32")


def test_methods_are_those_of_the_papers_tables():
    table1 = ("dfkd", "blockf", "gkt", "is", "pf", "ispf")
    assert make_experiment(load("svhn_ispf")).methods == make_experiment(load("cifar10_ispf")).methods == table1
    assert make_experiment(load("cifar100_ispf")).methods == tuple(m for m in table1 if m != "blockf")
    assert set(METHODS) == {*table1, "pd", "pd_is"}


def test_digits_run_is_the_small_one():
    e = make_experiment(load("digits_ispf"))
    assert (e.data.name, e.data.image_size, e.data.channels, e.model.width, e.distill.batch_size) == (
        "digits",
        16,
        1,
        0.25,
        128,
    )
    assert (e.distill.epochs, e.distill.loops, e.distill.generator_steps, e.distill.student_steps, e.distill.lr) == (
        100,
        1,
        1,
        10,
        0.1,
    )
    assert {"gkt", "ispf"} <= set(e.methods)


def test_cifar100_multi_forgets_ten_superclasses_or_two_whole_ones():
    names = tuple(map(str, range(100)))
    distributed, shared = forget_sets(make_experiment(load("cifar100_multi_ispf")).forget, names)
    assert len(distributed) == len(shared) == 10
    assert len({SUPERCLASS[c] for c in distributed}) == 10
    assert set(shared) == {c for c in range(100) if SUPERCLASS[c] in (AQUATIC_MAMMALS, FISH)}
    for word in cifar100_multi_ispf.SETS:
        (alone,) = forget_sets(make_experiment(load("cifar100_multi_ispf", f"{word},smoke")).forget, names)
        assert alone == {"distributed": distributed, "shared": shared}[word]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variant_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"'bogus'.*allcnn, resnet18, .* and smoke"):
        load(name, "smoke,bogus")


def test_every_configuration_holds_every_key_and_no_other():
    def keys(config, prefix=""):
        for key, value in config.items():
            yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]

    assert len(set(keys(default_config().to_dict()))) > 80
    for name in NAMES:
        assert sorted(keys(load(name).to_dict())) == sorted(keys(default_config().to_dict())), name
        config = preset(name)
        config.data.path = load(name).data.path
        assert config.to_dict() == load(name).to_dict()


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("name", TABLES)
def test_the_papers_tables_are_sweeps_of_its_settings(name, variant):
    """Every part has the numbers that the configuration of its data set and network has by itself."""
    made = make_experiments(load(name, variant))
    assert len(made) == {"cifar100_table2": 1, "table6": 1, "table8": 4}.get(name, 2)
    for part, e in made.items():
        dataset = (
            "cifar100"
            if name in ("cifar100_table2", "table6")
            else part.split("_")[0]
            if name == "table8"
            else name.split("_")[0].replace("table7", "svhn")
        )
        alone = make_experiment(load(f"{dataset}_ispf", ",".join(filter(None, (e.model.name, variant)))))
        same = ("data", "model", "train", "distill", "evaluate")
        assert [getattr(e, key) for key in same] == [getattr(alone, key) for key in same]
        assert e.seeds == ((0,) if variant else (0, 1, 2)) or name == "cifar100_table2"
        assert set(e.methods) <= set(METHODS) and e.base == (("zskt",) if name == "table7" else ("dfq",))
