"""The paper's Table 7: SVHN with the ZSKT base (the generator's adversarial loss alone), AllCNN and ResNet18."""

from ml_collections import ConfigDict

from configs import default, svhn_ispf


def get_config(variant: str = "") -> ConfigDict:
    parts = {arch: svhn_ispf.get_config(f"{arch},{variant}") for arch in ("allcnn", "resnet18")}
    return default.sweep(parts, variant, methods="gkt,is,pf,ispf", base="zskt", forget="each", seeds="0,1,2")
