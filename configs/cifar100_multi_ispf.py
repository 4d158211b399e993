"""CIFAR-100, ResNet18, ten classes at once (paper, Table 2 "multi" and Table 6).

Two sets: "distributed", one class from each of ten superclasses, and "shared", two whole superclasses (aquatic mammals
and fish). The paper does not list its distributed set; ours is the smallest class id of superclasses 0 to 9. Words
after the colon choose: `cifar100_multi_ispf.py:shared`; without one, both are run.
"""

from ml_collections import ConfigDict

from ispf_jax import config

SETS = {"distributed": "4,1,54,9,0,22,5,6,3,12", "shared": "4,30,55,72,95,1,32,67,73,91"}


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar100_ispf")
    words = [word for word in variant.split(",") if word]
    chosen = [SETS[word] for word in words if word in SETS] or list(SETS.values())
    c.forget = ";".join(chosen)
    return config.vary(c, ",".join(word for word in words if word not in SETS))
