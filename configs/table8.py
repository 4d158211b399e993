"""The paper's Table 8: PostFilter against probability distillation (PD), SVHN and CIFAR-10, AllCNN and ResNet18."""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    parts = {
        f"{name}_{arch}": config.preset(f"{name}_ispf", f"{arch},{variant}")
        for name in ("svhn", "cifar10")
        for arch in ("allcnn", "resnet18")
    }
    c = config.sweep(parts, variant, methods="pd,pd_is,pf,ispf", forget="each", seeds="0,1,2", stages=config.WITH_AUDIT)
    c.audit.metrics = "accuracy,mia2"
    return c
