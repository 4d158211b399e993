"""The paper's Table 6: ten classes of CIFAR-100 at once, distributed over superclasses or sharing two of them."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar100_multi_ispf", variant)
    c.update(methods="gkt,is,pf,ispf", seeds="0" if "smoke" in variant.split(",") else "0,1,2")
    return c
