"""From text to frozen dataclasses: what is accepted, and one sentence for everything that is not."""

import dataclasses
import os

import numpy as np
import pytest

from configs import cifar10_ispf, default, svhn_ispf, table8
from ispf_jax.config import WITH_AUDIT, ConfigFile, make_experiment, make_experiments, override_problem
from ispf_jax.errors import UserError
from ispf_jax.experiment import changed_keys, flatten, keys


def changed(**values):
    """The default configuration with keys changed; "__" stands for a dot."""
    config = default.get_config().to_dict()
    for path, value in values.items():
        *groups, key = path.split("__")
        group = config
        for name in groups:
            group = group[name]
        group[key] = value
    return config


def test_lists_written_as_text_become_tuples():
    e = make_experiment(
        changed(methods=" gkt, ispf", base="dfq,zskt", seeds="0,7", train__decay_epochs="60,80", data__mean="0.1, .2,1")
    )
    assert (e.methods, e.base, e.seeds) == (("gkt", "ispf"), ("dfq", "zskt"), (0, 7))
    assert (e.train.decay_epochs, e.model.mean) == ((60, 80), (0.1, 0.2, 1.0))
    assert make_experiment(changed(methods="", train__decay_epochs="")).methods == ()


def test_an_experiment_is_frozen_and_comparable():
    e = make_experiment(default.get_config())
    assert e == make_experiment(changed()) and hash(e) == hash(make_experiment(changed()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        e.devices = 2


def test_whole_numbers_are_taken_for_numbers_but_not_the_reverse():
    assert make_experiment(changed(train__lr=1)).train.lr == 1.0
    with pytest.raises(UserError, match=r"config.train.epochs=1.5 must be a whole number"):
        make_experiment(changed(train__epochs=1.5))


BAD = {
    "stages": ("original,evaluate", ["config.stages", "'evaluate'", "original, retrain, unlearn,"]),
    "methods": ("ispf,gtk", ["config.methods", "'gtk'", "dfkd, blockf, gkt, is, pf, ispf, pd, pd_is"]),
    "base": ("dfq,cmi", ["config.base", "'cmi'", "dfq, zskt, remix"]),
    "seeds": ("0,0", ["config.seeds='0,0'", "different"]),
    "model__name": ("vgg", ["config.model.name='vgg'", "allcnn, resnet18"]),
    "model__dtype": ("float16", ["config.model.dtype='float16'", "float32, bfloat16"]),
    "model__width": (0.0, ["config.model.width=0.0", "greater than 0"]),
    "generator__latent_dim": (10**5000, ["config.generator.latent_dim=<int>", "greater than 0"]),
    "convolutions": ("mkl", ["config.convolutions='mkl'", "auto, onednn, xla"]),
    "train__augment": ("mixup", ["config.train.augment='mixup'", "none, crop_flip"]),
    "train__epochs": (0, ["config.train.epochs=0", "greater than 0"]),
    "train__lr": (float("nan"), ["config.train.lr=nan", "finite"]),
    "train__decay_epochs": ("a", ["config.train.decay_epochs='a'", "whole numbers separated by commas"]),
    "train__momentum": (1.0, ["config.train.momentum=1.0", "less than 1"]),
    "data__channels": (2, ["config.data.channels=2", "0, 1, 3"]),
    "data__std": ("0.5,0,0.5", ["config.data.std='0.5,0,0.5'", "from 0 to 1"]),
    "data__mean": ("0.5,0.5", ["config.data.mean", "one number, or three"]),
    "data__val_fraction": (0.0, ["config.data.val_fraction=0.0", "greater than 0"]),
    "data__download": (1, ["config.data.download=1", "True or False"]),
    "data__path": (3, ["config.data.path=3", "text"]),
    "data": ("digits", ["config.data='digits'", "group of keys"]),
    "data__image_size": ({"a": 1}, ["config.data.image_size={'a': 1}", "whole number"]),
    "distill__epochs": (10**7, ["config.distill.epochs=10000000", "less than 1000000"]),
    "distill__batch_size": (-1, ["config.distill.batch_size=-1", "greater than 0"]),
    "distill__threshold": (1.5, ["config.distill.threshold=1.5", "less than 1"]),
    "distill__weight_bn": (-1.0, ["config.distill.weight_bn=-1.0", "negative"]),
    "distill__cosine_epochs": (True, ["config.distill.cosine_epochs=True", "whole number"]),
    "evaluate__every": (-1, ["config.evaluate.every=-1", "negative"]),
    "devices": (-1, ["config.devices=-1", "negative"]),
    "checkpoint_seconds": (-1.0, ["config.checkpoint_seconds=-1.0", "negative"]),
    "train": (None, ["config.train=None", "group of keys"]),
    "data__cache_dir": ("~nosuchuser/x", ["config.data.cache_dir='~nosuchuser/x'", "user"]),
    "data__data_dir": ("x" * 256, ["config.data.data_dir='xx", "too long"]),
    "data__manual_dir": ("a\0b", [r"config.data.manual_dir='a\x00b'", "UTF-8"]),
    "data__classes": (10**12, ["config.data.classes=1000000000000", "less than 100000"]),
    "compilation_cache": ("\udcff", [r"config.compilation_cache='\udcff'", "UTF-8"]),
    "forget": (3, ["config.forget=3", "text"]),
    "distill__loops": (99_999, ["config.distill.loops=99999", "1,099,989 steps"]),
    "distill__lr": (10**400, ["config.distill.lr=1000", "float32"]),
    "generator__width": (lambda: 1, ["config.generator.width=<function", "float32"]),
    "train__weight_decay": (1e-300, ["config.train.weight_decay=1e-300", "float32"]),
    "train__decay_factor": (1.5, ["config.train.decay_factor=1.5", "at most 1"]),
    "evaluate__batch_size": (np.array([1, 2]), ["config.evaluate.batch_size=array([1, 2])", "whole number"]),
    "audit__shots": ([[1]], ["config.audit.shots[0]=[1]", "whole number"]),
    "audit__metrics": ({"a": 1}, ["config.audit.metrics={'a': 1}", "list"]),
    "audit__shadows": (10**9, ["config.audit.shadows=1000000000", "less than 10000"]),
    "export": (("pt", 3), ["config.export[1]=3", "text"]),
    "foo": (1, ["config.foo is no known key"]),
    "method": ("gkt", ["did you mean config.methods?"]),
    "data__image_siz": (1, ["did you mean config.data.image_size?"]),
}


@pytest.mark.parametrize("path", BAD)
def test_a_bad_value_is_named_with_what_is_allowed(path):
    value, parts = BAD[path]
    check_refused(changed(**{path: value}), parts)


@pytest.mark.parametrize(
    "path, value, parts",
    [
        ("data__mean", "125.3,123.0,113.9", ["config.data.mean='125.3,123,113.9'", "from 0 to 1", "255"]),
        ("data__std", "63,62.1,66.7", ["config.data.std='63,62.1,66.7'", "from 0 to 1", "255"]),
        ("train__decay_epochs", "30,-5", ["config.train.decay_epochs[1]=-5", "greater than 0"]),
        ("distill__lr_final", 0.5, ["config.distill.lr_final=0.5", "lr=0.05", "0.05 or less"]),
        ("audit__lira_shadows", 2, ["config.audit.lira_shadows=2", "0 (no LiRA)", "4 or more"]),
        ("audit__lira_shadows", 5, ["config.audit.lira_shadows=5", "even"]),
    ],
)
def test_values_that_would_fail_later(path, value, parts):
    check_refused(changed(**{path: value}), parts)


def test_the_ends_of_what_is_allowed():
    make_experiment(
        changed(
            data__mean="0,1,0.5", data__std="1", train__decay_epochs="1", distill__lr_final=0.05, audit__lira_shadows=4
        )
    )


def test_values_that_are_numbers_all_the_same():
    e = make_experiment(changed(seeds=7, train__epochs=np.int64(3), train__lr=np.float32(0.5), audit__shots=(1, 2)))
    assert (e.seeds, e.train.epochs, e.train.lr, e.audit.shots) == ((7,), 3, 0.5, (1, 2))
    assert type(e.train.epochs) is int and type(e.train.lr) is float


@pytest.mark.parametrize("seeds", ["", "-1", "0,1,1", "a", "0.5", "4294967296"])
def test_bad_seeds(seeds):
    check_refused(
        changed(seeds=seeds),
        [
            "config.seeds",
            {"": "one or more different numbers", "-1": "not be negative", "4294967296": "less than 4294967296"}.get(
                seeds, "numbers"
            ),
        ],
    )


@pytest.mark.parametrize("key", ["base", "methods"])
def test_nothing_may_be_named_twice(key):
    word = {"base": "dfq", "methods": "gkt"}[key]
    check_refused(changed(**{key: f"{word},{word}"}), [f"config.{key}='{word},{word}'", "once"])


def test_no_base():
    check_refused(changed(base=""), ["config.base", "dfq, zskt, remix"])


def test_a_missing_key_is_named():
    config = changed()
    del config["distill"]["loops"]
    check_refused(config, ["config.distill.loops is missing", "default_config()"])


def check_refused(config, parts):
    with pytest.raises(UserError) as caught:
        make_experiment(config)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


# What is written to disk and compared


def test_flat_configuration_and_its_differences():
    old = flatten(make_experiment(changed()))
    assert old["data.mean"] == [0.5] and old["distill.loops"] == 5 and "data" not in old
    new = flatten(
        make_experiment(
            changed(
                train__lr=0.2, distill__loops=7, methods="pf", data__data_dir="x", devices=1, evaluate__batch_size=7
            )
        )
    )
    assert changed_keys(old, new) == ["distill.loops", "train.lr"]
    assert changed_keys(old, old) == []
    assert changed_keys({**old, "gone": 1}, old) == ["gone"]
    before = {path: value for path, value in old.items() if path != "distill.loops"}
    assert changed_keys(before, old) == [] and changed_keys(before, new) == ["distill.loops", "train.lr"]


# What the command line is told


@pytest.mark.parametrize(
    "path, text, parts",
    [
        ("foo", "1", ["config.foo is no known key", "methods,"]),
        ("data.foo", "1", ["config.data.foo", "allowed are data.cache_dir,"]),
        ("train.lr.x", "1", ["config.train.lr.x"]),
        ("epochs", "1", ["did you mean config.train.epochs?"]),
        ("train", "1", ["config.train", "group of keys", "epochs"]),
        ("train.epochs", "1.5", ["config.train.epochs='1.5'", "whole number"]),
        ("train.lr", "fast", ["config.train.lr='fast'", "a number"]),
        ("data.download", "maybe", ["config.data.download='maybe'", "True or False"]),
    ],
)
def test_override_problems(path, text, parts):
    problem = override_problem(path, text)
    assert all(part in problem for part in parts), problem


@pytest.mark.parametrize(
    "path, text", [("train.epochs", "3"), ("train.lr", "1e-3"), ("data.download", "false"), ("forget", "0;1")]
)
def test_overrides_without_a_problem(path, text):
    assert override_problem(path, text) == ""


def test_every_key_has_a_meaning_and_stands_once():
    described = [(path, text) for path, _, _, text in keys()]
    assert len(dict(described)) == len(described) > 80 and all(len(text) > 5 for _, text in described)
    assert list(flatten(make_experiment(changed()))) == [path for path, _ in described]


def test_parts_change_what_they_name_and_nothing_else():
    config = changed(parts={"a": {}, "b": {"model": {"name": "resnet18"}, "distill": {"lr": 0.2}}})
    a, b = make_experiments(config).values()
    assert a == make_experiment(config)
    assert b == make_experiment(changed(model__name="resnet18", distill__lr=0.2))
    assert list(make_experiments(changed())) == [""]
    assert override_problem("parts.a.train.epochs", "3") == "" and "whole number" in override_problem(
        "parts.a.train.epochs", "x"
    )


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"a/b": {}}, "config.parts.a/b is no name"),
        ({"": {}, "b": {}}, "config.parts. is no name"),
        ({3: {}}, "config.parts.3 is no name"),
        ({"n" * 101: {}}, "config.parts.'n.* is no name"),
        ({"a\nb": {}}, r"config.parts.'a\\nb' is no name"),
        ({"report": {}}, "config.parts.report is no name"),
        ({"a": {"modle": {"name": "x"}}}, "part 'a': config.modle.name is no known key"),
        ({"a": {"train": 1}}, "part 'a': config.train=1 must be a group"),
        ({"a": {"methods": {"x": 1}}}, "part 'a': config.methods={'x': 1} must be"),
        ({"a": {3: 1}}, "part 'a': config.3 is no known key"),
        ({"a": None}, "config.parts.a=None must be"),
        ({"a": {"parts": {"b": {}}}}, "config.parts.a={'parts': .* without parts"),
        ({"a": {}, "b": {"dry_run": True}}, "config.parts.b.dry_run is of the whole run"),
        (["a"], r"config.parts=\['a'\] must be"),
    ],
)
def test_parts_that_are_refused(parts, words):
    with pytest.raises(UserError, match=words) as caught:
        make_experiments(changed(parts=parts))
    assert "\n" not in str(caught.value)


