"""CIFAR-100, ResNet18, one class at a time (paper, Table 2, "single").

The paper does not name its three classes; 0, 33 and 66 are ours.
"""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.default_config()
    c.data.update(name="cifar100", classes=100, mean="0.5071,0.4867,0.4408", std="0.2675,0.2565,0.2761")  # [program]
    c.model.name = "resnet18"
    c.methods = "dfkd,gkt,is,pf,ispf"  # the paper leaves out BlockF here
    c.forget = "0;33;66"
    c.train.update(epochs=100, lr=0.1, decay_epochs="60,80", augment="crop_flip")  # [paper], [program]
    c.distill.update(epochs=200, loops=10, lr=0.05)  # 20,000 student steps [paper]
    return config.vary(c, variant)
