"""Strict settings for the whole suite, and several forced CPU devices so that device spreading runs anywhere."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)

LONG = ("test_kill.py", "test_golden.py", "test_processes.py")


def pytest_configure(config):
    """Without an expression only the fast stage runs: `-m slow` runs the rest, `-m "slow or not slow"` everything."""
    config.addinivalue_line("markers", "slow: takes more than ten seconds; run in CI after the fast stage")
    config.option.markexpr = config.option.markexpr or "not slow"


def pytest_collection_modifyitems(items):
    """Minutes each, in one process: begun last, they would keep the others waiting."""
    items.sort(key=lambda item: item.path.name not in LONG)
