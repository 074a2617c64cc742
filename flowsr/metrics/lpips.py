"""LPIPS: distance in the features of a classifier, or an honest "not available".

LPIPS needs the ImageNet weights of its backbone, which no package ships. Nothing is downloaded here: it uses a
local file, yours or the one torchvision has already cached, and otherwise returns no number and the reason. Random
backbone weights would give a number that looks like LPIPS and is not.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsr._support.backbones import cached_backbone, read_backbone
from flowsr.errors import CheckpointError, quoted, what_is_at
from flowsr.images import size_text
from flowsr.metrics.fidelity import paired

Backbone = Literal["alex", "vgg", "squeeze"]

# The files torchvision downloads; the published LPIPS figures are those of exactly these weights.
_TORCHVISION_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
SMALLEST_SIDE = 32
"""Of images that LPIPS can compare, in pixels; below, the backbones' pooling runs out of them."""


@dataclass(frozen=True)
class PerceptualDistance:
    """A perceptual distance, or why there is none.

    Attributes:
        value: One distance per image (0 is identical, float32), shape ``(*batch)``; None if not available.
        available: Whether there is a value.
        reason: Empty if available; else what is missing and how to provide it.

    Example:
        >>> PerceptualDistance(None, False, "no weights")
        PerceptualDistance(value=None, available=False, reason='no weights')
    """

    value: Tensor | None
    available: bool
    reason: str = ""


def lpips_distance(
    a: Float[Tensor, "*batch_a 3 height width"],
    b: Float[Tensor, "*batch_b 3 height width"],
    *,
    net: Backbone = "alex",
    weights: str | PathLike[str] | None = None,
) -> PerceptualDistance:
    """LPIPS (version 0.1) between RGB images, if the backbone's weights are on this machine.

    Images are compared as given, without rounding, border or resizing, on the device of ``a``.

    Cost: two passes of the backbone in float32, no gradients. The network is kept between calls.

    Args:
        a: RGB in [0, 1], shape ``(*batch, 3, H, W)``, both sides at least 32.
        b: The same H and W; batch shapes broadcast.
        net: The backbone: "alex" is what super-resolution papers report.
        weights: A torchvision state dict of the backbone (alexnet, vgg16 or squeezenet1_1), read with
            ``weights_only=True``. None looks in torchvision's cache, ``torch.hub.get_dir()/checkpoints``.

    Returns:
        The distances, or a :class:`PerceptualDistance` whose ``reason`` says what is missing, or that the file in the
        cache is not the published one.

    Raises:
        ValueError: If the images do not match, or the file given as ``weights`` is not of that backbone.

    References:
        Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric (CVPR 2018), section 3.

    Example:
        >>> result = lpips_distance(torch.rand(3, 64, 64), torch.rand(3, 64, 64))
        >>> result.available or "alexnet" in result.reason or "lpips" in result.reason
        True
    """
    if net not in _TORCHVISION_FILES:
        raise ValueError(f"net: expected one of {', '.join(_TORCHVISION_FILES)}; got {net!r}")
    a, b = paired(a, b, channels=3)
    if min(a.shape[-2:]) < SMALLEST_SIDE:
        least = size_text((SMALLEST_SIDE, SMALLEST_SIDE))
        raise ValueError(f"expected at least {least} for LPIPS; got {size_text(a.shape[-2:])}")
    if weights is not None and not Path(weights).is_file():
        raise ValueError(f"weights: expected a file; got {weights}, {what_is_at(weights)}")
    if importlib.util.find_spec("lpips") is None:
        return PerceptualDistance(None, False, "the package lpips is not installed: pip install lpips")
    name = _TORCHVISION_FILES[net]
    path = cached_backbone(name) if weights is None else Path(weights)
    if not path.is_file():
        # Reports that are passed on repeat this, so it names no folder of this machine.
        return PerceptualDistance(
            None,
            False,
            f"the backbone's weights are not on this machine: put https://download.pytorch.org/models/{name} into "
            "torchvision's cache, $TORCH_HOME/hub/checkpoints (TORCH_HOME is ~/.cache/torch unless set)",
        )
    try:
        network = _network(net, path.resolve(), path.stat().st_mtime_ns).to(a.device)
    except ValueError as error:
        if weights is not None:
            raise
        return PerceptualDistance(None, False, str(error))
    flat = [2 * x.float().reshape(-1, *x.shape[-3:]) - 1 for x in (a, b)]
    with torch.no_grad():
        values = network(*flat)
    return PerceptualDistance(values.reshape(a.shape[:-3]), True)


@lru_cache(maxsize=3)
def _network(net: Backbone, path: Path, _modified: int) -> nn.Module:
    """LPIPS with its learned linear layers, which the package ships, on the backbone weights of a file."""
    import lpips

    try:
        weights = read_backbone(path, what=f"torchvision's weights of the backbone {net!r}")
    except CheckpointError as error:
        raise ValueError(f"weights: {error}") from error
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # lpips calls torchvision in a deprecated way
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips cuts torchvision's `features` into slices but keeps their numbers: slice2.3.weight is features.3.weight.
    backbone = network.net.state_dict()
    try:
        network.net.load_state_dict({key: weights["features." + key.split(".", 1)[1]] for key in backbone})
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"weights: expected a torchvision state dict of the backbone {net!r} in {path}; got another "
            f"({quoted(error)})"
        ) from None
    return network.requires_grad_(False).eval()
