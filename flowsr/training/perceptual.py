"""VGG19 features for the perceptual loss."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from flowsr._support.backbones import fetch_backbone, read_backbone
from flowsr.errors import CheckpointError

_WHAT = "torchvision's VGG19 weights"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """Features of the last convolution of VGG19 (conv5_4, before its ReLU) of images normalized as for ImageNet.

    Frozen. Gradients flow to the images.

    Cost: about 37 GFLOP per 160x160 image.

    Args:
        weights: a local file with torchvision's VGG19 state dict; by default torchvision's own weights, from its cache
            or, with a network, downloaded into it.

    Raises:
        CheckpointError: if the weights cannot be had, or a file is not what its name says; the message says where to
            put them.

    References:
        Simonyan and Zisserman (ICLR 2015); Wang et al., ESRGAN (ECCVW 2018), section 3.3.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        from torchvision.models import vgg19

        network = vgg19(weights=None)
        state = _published_weights() if weights is None else read_backbone(Path(weights), what=_WHAT)
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"expected the state dict of torchvision's vgg19 in {weights}; {error}") from None
        self.layers = nn.Sequential(*list(network.features.children())[:35])
        # In place ReLUs would overwrite what the gradient needs under checkpointing and double use.
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Features ``(B, 512, H/16, W/16)`` of images ``(B, 1 or 3, H, W)`` in [0, 1]."""
        return self.layers((image - self.mean) / self.std)

    def train(self, mode: bool = True) -> "VGGFeatures":
        """Stay in evaluation mode."""
        return super().train(False)


def _published_weights() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    try:
        path = fetch_backbone(url, what=_WHAT)
    except OSError as error:
        raise CheckpointError(
            f"{error}, pass a local file (vgg=… or --vgg), or use a recipe without the perceptual loss"
        ) from None
    return read_backbone(path, what=_WHAT)
