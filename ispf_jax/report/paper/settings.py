"""What the paper's runs were made with, by the keys of a configuration, as far as it changes what a run computes.

Sources: the paper's Appendix C; the authors' program where that is silent (loss weights, warm-up, schedule, momentum, normalisation,
augmentation, the generator). The program's script is one for CIFAR-10 and AllCNN; what only it says is taken to hold for all.
`distill.thresholded_post_filter` and `train.augment_validation` are not here: one value is the paper's, the other its program's.
"""

from typing import Any

_ALL = {
    "data.image_size": (0, 32),
    "data.channels": (0, 3),
    "data.max_train": (0,),
    "data.max_test": (0,),
    "data.val_fraction": (0.2,),
    "model.width": (1,),
    "model.checkpoint": ("",),
    "model.dtype": ("float32",),
    "generator.latent_dim": (256,),
    "generator.width": (1,),
    "train.batch_size": (256,),
    "train.decay_factor": (0.1,),
    "train.momentum": (0.9,),
    "train.weight_decay": (1e-4,),
    "distill.generator_steps": (1,),
    "distill.student_steps": (10,),
    "distill.batch_size": (256,),
    "distill.warmup_epochs": (2, 0),
    "distill.lr_final": (2e-4,),
    "distill.cosine_epochs": (200,),
    "distill.momentum": (0.9,),
    "distill.weight_decay": (1e-4,),
    "distill.generator_lr": (1e-3,),
    "distill.generator_b1": (0.5,),
    "distill.generator_b2": (0.999,),
    "distill.weight_adv": (1,),
    "distill.weight_bn": (1,),
    "distill.weight_oh": (1,),
    "distill.weight_balance": (1,),
    "distill.weight_act": (0,),
    "evaluate.every": (1,),
}

_SVHN = {
    "data.mean": ((0.5,), (0.5, 0.5, 0.5)),
    "data.std": ((0.5,), (0.5, 0.5, 0.5)),
    "train.augment": ("none",),
    "train.epochs": (10,),
    "train.lr": (0.01,),
    "train.decay_epochs": ((),),
    "distill.epochs": (100,),
    "distill.loops": (1,),
    "distill.threshold": (0.01, 0),
}

_CIFAR = {
    "train.augment": ("crop_flip",),
    "train.lr": (0.1,),
    "distill.epochs": (200,),
    "distill.cosine_epochs": (200, 0),
    "distill.lr": (0.05,),
}
_ALLCNN, _RESNET = (
    {"train.epochs": (50,), "train.decay_epochs": ((30,),)},
    {"train.epochs": (100,), "train.decay_epochs": ((60, 80),)},
)

_CIFAR10 = _CIFAR | {
    "data.mean": ((0.4914, 0.4822, 0.4465),),
    "data.std": ((0.2023, 0.1994, 0.2010),),
    "distill.loops": (5,),
    "distill.threshold": (0.01, 0),
}
_CIFAR100 = _CIFAR | {
    "data.mean": ((0.5071, 0.4867, 0.4408),),
    "data.std": ((0.2675, 0.2565, 0.2761),),
    "distill.loops": (10,),
    "distill.threshold": (0.001, 0),
}

SETTINGS: dict[tuple[str, str], dict[str, tuple]] = {
    ("svhn", "allcnn"): _ALL | _SVHN | {"distill.lr": (0.1,)},
    ("svhn", "resnet18"): _ALL | _SVHN | {"distill.lr": (0.05,)},
    ("cifar10", "allcnn"): _ALL | _CIFAR10 | _ALLCNN,
    ("cifar10", "resnet18"): _ALL | _CIFAR10 | _RESNET,
    ("cifar100", "resnet18"): _ALL | _CIFAR100 | _RESNET,
}
"""By (data set, network): {key: the values that are the paper's}. Where several are, they mean the same (0 is a default of ours) or the
paper's text (the second, no warm-up) differs from the program."""


def differences(dataset: str, arch: str, config: dict[str, Any]) -> list[str]:
    """ "distill.epochs=2 (paper: 100)" for every key of a flat configuration that has another value than in the paper."""
    found = []
    for key, values in sorted(SETTINGS.get((dataset, arch), {}).items()):
        ours = config.get(key, values[0])
        ours = tuple(ours) if isinstance(ours, list) else ours
        if ours not in values:
            found.append(f"{key}={_text(ours)} (paper: {'all images' if 'data.max' in key else _text(values[0])})")
    return found


def _text(value: Any) -> str:
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "none"
