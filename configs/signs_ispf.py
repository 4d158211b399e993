"""Ten classes of German traffic signs (GTSRB) at 32x32, with the paper's SVHN schedule: 1,000 student steps, AllCNN of
full width.

Name the images with --config.data.path=...: an image folder or tar archive whose folders are GTSRB's class numbers.
Forgotten are "yield" (13) and "speed limit 50" (02), which has neighbours that look like it.
"""

from ml_collections import ConfigDict

from ispf_jax import config


def get_config(variant: str = "") -> ConfigDict:
    c = config.preset("svhn_ispf", "resnet18" if "resnet18" in variant else "")
    c.data.update(name="image_folder", mean="0.5", std="0.5")
    c.forget = "13;name:02"
    c.train.update(
        epochs=15, batch_size=128, lr=0.05, decay_epochs="12"
    )  # 930 steps: a sixth of SVHN's images need other settings
    c.evaluate.every = 10
    return config.vary(c, variant)
