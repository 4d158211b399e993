"""The paper's Table 2: CIFAR-100, ResNet18, three single classes and ten classes at once ("distributed").

The paper does not name its single classes; ours are 0, 33 and 66. For the ten see `cifar100_multi_ispf.py`.
"""

from ml_collections import ConfigDict

from ispf_jax import config

SINGLE = "0;33;66"


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("cifar100_ispf")
    distributed = config.preset("cifar100_multi_ispf", "distributed").forget
    c.update(methods="dfkd,gkt,is,pf,ispf", forget=f"{SINGLE};{distributed}", seeds="0,1,2")
    return config.vary(c, variant)
