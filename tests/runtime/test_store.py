"""The store: what goes in comes out, two steps are kept, and damage costs as little as it can."""

import json
import logging
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ispf_jax.errors import UserError
from ispf_jax.runtime.store import Saved, Store
from ispf_jax.state import TrainState, new_net


def saved(step):
    variables = {"params": {"w": jnp.full((2, 3), float(step))}, "batch_stats": {"mean": jnp.arange(3.0) + step}}
    net = new_net(variables, optax.adam(1e-3))
    state = TrainState(net, jax.random.fold_in(jax.random.key(7), step), jnp.int32(step))
    best = jax.tree.map(lambda x: -x, variables)
    return Saved(state, variables, best, {"epoch": step, "seconds": 1.5, "best_epoch": 0, "best_score": None})


IDENTITY = {"run": "unlearn ispf (dfq) forget 3", "seed": 0, "network": "AllCNN"}


def fill(directory, *steps):
    with Store(directory, IDENTITY) as store:
        for step in steps:
            store.save(step, saved(step))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_round_trip_with_typed_keys(tmp_path):
    fill(tmp_path, 3)
    with Store(tmp_path) as store:
        found = store.restore(saved(0))
    expected = saved(3)
    assert jax.dtypes.issubdtype(found.state.key.dtype, jax.dtypes.prng_key)
    assert_equal(tuple(found[:3]), tuple(expected[:3]))
    assert found.meta == expected.meta


def test_best_and_last_alone(tmp_path):
    fill(tmp_path, 2)
    with Store(tmp_path) as store:
        for which in ("best", "last"):
            variables, meta = store.variables(which, saved(0).last)
            assert_equal(variables, getattr(saved(2), which))
            assert meta["epoch"] == 2


def test_two_newest_are_kept(tmp_path):
    fill(tmp_path, 1, 2, 3, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_empty_store(tmp_path):
    with Store(tmp_path / "new") as store:
        assert store.restore(saved(0)) is None
        with pytest.raises(UserError, match=f"there is no checkpoint in {tmp_path / 'new'}"):
            store.variables("last", saved(0).last)


def emptied(step):
    for path in step.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def changed(step):
    """One byte of the largest file, which Orbax does not notice."""
    path = max((p for p in (step / "best").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def said(**values):
    def change(step):
        path = step / "meta" / "metadata"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


DAMAGE = {
    "emptied": emptied,
    "changed": changed,
    "state missing": lambda step: shutil.rmtree(step / "state"),
    "meta cut": lambda step: (step / "meta" / "metadata").write_text('{"ep'),
    "meta deep": lambda step: (step / "meta" / "metadata").write_text("[" * 100_000),
    "another step": lambda step: (shutil.rmtree(step), shutil.copytree(step.with_name("1"), step)),
    "seconds": said(seconds=-1),
    "other seconds": said(seconds=2.5),
    "best epoch": said(best_epoch="1"),
    "another run": said(identity=IDENTITY | {"run": "unlearn gkt"}),
    "a pipe": lambda step: os.mkfifo(step / "best" / "pipe"),
    "a link": lambda step: (step / "best" / "link").symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_step_is_set_aside(tmp_path, caplog, damage):
    """The one before it is used, and training saves its steps again."""
    fill(tmp_path, 1, 2)
    DAMAGE[damage](tmp_path / "2")
    with Store(tmp_path, IDENTITY) as store, caplog.at_level(logging.WARNING, "ispf_jax"):
        found = store.restore(saved(0))
        store.save(2, saved(2))
    assert found.meta["epoch"] == 1
    assert_equal(found.state, saved(1).state)
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("ispf_jax")]
    assert message.startswith(f"{tmp_path / '2'} is damaged (") and "set aside as 2.damaged" in message
    with Store(tmp_path, IDENTITY) as store:
        assert_equal(store.restore(saved(0)).state, saved(2).state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "2.damaged"]


@pytest.mark.parametrize("key, value", [("run", "unlearn gkt (dfq) forget 3"), ("seed", 1), ("network", "ResNet")])
def test_what_is_something_else_is_not_taken(tmp_path, key, value):
    fill(tmp_path, 1)
    with Store(tmp_path, IDENTITY | {key: value}) as store:
        assert store.restore(saved(0)) is None
        with pytest.raises(UserError, match="there is no checkpoint in"):
            store.variables("best", saved(0).last)
    assert [p.name for p in tmp_path.iterdir()] == ["1.damaged"]


def test_a_step_that_does_not_say_what_it_is_is_taken_with_a_warning(tmp_path, caplog):
    fill(tmp_path, 1)
    path = tmp_path / "1" / "meta" / "metadata"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("identity", "digests")}
    path.write_text(json.dumps(old))
    with Store(tmp_path, IDENTITY) as store:
        assert store.restore(saved(0)).meta == saved(1).meta
    assert "does not say what it is" in caplog.text


@pytest.mark.parametrize(
    "error", [MemoryError(), PermissionError(13, "no"), RuntimeError("RESOURCE_EXHAUSTED: memory")]
)
def test_what_says_nothing_about_a_step_sets_none_aside(tmp_path, monkeypatch, error):
    fill(tmp_path, 1)
    with Store(tmp_path, IDENTITY) as store:

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(store._manager, "restore", fail)
        with pytest.raises(UserError, match=f"{tmp_path / '1'} cannot be read"):
            store.restore(saved(0))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_an_unfinished_save_is_not_a_step(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "2.orbax-checkpoint-tmp" / "state").write_bytes(b"half")
    with Store(tmp_path) as store:
        assert store.restore(saved(0)).meta["epoch"] == 1


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'checkpoints'}"):
        Store(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_save_that_fails_names_the_directory(tmp_path, monkeypatch):
    with Store(tmp_path) as store:

        def disk_full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store._manager, "save", disk_full)
        with pytest.raises(UserError, match=f"checkpoint 5 in {tmp_path}.*No space left.*same command"):
            store.save(5, saved(5))
