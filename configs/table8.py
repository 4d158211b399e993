"""The paper's Table 8: PostFilter against probability distillation (PD), SVHN and CIFAR-10, AllCNN and ResNet18."""

from ml_collections import ConfigDict

from configs import cifar10_ispf, default, svhn_ispf


def get_config(variant: str = "") -> ConfigDict:
    parts = {
        f"{name}_{arch}": module.get_config(f"{arch},{variant}")
        for name, module in (("svhn", svhn_ispf), ("cifar10", cifar10_ispf))
        for arch in ("allcnn", "resnet18")
    }
    c = default.sweep(
        parts, variant, methods="pd,pd_is,pf,ispf", forget="each", seeds="0,1,2", stages=default.WITH_AUDIT
    )
    c.audit.metrics = "accuracy,mia2"
    return c
