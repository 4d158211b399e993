"""SVHN columns of the paper's Table 1: AllCNN and ResNet18, every class by itself, three trials."""

from ml_collections import ConfigDict

from configs import default, svhn_ispf


def get_config(variant: str = "") -> ConfigDict:
    parts = {arch: svhn_ispf.get_config(f"{arch},{variant}") for arch in ("allcnn", "resnet18")}
    return default.sweep(
        parts, variant, methods="dfkd,blockf,gkt,is,pf,ispf", forget="each", seeds="0,1,2", stages=default.WITH_AUDIT
    )
