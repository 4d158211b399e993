"""Data-free class unlearning with Inhibited Synthesis and PostFilter (ISPF, AAAI 2025) in JAX."""

__version__ = "0.1.0"
