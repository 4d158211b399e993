"""SVHN columns of the paper's Table 1: AllCNN and ResNet18, every class by itself, three trials."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    parts = {arch: config.preset("svhn_ispf", f"{arch},{variant}") for arch in ("allcnn", "resnet18")}
    return config.sweep(
        parts, variant, methods="dfkd,blockf,gkt,is,pf,ispf", forget="each", seeds="0,1,2", stages=config.WITH_AUDIT
    )
