"""What an image is under a model: its latents, from coarse to fine, and the log-determinant."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """What an image is under a model of images given their LR image.

    Attributes:
        lr: the LR image, ``(*batch, C, H/s, W/s)``: the flow's own, which is close to the bicubic one after training
            (HCFlow, IRN), or the one that was given (SRFlow).
        z: latents, coarsest level first.
        ladj: ``log|det ∂(lr, z)/∂hr|`` in nats, of the batch's shape; for SRFlow ``log|det ∂z/∂hr|``.
        size: height and width of the image before padding.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageLatents:
    """What an image is under a model of images alone.

    Attributes:
        z: latents, coarsest level first.
        ladj: ``log|det ∂z/∂hr|`` in nats, of the batch's shape.
        size: height and width of the image before padding.
    """

    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]
