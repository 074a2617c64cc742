"""The multiscale flow: levels that each halve the resolution and factor out a part of what they find."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from flowsr._support.shapes import add_ladj, check_image_shape, constant_ladj
from flowsr.nn import ZeroConv2d
from flowsr.transforms.base import ImageTransform, SameShapeTransform
from flowsr.transforms.compose import Compose
from flowsr.transforms.coupling import Coupling
from flowsr.transforms.elementwise import AffineMap
from flowsr.transforms.pixel_shuffle import pack_latents, unpack_latents


class LearnedNormal(SameShapeTransform):
    """Learned mean and width per channel; encoding ``z = (x − mean)·exp(−logs)``, ``ladj = −Σ logs``.

    Both come from a convolution of an image of zeros, as in the released code, ``[mean | logs] = conv(0)``: that is the
    convolution's bias, and with ``mark_border`` also how far the border is. The other weights have no effect; they
    are there so that parameters are counted, and files laid out, as published.

    Cost: one 3x3 convolution for a whole batch.

    Args:
        channels: number of channels.
        mark_border: mean and width may differ at the border of the image, see :func:`flowsr.nn.conv2d`.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), released code, ``learntop``.

    Example:
        >>> LearnedNormal(3)(torch.ones(5, 3, 2, 2)).mean().item()  # N(0, 1) at the start
        1.0
    """

    def __init__(self, channels: int, *, mark_border: bool = False) -> None:
        super().__init__(channels)
        self.conditioner = ZeroConv2d(2 * channels, 2 * channels, mark_border=mark_border)
        self.map = AffineMap(form="standardize", log_scale="exp", interleaved=False)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.map.decode(z, self._mean_and_logs(z))

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.map.encode(x, self._mean_and_logs(x))

    def _mean_and_logs(self, x: Tensor) -> Tensor:
        self.inverse_shape(x.shape)
        return self.conditioner(x.new_zeros(2 * self.channels, *x.shape[-2:]))


class MultiscaleEncoding(NamedTuple):
    """What a multiscale flow finds in an image: latents, and log-determinants per level, coarse to fine.

    Attributes:
        z: latents, coarsest first; levels that factor nothing out have none.
        ladj_main: log-determinant of each level (image to latent, nats), each of the batch's shape.
        ladj_head: of each level's Gaussian head.
    """

    z: tuple[Tensor, ...]
    ladj_main: tuple[Tensor, ...]
    ladj_head: tuple[Tensor, ...]

    @property
    def ladj(self) -> Tensor:
        """``log|det ∂z/∂hr|`` in nats: the sum of all parts."""
        return add_ladj((*self.ladj_main, *self.ladj_head))


class Multiscale(ImageTransform):
    """All levels as one transform from the packed latent to the image.

    At level l the main transform makes ``[kept | details]`` of the image; the head standardizes the details given
    what is kept, and the details leave as a latent. The last level keeps nothing back, and has a head only if the
    coarsest latent has a prior of its own.

    The context, if any, is a sequence with the features of each level, finest first.

    Cost: every level once; the coarse ones work on fewer pixels.

    Args:
        mains: one transform per level, finest first, from latent to image.
        kept: channels that go on from each level but the last: its first ones. A level that keeps all factors out
            nothing.
        heads: for each level but the last, a transform of ``[kept | details]`` that leaves ``kept`` alone; the empty
            :class:`Compose` for none.
        top: what standardizes the coarsest latent, for a prior other than N(0, 1); None for that.
        image_channels: channels C of the image.

    Raises:
        ValueError: if the numbers of levels do not fit; for images whose sides are not multiples of the reduction, or
            latents with other than ``C·r²`` channels.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.6; Kingma and Dhariwal, Glow (NeurIPS 2018), figure 2b.

    Example:
        >>> from flowsr.transforms import PixelShuffle
        >>> flow = Multiscale([PixelShuffle(2), PixelShuffle(2)], kept=[6], heads=[Compose([])], image_channels=3)
        >>> flow.latent_shapes(2, 2)
        (torch.Size([24, 2, 2]), torch.Size([6, 4, 4]))
    """

    citations: ClassVar[tuple[str, ...]] = Coupling.citations

    def __init__(
        self,
        mains: Sequence[ImageTransform],
        *,
        kept: Sequence[int],
        heads: Sequence[ImageTransform],
        image_channels: int,
        top: ImageTransform | None = None,
    ) -> None:
        super().__init__()
        if not mains or not len(mains) == len(kept) + 1 == len(heads) + 1:
            raise ValueError(
                "expected at least one main, and kept and heads for all but the last; got "
                f"{len(mains)} mains, {len(kept)} kept and {len(heads)} heads"
            )
        self.image_channels = image_channels
        self.mains = cast("Sequence[ImageTransform]", nn.ModuleList(mains))
        self.heads = cast("Sequence[ImageTransform]", nn.ModuleList([*heads, Compose([]) if top is None else top]))
        # Where each latent lives follows from what the levels do to an image that is large enough.
        side = 2 ** len(mains)
        shape = torch.Size([image_channels, side, side])
        latents: list[tuple[int, int]] = []
        widths: list[int] = []
        for main, count in zip(mains, [*kept, 0], strict=True):
            shape = main.inverse_shape(shape)
            if not 0 <= count <= shape[0] or (count == 0) != (len(widths) == len(kept)):
                raise ValueError(f"expected kept between 1 and {shape[0]} at level {len(widths)}; got {count}")
            widths.append(shape[0])
            if count < shape[0]:
                latents.append((shape[0] - count, side // shape[1]))
            shape = torch.Size([count, *shape[1:]])
        self.widths, self.kept = tuple(widths), (*kept, 0)
        self.scale = latents[-1][1]
        self.latent_channels = tuple(channels for channels, _ in reversed(latents))
        self.factors = tuple(self.scale // reduction for _, reduction in reversed(latents))

    @property
    def latent_levels(self) -> tuple[int, ...]:
        """The level that each latent comes from, coarsest first; 1 is the finest."""
        levels = [level + 1 for level, width in enumerate(self.widths) if self.kept[level] < width]
        return tuple(reversed(levels))

    @property
    def codomain(self) -> Any:
        """The images of the finest level."""
        return self.mains[0].codomain

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for a coarsest level of this height and width."""
        return tuple(
            torch.Size([channels, height * factor, width * factor])
            for channels, factor in zip(self.latent_channels, self.factors, strict=True)
        )

    def encode(self, x: Tensor, context: Sequence[Tensor] | None = None) -> MultiscaleEncoding:
        """Encode an image, keeping the parts of the latent and of the log-determinant apart. Cost: one pass."""
        self.inverse_shape(x.shape)
        latents, ladj_main, ladj_head = [], [], []
        for level, (main, head) in enumerate(zip(self.mains, self.heads, strict=True)):
            x, main_ladj = main.inv_call_and_ladj(x, context[level] if context else None)
            x, head_ladj = head.inv_call_and_ladj(x)
            ladj_main.append(main_ladj)
            ladj_head.append(head_ladj)
            x, z = x.split((self.kept[level], self.widths[level] - self.kept[level]), -3)
            if z.shape[-3]:
                latents.append(z)
        return MultiscaleEncoding(tuple(reversed(latents)), tuple(reversed(ladj_main)), tuple(reversed(ladj_head)))

    def decode(self, z: Sequence[Tensor], context: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Generate from latents, coarsest first: ``(x, log|det ∂x/∂z|)``."""
        remaining = list(z)
        x = remaining[0][..., :0, :, :]
        total = constant_ladj(x, 0.0)
        for level in reversed(range(len(self.mains))):
            if self.kept[level] < self.widths[level]:
                x = torch.cat([x, remaining.pop(0)], -3)
            x, head_ladj = self.heads[level].call_and_ladj(x)
            x, main_ladj = self.mains[level].call_and_ladj(x, context[level] if context else None)
            total = add_ladj((total, head_ladj, main_ladj))
        return x, total

    def pack(self, z: Sequence[Tensor]) -> Tensor:
        """Put the latents (coarsest first) into one tensor ``(*batch, C·r², h, w)``."""
        return pack_latents(z, self.factors)

    def unpack(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Take a packed latent apart: the latents, coarsest first."""
        self.forward_shape(packed.shape)
        return unpack_latents(packed, self.latent_channels, self.factors)

    def call_and_ladj(self, z: Tensor, context: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        return self.decode(self.unpack(z), context)

    def inv_call_and_ladj(self, x: Tensor, context: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        encoding = self.encode(x, context)
        return self.pack(encoding.z), encoding.ladj

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, channels=self.image_channels * self.scale**2, name="the packed latent")
        *batch, _, height, width = shape
        return torch.Size([*batch, self.image_channels, height * self.scale, width * self.scale])

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, channels=self.image_channels, multiple=self.scale, name="the image")
        *batch, _, height, width = shape
        channels = self.image_channels * self.scale**2
        return torch.Size([*batch, channels, height // self.scale, width // self.scale])
