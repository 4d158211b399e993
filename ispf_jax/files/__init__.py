"""Classifiers in files of other programs: what a file holds (`inspect`), reading (`load`) and writing (`save`)."""

from ispf_jax.files.classifiers import FORMATS, load, save
from ispf_jax.files.description import Description, inspect
from ispf_jax.files.detect import Weights, read_weights
from ispf_jax.models import CONVENTIONS

__all__ = ["CONVENTIONS", "FORMATS", "Description", "Weights", "inspect", "load", "read_weights", "save"]
