"""The published discriminator of HCFlow++, for any crop size."""

import torch
from torch import Tensor, nn


class Discriminator(nn.Module):
    """VGG-like critic: ten convolutions (3x3, then 4x4 of stride 2, five times), two linear layers, one logit.

    Batch normalization follows every convolution but the first; LeakyReLU 0.2 everywhere.

    Cost: about 28 GFLOP per 160x160 image at the published width.

    Args:
        crop: side of the square images in pixels, at least 32.
        image_channels: channels of the images.
        width: channels of the first convolutions; the last ones have eight times as many.

    Raises:
        ValueError: for a smaller crop, or images of another size.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4; Wang et al., ESRGAN (ECCVW 2018), released code.

    Example:
        >>> Discriminator(64, width=4)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1])
    """

    def __init__(self, crop: int, *, image_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if crop < 32:
            raise ValueError(f"expected crops of at least 32 pixels, which are halved five times; got {crop}")
        self.crop = crop
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = []
        channels = image_channels
        for out in widths:
            for kernel, stride in ((3, 1), (4, 2)):
                first = not layers
                layers.append(nn.Conv2d(channels, out, kernel, stride, 1, bias=first))
                if not first:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.LeakyReLU(0.2))
                channels = out
        self.features = nn.Sequential(*layers)
        side = crop // 32
        self.head = nn.Sequential(nn.Linear(channels * side * side, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, 1)`` of images ``(B, C, crop, crop)``: high for real ones."""
        if image.shape[-2:] != (self.crop, self.crop):
            raise ValueError(f"expected images of {self.crop}x{self.crop}; got {tuple(image.shape[-2:])}")
        return self.head(torch.flatten(self.features(image), 1))
