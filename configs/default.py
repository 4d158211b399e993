"""Every key at its default; `python launch.py --help` lists all keys with their meaning."""

from ispf_jax.config import default_config as get_config

__all__ = ["get_config"]