FILES = {
    "x = 1": ["has no function get_config"],
    "raise SystemExit(0)": ["SystemExit: 0", "line 1"],
    "def get_config(): return 3": ["returned 3", "ConfigDict"],
    "def get_config(): pass": ["returned None", "ConfigDict"],
    "def get_config(a): pass": ["TypeError", "'a'"],
    "async def get_config(): pass": ["returned <coroutine", "ConfigDict"],
    "def get_config(): raise BaseException('a\\nb')": ["BaseException: a b", "line 1"],
    "def get_config(): return b'\\xff'.decode()": ["UnicodeDecodeError", "0xff"],
    "def get_config(): return get_config()": ["RecursionError"],
    "from ml_collections import *\ndef get_config(): return ConfigDict()": ["is missing"],
    "\0": ["null bytes"],
}


@pytest.mark.parametrize("body", FILES)
def test_a_file_that_is_no_configuration(tmp_path, body):
    file = tmp_path / "mine.py"
    file.write_text(body)
    with pytest.raises(UserError) as caught:
        ConfigFile().parse(str(file))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"--config={file}: "), message
    assert all(part in message for part in FILES[body]), message


def test_only_a_regular_file_of_bounded_size_is_run(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "large.py").write_text("#" * (2 << 20))
    for name, words in (
        ("pipe.py", "a pipe"),
        ("large.py", "2,097,152 bytes"),
        ("", "a directory"),
        ("no.py", "No such"),
    ):
        with pytest.raises(UserError, match=f"cannot be read: .*{words}"):
            ConfigFile().parse(f"{tmp_path}/{name}")


def test_references_have_the_values_they_lead_to(tmp_path):
    config = default.get_config()
    config.methods = config.get_ref("base")
    config.base = "zskt"
    with pytest.raises(UserError, match=r"config.methods='zskt' is unknown"):
        make_experiment(config)


def test_a_sweep_is_the_configurations_it_was_made_of():
    for variant in ("", "smoke"):
        made = make_experiments(table8.get_config(variant))
        common = {
            "methods": "pd,pd_is,pf,ispf",
            "forget": "3" if variant else "each",
            "seeds": "0" if variant else "0,1,2",
            "stages": WITH_AUDIT,
        }
        for name, module in (("svhn", svhn_ispf), ("cifar10", cifar10_ispf)):
            for arch in ("allcnn", "resnet18"):
                alone = module.get_config(f"{arch},{variant}")
                alone.update(common)
                alone.audit.metrics = "accuracy,mia2"
                assert made[f"{name}_{arch}"] == make_experiment(alone)
