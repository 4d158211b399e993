"""Handwritten digits of scikit-learn (real, embedded, no download): the whole job in two to four minutes on two
cores."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.default_config()
    c.data.update(name="digits", image_size=16, channels=1)  # scaled up from 8x8
    c.model.width = 0.25
    c.generator.width = 0.25
    c.train.update(epochs=20, batch_size=128, lr=0.05, decay_epochs="15")
    c.distill.update(epochs=100, loops=1, batch_size=128, lr=0.1)
    c.evaluate.every = 5
    c.audit.relearn_batch = 64
    return config.vary(c, variant)
