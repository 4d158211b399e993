"""CIFAR-10, AllCNN or (cifar10_ispf.py:resnet18) ResNet18: the setting of the paper's Table 1."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.default_config()
    c.data.update(name="cifar10", mean="0.4914,0.4822,0.4465", std="0.2023,0.1994,0.2010")  # [program]
    c.methods = "dfkd,blockf,gkt,is,pf,ispf"
    c.train.augment = "crop_flip"  # [program]
    c.distill.update(epochs=200, loops=5, lr=0.05)  # 10,000 student steps [paper]
    resnet = "resnet18" in variant
    c.train.update(epochs=100 if resnet else 50, lr=0.1, decay_epochs="60,80" if resnet else "30")  # [paper]
    return config.vary(c, variant)
