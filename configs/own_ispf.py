"""A classifier of your own and no images: name it with --config.model.checkpoint=model.pt.

Name the classes to forget (--config.forget), and say what the classifier was trained on: --config.data.classes,
data.image_size, data.channels, data.mean and data.std. With test images the result is measured as well:
--config.data.name=image_folder --config.data.path=... Hyper-parameters of unlearning are those of CIFAR-10, on the base
remix (docs/beyond.md).
"""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar10_ispf", "resnet18" if "resnet18" in variant else "")
    c.data.update(name="none", image_size=32, channels=3, mean="0.5", std="0.5")
    c.model.name = "resnet18" if "resnet18" in variant else "auto"
    c.stages = "original,unlearn,report"
    c.update(methods="ispf", base="remix", forget="")
    c.distill.rollbacks = 3
    return config.vary(c, variant)
