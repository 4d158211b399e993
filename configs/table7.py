"""The paper's Table 7: SVHN with the ZSKT base (the generator's adversarial loss alone), AllCNN and ResNet18."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    parts = {arch: config.preset("svhn_ispf", f"{arch},{variant}") for arch in ("allcnn", "resnet18")}
    return config.sweep(parts, variant, methods="gkt,is,pf,ispf", base="zskt", forget="each", seeds="0,1,2")
