"""The store: what goes in comes out, two steps are kept, and damage costs as little as it can."""

import logging
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


def fill(directory, *steps):
    with Store(directory) as store:
        for step in steps:
            store.save(step, saved(step))


def damage(directory, step):
    """Every file of a step emptied, as a full disk or a crash of the machine leaves them."""
    for path in (directory / str(step)).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


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


@pytest.mark.parametrize("how", ["emptied", "state missing", "meta cut"])
def test_damaged_newest_falls_back_with_a_warning(tmp_path, caplog, how):
    fill(tmp_path, 1, 2)
    if how == "emptied":
        damage(tmp_path, 2)
    elif how == "state missing":
        shutil.rmtree(tmp_path / "2" / "state")
    else:
        for path in (tmp_path / "2" / "meta").iterdir():
            path.write_bytes(path.read_bytes()[:5])
    with Store(tmp_path) as store, caplog.at_level(logging.WARNING):
        found = store.restore(saved(0))
    assert found.meta["epoch"] == 1
    assert_equal(found.state, saved(1).state)
    assert f"{tmp_path / '2'} is damaged" in caplog.text and "step 1" in caplog.text


def test_after_damage_training_saves_over_the_damaged_step(tmp_path):
    """Orbax ignores a step that is not newer than its newest: without care all work until then would never be saved."""
    fill(tmp_path, 1, 3)
    damage(tmp_path, 3)
    with Store(tmp_path) as store:
        assert store.restore(saved(0)).meta["epoch"] == 1
        store.save(2, saved(2))
        store.save(3, saved(3))
    with Store(tmp_path) as store:
        assert_equal(store.restore(saved(0)).state, saved(3).state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]


def test_all_damaged_is_the_users_business_and_nothing_is_removed(tmp_path, caplog):
    fill(tmp_path, 1, 2)
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    before = sorted(tmp_path.rglob("*"))
    with Store(tmp_path) as store, caplog.at_level(logging.WARNING):
        for read in (lambda: store.restore(saved(0)), lambda: store.variables("best", saved(0).last)):
            with pytest.raises(UserError) as caught:
                read()
            message = str(caught.value)
            assert str(tmp_path) in message and "steps 2, 1" in message and "move that directory away" in message
            assert "\n" not in message
    assert "is damaged" not in caplog.text  # the error says it already
    assert sorted(tmp_path.rglob("*")) == before


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
