"""CIFAR-10 from an image folder (such as JPEG copies), half the width, with the paper's CIFAR-10 schedule: 10,000
student steps.

Name the images with --config.data.path=...: an image folder or tar archive with <split>/<class>/<file>.
"""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar10_ispf", "resnet18" if "resnet18" in variant else "")
    c.data.update(name="image_folder")
    c.model.width = c.generator.width = 0.5
    c.forget = "3;5"
    c.train.update(epochs=20, decay_epochs="12,17")
    c.evaluate.every = 10
    return config.vary(c, variant)
