"""The hierarchy: all levels of HCFlow as one bijection between an image and one packed latent.

    image (C, H, W)  <->  [ LR image (C) | z_L | … | z_1 ]  of shape (C·s², H/s, W/s),   s = 2^L

Level by level, fine to coarse, the main flow splits an image into a coarser one and its details. Then, coarse to
fine, a conditional flow turns each level's details into a standard normal latent, given features of what is coarser.
z_L is the latent of the coarsest level; finer latents are moved to LR resolution by space-to-depth.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from flowsr._support.shapes import add_ladj, check_image_shape, constant_ladj
from flowsr.nn import channels_last
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.levels import ConditionalLevel, UnconditionalLevel, stack_context
from flowsr.transforms.pixel_shuffle import pack_latents, unpack_latents


class Encoding(NamedTuple):
    """What the hierarchy finds in an image: LR image, latents, and log-determinants per level, coarse to fine.

    Attributes:
        lr: the flow's LR image, ``(*batch, C, H/s, W/s)``.
        z: latents, coarsest level first.
        ladj_main: log-determinant of each level's main flow (image to latent, nats), each of the batch's shape.
        ladj_steps: of each level's conditional steps.
        ladj_head: of each level's head.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj_main: tuple[Tensor, ...]
    ladj_steps: tuple[Tensor, ...]
    ladj_head: tuple[Tensor, ...]

    @property
    def ladj(self) -> Tensor:
        """``log|det ∂(lr, z)/∂hr|`` in nats: the sum of all parts."""
        return add_ladj((*self.ladj_main, *self.ladj_steps, *self.ladj_head))


class Hierarchy(ImageTransform):
    """All levels as one transform from the packed latent to the image.

    Cost: every level once; the coarse ones work on fewer pixels.

    Args:
        mains: one transform per level, finest first, from ``[kept | details]`` at half the resolution to an image.
        conditionals: the conditional level of each, finest first.
        image_channels: channels C of the image and of the LR image.
        scale: the factor s between image and LR image; by default ``2^L``, one halving per level.
        hierarchical: give each conditional level the features of the coarser ones; otherwise only what its own main
            flow keeps.

    Raises:
        ValueError: if there are no levels, or not as many mains as conditionals; for images whose sides are not
            multiples of s or latents with other than ``C·4^L`` channels.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr
        >>> hierarchy = flowsr.HCFlow.from_preset("sr-x4-small").transform
        >>> hierarchy.forward_shape(torch.Size([48, 10, 12]))
        torch.Size([3, 40, 48])
    """

    def __init__(
        self,
        mains: Sequence[ImageTransform],
        conditionals: Sequence[ConditionalLevel | UnconditionalLevel],
        *,
        image_channels: int,
        scale: int | None = None,
        hierarchical: bool = True,
    ) -> None:
        super().__init__()
        if not mains or len(mains) != len(conditionals):
            raise ValueError(
                f"expected as many mains as conditionals, at least one; got {len(mains)} and {len(conditionals)}"
            )
        self.image_channels = image_channels
        self.scale = 2 ** len(mains) if scale is None else scale
        self.hierarchical = hierarchical
        self.mains = cast("Sequence[ImageTransform]", nn.ModuleList(mains))
        self.conditionals = cast("Sequence[ConditionalLevel | UnconditionalLevel]", nn.ModuleList(conditionals))

    def encode(self, x: Tensor) -> Encoding:
        """Encode an image, keeping the parts of the latent and of the log-determinant apart. Cost: one pass."""
        self.inverse_shape(x.shape)
        images, details, ladj_main = [], [], []
        for main, conditional in zip(self.mains, self.conditionals, strict=True):
            packed, ladj = main.inv_call_and_ladj(x)
            x, a = packed.split((packed.shape[-3] - conditional.channels, conditional.channels), -3)
            images.append(x)
            details.append(a)
            ladj_main.append(ladj)
        latents, ladj_steps, ladj_head = [], [], []
        features: list[Tensor] = []
        for image, a, conditional in zip(reversed(images), reversed(details), reversed(self.conditionals), strict=True):
            u = conditional.features(stack_context(image, features if self.hierarchical else ()))
            z, steps, head = conditional.inv_call_with_features(a, u)
            latents.append(z)
            ladj_steps.append(steps)
            ladj_head.append(head)
            features.insert(0, u)
        return Encoding(x, tuple(latents), tuple(reversed(ladj_main)), tuple(ladj_steps), tuple(ladj_head))

    def decode(self, lr: Tensor, z: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Generate from LR image and latents (coarsest first): ``(x, log|det ∂x/∂(lr, z)|)``.

        The latents may have more leading batch dimensions than the LR image, as for many draws given one image; the
        coarsest level's features are then computed once for all draws.
        """
        batch = z[0].shape[:-3]
        total = constant_ladj(z[0], 0.0)
        image = lr
        features: list[Tensor] = []
        for latent, main, conditional in zip(z, reversed(self.mains), reversed(self.conditionals), strict=True):
            u = conditional.features(stack_context(image, features if self.hierarchical else ()))
            a, conditional_ladj = conditional.call_with_features(channels_last(latent), u)
            packed = torch.cat([channels_last(image).expand(*batch, *image.shape[-3:]), a], -3)
            image, main_ladj = main.call_and_ladj(packed)
            total = add_ladj((total, conditional_ladj, main_ladj))
            features.insert(0, u)
        return image, total

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an LR image of this height and width."""
        return tuple(
            torch.Size([conditional.channels, height * 2**i, width * 2**i])
            for i, conditional in enumerate(reversed(self.conditionals))
        )

    def pack(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        """Put LR image and latents (coarsest first) into one tensor ``(*batch, C·s², h, w)``."""
        return pack_latents([lr, *z], self._factors)

    def unpack(self, packed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take a packed latent apart: LR image and latents, coarsest first."""
        self.forward_shape(packed.shape)
        channels = [conditional.channels for conditional in reversed(self.conditionals)]
        lr, *z = unpack_latents(packed, [self.image_channels, *channels], self._factors)
        return lr, tuple(z)

    @property
    def _factors(self) -> list[int]:
        return [1, *(2**i for i in range(len(self.conditionals)))]

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.decode(*self.unpack(z))

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        encoding = self.encode(x)
        return self.pack(encoding.lr, encoding.z), encoding.ladj

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        channels = self.image_channels * self.scale**2
        check_image_shape(shape, channels=channels, name="the packed latent")
        *batch, _, height, width = shape
        return torch.Size([*batch, self.image_channels, height * self.scale, width * self.scale])

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, channels=self.image_channels, multiple=self.scale, name="the HR image")
        *batch, _, height, width = shape
        channels = self.image_channels * self.scale**2
        return torch.Size([*batch, channels, height // self.scale, width // self.scale])
