"""What the encoding of an 8-bit HR image says about a model: its own LR image, and how close that is.

The rules that every figure of the package follows, whether it stands in a card, an evaluation or the log of a run.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from flowsr.images import round_to_8bit
from flowsr.metrics import psnr
from flowsr.models import Capability, ConditionalModel, Tiling, require


@torch.no_grad()
def encoded_lr(
    flow: ConditionalModel,
    hr: Tensor,
    *,
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> Tensor:
    """The flow's own LR image as it is judged: clamped to [0, 1]; of a rescaling model rounded to 8 bits, as saved.

    A super-resolution model's is not rounded, as it is never saved: what counts is how close it is.

    Cost: one encoding pass.

    Args:
        flow: a model with the capability ``lr-latent``.
        hr: HR image ``(*batch, C, H, W)`` in [0, 1], on any device.
        tiling: how to cut the image, see :func:`flowsr.models.plan_tiles`; by default it is encoded whole.
        on_tile: called after each tile.

    Returns:
        LR image ``(*batch, C, H/s, W/s)``, on the device and in the dtype of the weights.

    Raises:
        ValueError: for a model without an LR image in its latent, or a tiling of another size.

    Example:
        >>> import flowsr
        >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), torch.rand(3, 16, 16)
        >>> torch.allclose(encoded_lr(flow, hr), torch.nn.functional.avg_pool2d(hr, 4), atol=1e-5)
        True
    """
    require(flow, Capability.LR_LATENT)
    whole = (hr.shape[-2], hr.shape[-1]), flow.multiple
    cut = Tiling.whole(*whole) if tiling is None else tiling.checked(*whole)
    lr = cut.assemble(
        lambda tile: flow.encode(hr[..., *tile.window.times(flow.multiple)].to(flow.device)).lr, on_tile=on_tile
    )
    return round_to_8bit(lr) if Capability.DOWNSCALE in flow.capabilities else lr.clamp(0, 1)


def encoded_lr_psnr(own: Tensor, lr: Tensor) -> float:
    """PSNR of the flow's own LR image, see :func:`encoded_lr`, against the LR image: RGB, no border, in dB.

    Not to be mixed up with :func:`flowsr.metrics.lr_psnr`, which shrinks a super-resolved image.

    Args:
        own: of :func:`encoded_lr`, ``(C, h, w)``.
        lr: what it should look like, ``(C, h, w)``.

    Raises:
        ValueError: if sizes do not match, or values are not finite.

    Example:
        >>> print(f"{encoded_lr_psnr(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)):.1f}")
        20.0
    """
    return float(psnr(own, lr.to(own), border=0))
