"""Pictures of runs, audits and synthetic images. Matplotlib is imported by the files that draw with it, not here."""

from ispf_jax.report.figures.grid import image_grid

__all__ = ["image_grid"]
