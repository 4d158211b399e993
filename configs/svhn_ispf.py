"""SVHN, AllCNN or (svhn_ispf.py:resnet18) ResNet18: the setting of the paper's Table 1, which needs
--config.forget=each."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.default_config()
    c.data.name = "svhn"  # normalised with mean and std 0.5 [program]
    c.methods = "dfkd,blockf,gkt,is,pf,ispf"
    c.train.update(epochs=10, lr=0.01, decay_epochs="", augment="none")  # [paper], no augmentation [program]
    c.distill.update(epochs=100, loops=1)  # 1,000 student steps [paper]
    config.vary(c, variant)
    c.distill.lr = 0.1 if c.model.name == "allcnn" else 0.05  # [paper]
    return c
