"""Own images: a directory or tar archive with <split>/<class>/<file>; name it with --config.data.path=...

Hyper-parameters are those of CIFAR-10; for other image sizes or few images adapt train.* first.
"""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar10_ispf", "resnet18" if "resnet18" in variant else "")
    c.data.update(name="image_folder", mean="0.5", std="0.5")
    c.methods = "gkt,ispf"
    return config.vary(c, variant)
