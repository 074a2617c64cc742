"""Models in which the LR image is a part of the latent: HCFlow and IRN. One bijection shrinks and enlarges."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr._support.shapes import check_image_shape, sum_event
from flowsr.distributions import FlowDistribution, PackedNormal, Temperature, normal_log_prob
from flowsr.images import round_to_8bit
from flowsr.models.capabilities import Capability, require
from flowsr.models.conditional import ConditionalModel
from flowsr.models.image_model import distribution_of
from flowsr.models.latents import Latents, LRLikelihood, Term, TermKind, check_latents, lr_term
from flowsr.transforms import ConditionalLevel, Hierarchy


class HierarchyModel(ConditionalModel):
    """Base of the models whose transform is a :class:`flowsr.transforms.Hierarchy`: an image is (LR image, latents).

    The model of an HR image x given its LR image y* is ::

        p(x | y*) = N(y; y*, σ²) · Π_l N(z_l; 0, 1) · |det ∂(y, z)/∂x|
    """

    transform: Hierarchy

    @property
    def capabilities(self) -> frozenset[Capability]:
        """A density given an LR image, which is in the latent; if made for rescaling, LR images to keep."""
        rescaling = {Capability.DOWNSCALE} if self.config.task == "rescaling" else set()
        return frozenset({Capability.CONDITION, Capability.LR_LATENT, *rescaling})

    @property
    def lr_log_scale(self) -> float | Tensor:
        """log σ, the width of the LR image in :meth:`condition` where none is given: −6, as published for HCFlow."""
        return -6.0

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an LR image of this height and width."""
        return self.transform.latent_shapes(height, width)

    def latent_levels(self) -> tuple[int, ...]:
        """The level that each latent belongs to, coarsest first; 1 is the finest."""
        return tuple(range(len(self.transform.conditionals), 0, -1))

    def encode(
        self,
        hr: Float[Tensor, "*batch channels height width"],
        lr: Float[Tensor, "*lr_batch channels h w"] | None = None,
        *,
        pad: bool = False,
    ) -> Latents:
        """LR image and latents of an HR image, with the log-determinant.

        Cost: one pass through the flow.

        Args:
            hr: HR image in [0, 1].
            lr: its LR image, which is checked and has no part in the result: the flow finds its own. Models that are
                conditioned on it (SRFlow) need it.
            pad: pad sides that are not multiples of the upscale factor at the bottom and the right by reflection;
                :meth:`decode` crops back. The log-determinant is then that of the padded image.

        Raises:
            ValueError: on wrong shape, dtype, or values (not finite, or far out of [0, 1], as for 0 to 255).

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.

        Example:
            >>> import flowsr
            >>> latents = flowsr.HCFlow.from_preset("sr-x4-small").encode(torch.rand(2, 3, 16, 24))
            >>> latents.lr.shape, [tuple(z.shape) for z in latents.z], latents.ladj.shape
            (torch.Size([2, 3, 4, 6]), [(2, 21, 4, 6), (2, 6, 8, 12)], torch.Size([2]))
        """
        size = (hr.shape[-2], hr.shape[-1])
        encoding = self.transform.encode(self._encoded_pair(hr, lr, pad=pad)[0])
        return Latents(encoding.lr, encoding.z, encoding.ladj, size)

    def condition(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        temperature: Temperature = 1.0,
        lr_log_scale: float | Tensor | None = None,
    ) -> FlowDistribution:
        """The posterior over HR images given an LR image, as a Pyro distribution.

        Cost: nothing until it is sampled or scored.

        Args:
            lr: LR image in [0, 1]; its batch shape becomes the distribution's.
            temperature: τ ≥ 0 of the latents, global or, as a tuple, per level; τ = 1 is the model, at τ = 0 sampling
                is the deterministic decode and there is no density. A tensor keeps its gradient, and its shape is one
                of batches, which broadcasts with that of ``lr``.
            lr_log_scale: log σ of the LR image, a number or a tensor like τ; by default that of the model, see
                :attr:`lr_log_scale`; ``-inf`` gives the Dirac limit, which can be sampled, not scored.

        Returns:
            Distribution with ``batch_shape = lr.shape[:-3]``, or what that and tensors among the arguments broadcast
            to, and ``event_shape = (C, s·h, s·w)``. What an inference proposes and cannot be has log-density −inf.

        Raises:
            ValueError: on wrong shape, dtype or values; from ``log_prob`` where there is no density.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3; Bingham et al., Pyro (JMLR 2019).

        Example:
            >>> import flowsr
            >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), torch.rand(2, 3, 16, 16)
            >>> posterior = flow.condition(torch.nn.functional.avg_pool2d(hr, 4))
            >>> posterior.batch_shape, posterior.event_shape, posterior.log_prob(hr).shape
            (torch.Size([2]), torch.Size([3, 16, 16]), torch.Size([2]))
        """
        lr, temperature = self.as_given(lr, temperature)
        width = self.lr_log_scale if lr_log_scale is None else lr_log_scale
        base = self._latents(lr, temperature=temperature, lr_log_scale=width)
        return distribution_of(self, base, self.transform)

    def _latents(
        self, lr: Tensor, *, temperature: Temperature, lr_log_scale: float | Tensor = -math.inf
    ) -> PackedNormal:
        channels = [shape.numel() for shape in self.latent_shapes(1, 1)]
        return PackedNormal(lr, latent_channels=channels, temperature=temperature, lr_log_scale=lr_log_scale)

    def _unpack(self, packed: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        return self.unpack(packed)

    def pack(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        """Put LR image and latents into one tensor, the latent that ``transform`` maps to the image.

        Cost: copies; no arithmetic.

        Args:
            lr: LR image ``(*batch, C, h, w)``.
            z: latents, coarsest first, ``(*batch, C_l, 2^i·h, 2^i·w)``.

        Returns:
            Packed latent ``(*batch, C·s², h, w)``.

        Raises:
            ValueError: on wrong shapes, dtype or values.

        Example:
            >>> import flowsr
            >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(3, 16, 16)
            >>> latents = flow.encode(hr)
            >>> packed = flow.pack(latents.lr, latents.z)
            >>> packed.shape, torch.allclose(flow.transform(packed), hr, atol=1e-3)
            (torch.Size([48, 4, 4]), True)
        """
        check_image_shape(lr.shape, channels=self.config.image_channels, name="lr")
        check_latents(z, self.latent_shapes(*lr.shape[-2:]), batch=lr.shape[:-3])
        return self.transform.pack(lr, z)

    def unpack(self, packed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take a packed latent apart, the inverse of :meth:`pack`.

        Cost: copies; no arithmetic.

        Args:
            packed: latent ``(*batch, C·s², h, w)``.

        Returns:
            LR image ``(*batch, C, h, w)``, and latents, coarsest first, ``(*batch, C_l, 2^i·h, 2^i·w)``.

        Raises:
            ValueError: on a wrong number of channels.

        Example:
            >>> import flowsr
            >>> lr, z = flowsr.HCFlow.from_preset("sr-x4-small").unpack(torch.rand(48, 4, 6))
            >>> lr.shape, [tuple(latent.shape) for latent in z]
            (torch.Size([3, 4, 6]), [(21, 4, 6), (6, 8, 12)])
        """
        return self.transform.unpack(packed)

    def downscale(self, hr: Float[Tensor, "*batch channels height width"], *, pad: bool = False) -> Tensor:
        """The LR image to keep instead of an HR image: the flow's own, clamped to [0, 1] and rounded to 8 bits.

        Cost: one pass through the flow.

        Args:
            hr: HR image in [0, 1].
            pad: pad sides that are not multiples of the upscale factor, see :meth:`encode`.

        Returns:
            LR image ``(*batch, C, H/s, W/s)`` on the grid of 8-bit files.

        Raises:
            ValueError: for a super-resolution model, and on wrong shape, dtype or values.
        """
        # The LR images of a super-resolution model are bicubic ones, which flowsr.images.bicubic_down makes.
        require(self, Capability.DOWNSCALE)
        return round_to_8bit(self.encode(hr, pad=pad).lr)

    def enlarge(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The HR image back from what :meth:`downscale` made of it: one draw, ``decode(lr, z)``, ``z ~ N(0, τ²)``.

        Cost: one pass through the flow.

        Args:
            lr: LR image in [0, 1].
            temperature: τ ≥ 0 for all levels, or one per level, coarse to fine; 0 is best in PSNR.
            generator: source of randomness; the global one by default.

        Returns:
            HR image ``(*batch, C, s·h, s·w)``, not clamped.
        """
        return self.sample(lr, temperature=temperature, generator=generator)[0]

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``: LR image, latents, log-determinants per level, coarse to fine.

        :func:`flowsr.likelihood.decompose` is the way to them. Cost: one encoding pass.

        Raises:
            ValueError: on wrong shapes, dtype or values, or without an LR image.
        """
        lr = self.check_pair(hr, lr)
        encoding = self.transform.encode(hr.to(self.dtype))
        levels = range(len(encoding.z), 0, -1)
        latents = [sum_event(normal_log_prob(z)) for z in encoding.z]
        width = self.lr_log_scale if lr_log_scale is None else lr_log_scale
        parts: list[tuple[TermKind, Sequence[Tensor]]] = [("latent", latents)]
        parts.append(("main", encoding.ladj_main))
        families = [level.family for level in self.transform.conditionals if isinstance(level, ConditionalLevel)]
        if families:
            parts.append(("conditional", encoding.ladj_steps))
            parts.append(("head", encoding.ladj_head))
        first = lr_term(encoding.lr, lr, log_scale=width, likelihood=lr_likelihood)
        rest = [
            Term(kind, value, level, *families[:1])  # all levels have the same
            for kind, values in parts
            for level, value in zip(levels, values, strict=True)
        ]
        return (first, *rest)

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float | None = None) -> dict[str, Tensor]:
        """The noise that an image would be made from: standard normal under the model, by name, coarse to fine.

        The LR residual ``(y − lr)/σ`` and the latents. Cost: one encoding pass.

        Raises:
            ValueError: on wrong shapes, dtype or values, or without an LR image.
        """
        lr = self.check_pair(hr, lr, tolerance=None)  # draws may have run away, and have their noise all the same
        encoding = self.transform.encode(hr.to(self.dtype))
        width = self.lr_log_scale if lr_log_scale is None else lr_log_scale
        residual = (encoding.lr - lr) * (-torch.as_tensor(width, dtype=self.dtype, device=lr.device)).exp()
        levels = range(len(encoding.z), 0, -1)
        return {"LR residual": residual, **{f"z_{level}": z for level, z in zip(levels, encoding.z, strict=True)}}

    def decode_unchecked(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        return self.transform.decode(lr, z)[0]

    def _encode_ladj(self, hr: Tensor, lr: Tensor | None) -> Tensor:
        return self.transform.encode(hr).ladj
