"""The paper's Table 2: CIFAR-100, ResNet18, three single classes and ten classes at once ("distributed").

The paper does not name its single classes; ours are 0, 33 and 66. For the ten see `cifar100_multi_ispf.py`.
"""

from ml_collections import ConfigDict

from configs import cifar100_ispf, cifar100_multi_ispf, default

SINGLE = "0;33;66"


def get_config(variant: str = "") -> ConfigDict:
    c = cifar100_ispf.get_config()
    c.update(methods="dfkd,gkt,is,pf,ispf", forget=f"{SINGLE};{cifar100_multi_ispf.SETS['distributed']}", seeds="0,1,2")
    return default.vary(c, variant)
