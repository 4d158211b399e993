"""Networks of torchvision and timm with weights in general position, and their logits; for `test_families.py`."""

import numpy as np
import pytest


def modules():
    """(torch, torchvision.models, timm); skips without them.

    torchvision's binary part, which models do not need, may be built for another PyTorch: its operators are declared.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(30):
        try:
            import timm
            import torchvision.models

            return torch, torchvision.models, timm, library
        except RuntimeError as error:
            name = str(error).split("torchvision::")[-1].split(" ")[0]
            if "does not exist" not in str(error):
                raise
            library.define(f"{name}(Tensor a) -> Tensor")
        except ImportError as error:
            pytest.skip(f"torchvision and timm are not installed: {error}")
    return pytest.skip("torchvision cannot be imported")


def general_position(torch, net, seed=0, spread=0.2, gain=1.5):
    """All parameters and statistics away from where they begin; kernels with variance `gain` over their inputs."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.copy_(spread * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var") or value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) * (gain / value[0].numel()) ** 0.5)
        else:
            value.fill_(17)
    return net.eval()


def logits(torch, net, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = net(torch.tensor(images).permute(0, 3, 1, 2))
        return getattr(out, "logits", out).numpy()
