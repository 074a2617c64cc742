"""HCFlow: one bijection between an HR image and its LR image with a Gaussian latent per level."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.models.build import build_hierarchy
from flowsr.models.config import PRESETS, HCFlowConfig
from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.models.latents import Latents
from flowsr.models.start import Start, haar_start
from flowsr.models.terms import pooled

__all__ = ["HCFlow", "Latents"]


class HCFlow(HierarchyModel):
    """Hierarchical conditional flow for super-resolution or rescaling.

    The model of an HR image x given its LR image y* is ::

        p(x | y*) = N(y; y*, σ²) · Π_l N(z_l; 0, 1) · |det ∂(y, z)/∂x|,   σ = e^-6 approximating δ(y − y*).

    Images are float tensors in [0, 1] of shape ``(*batch, C, H, W)`` with H and W multiples of the upscale factor.

    Args:
        config: the architecture, see :class:`HCFlowConfig`.
        start: initial weights, "rotation" (as published) or "haar" (the LR image is a box average from the first
            step); couplings start at the identity in both.

    Attributes:
        config: the architecture.
        transform: the packed :class:`flowsr.transforms.Hierarchy`, latent to image.
        provenance: free-form facts about the weights that travel with the file, see :func:`flowsr.save`.

    References:
        Liang et al., Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image
        Rescaling (ICCV 2021), arXiv 2108.05301.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> lr = torch.rand(2, 3, 6, 8)
        >>> flow.sample(lr, num_samples=5, temperature=0.8).shape
        torch.Size([5, 2, 3, 24, 32])
        >>> flow.condition(lr).log_prob(torch.rand(2, 3, 24, 32)).shape
        torch.Size([2])
    """

    config_class = HCFlowConfig
    presets: ClassVar[dict[str, HCFlowConfig]] = PRESETS
    starts: ClassVar[tuple[str, ...]] = ("rotation", "haar")
    config: HCFlowConfig

    def __init__(self, config: HCFlowConfig, *, start: Start = "rotation") -> None:
        super().__init__(config)
        if start not in ("rotation", "haar"):
            raise ValueError(f"expected start to be rotation or haar; got {start!r}")
        if start == "haar" and config.mixing != "dense":
            raise ValueError(
                "expected mixing dense with start haar, which sets the weights of dense 1x1 convolutions; got mixing "
                f"{config.mixing!r}: use start='rotation'"
            )
        self.transform = build_hierarchy(config)
        self.log_width = nn.Parameter(torch.tensor(-6.0)) if config.learned_lr_width else None
        if start == "haar":
            haar_start(self.transform)

    @property
    def lr_log_scale(self) -> float | Tensor:
        """log σ, the width of the LR image in :meth:`condition` where none is given: −6, or the learned one."""
        return -6.0 if self.log_width is None else self.log_width

    @classmethod
    def from_preset(cls, name: str, *, start: Start = "rotation", **changes: Any) -> "HCFlow":
        """A model with random weights from a named configuration.

        Args:
            name: sr-x4, sr-x8, rescaling-x4, or one of them with ``-small``.
            start: initial weights, see the class.
            **changes: fields of :class:`HCFlowConfig` to change, for example ``image_channels=1``.

        Raises:
            ValueError: for an unknown preset, or a change to something that is not a field.

        Example:
            >>> HCFlow.from_preset("sr-x8-small", image_channels=1).sample(torch.rand(1, 2, 3)).shape
            torch.Size([1, 1, 16, 24])
        """
        return cls(cls.preset(name, **changes), start=start)

    def lr_features(self, lr: Tensor) -> Tensor:
        """What the coarsest conditional flow sees in an LR image: mean and deviation of its features, ``(*batch, F)``.

        Cost: the coarsest encoder.

        Raises:
            ValueError: on wrong shape, dtype or values.
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        return pooled(self.transform.conditionals[-1].features(lr.to(self.dtype)))
