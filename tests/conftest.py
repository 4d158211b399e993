"""Strict settings for the whole suite, and several forced CPU devices so that device spreading runs anywhere."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
