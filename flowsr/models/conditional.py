"""What models of HR images given an LR image share: latents of known shapes, decoding, and draws."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from flowsr._support.shapes import check_image_shape, check_same_batch, size_text
from flowsr.distributions import FlowDistribution, PackedNormal, Temperature, split_levels
from flowsr.images import check_image, crop_to, pad_to_multiple
from flowsr.models.capabilities import Capability
from flowsr.models.image_model import ImageModel
from flowsr.models.latents import Latents, check_latents, check_num_samples
from flowsr.models.tiling import Tile, Tiling


class ConditionalModel(ImageModel):
    """Base of the models of an HR image given its LR image: HCFlow, IRN and SRFlow.

    A subclass defines :meth:`condition`, :meth:`encode`, :meth:`latent_shapes`, :meth:`latent_levels`,
    ``decode_unchecked``, and what its latent is packed of: ``_latents`` and ``_unpack``.
    """

    calls = "flow.sample(lr) for HR images, flow.condition(lr) for their distribution, or flow.encode(hr) for latents"
    instead: ClassVar[dict[str, str]] = {
        "log_prob": "flow.condition(lr).log_prob(hr), as the density is of HR images given an LR image",
        "distribution": "flow.condition(lr), as the density is of HR images given an LR image",
    }

    @property
    def capabilities(self) -> frozenset[Capability]:
        """A density of HR images given an LR image."""
        return frozenset({Capability.CONDITION})

    @property
    def upscale(self) -> int:
        """The upscale factor s, of height and width."""
        return self.config.upscale

    @property
    def multiple(self) -> int:
        """What height and width of an HR image must be multiples of: the upscale factor."""
        return self.upscale

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an LR image of this height and width."""
        raise NotImplementedError

    def latent_levels(self) -> tuple[int, ...]:
        """The level that each latent belongs to, coarsest first; 1 is the finest."""
        raise NotImplementedError

    def condition(self, lr: Tensor, *, temperature: Temperature = 1.0, **_options: Any) -> FlowDistribution:
        """The posterior over HR images given an LR image, as a Pyro distribution."""
        raise NotImplementedError

    def encode(self, hr: Tensor, lr: Tensor | None = None, *, pad: bool = False) -> Latents:
        """Latents of an HR image, given its LR image where the model is conditioned on it (SRFlow)."""
        raise NotImplementedError

    def decode(self, lr: Tensor | Latents, z: Sequence[Tensor] | None = None) -> Tensor:
        """HR image from LR image and latents, the exact inverse of ``encode``.

        Cost: one pass through the flow. Features of the LR image are computed once for all its draws.

        Args:
            lr: LR image ``(*batch, C, h, w)``, or the result of ``encode``, which is cropped back to its size.
            z: latents, coarsest first, each ``(*sample, *batch, …)`` with the event shapes of :meth:`latent_shapes`;
                None for zeros (temperature 0).

        Returns:
            HR image ``(*sample, *batch, C, s·h, s·w)``, not clamped.

        Raises:
            ValueError: on wrong shapes, dtype or values.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.

        Example:
            >>> import flowsr
            >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(3, 18, 23)
            >>> torch.allclose(flow.decode(flow.encode(hr, pad=True)), hr, atol=1e-3)
            True
            >>> flow.decode(torch.rand(3, 5, 6)).shape  # z = 0
            torch.Size([3, 20, 24])
        """
        if isinstance(lr, Latents):
            if z is not None:
                raise ValueError("expected either Latents or an LR image with z; got both")
            return crop_to(self.decode(lr.lr, lr.z), lr.size)
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=16.0)
        lr = lr.to(self.dtype)
        shapes = self.latent_shapes(*lr.shape[-2:])
        if z is None:
            z = [lr.new_zeros(*lr.shape[:-3], *shape) for shape in shapes]
        check_latents(z, shapes, batch=lr.shape[:-3])
        return self.decode_unchecked(lr, [latent.to(lr.dtype) for latent in z])

    def draw_latents(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        sample_shape: Sequence[int] = (),
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Draw latents ``z_l ~ N(0, τ_l²)``, independent of each other, for :meth:`decode`.

        They are those that :meth:`sample` decodes. The noise is made draw after draw in float64, see
        :func:`flowsr.distributions.draw_noise`, so that one seed gives the same draws, up to rounding, in any dtype
        and, with a generator of the CPU, on any device.

        Cost: one normal number per entry.

        Args:
            lr: LR image, of which only the shape matters.
            sample_shape: draws per LR image.
            temperature: τ ≥ 0 for all levels, or one per level, coarse to fine.
            generator: source of randomness; the global one of the weights' device by default.

        Returns:
            Latents, coarsest first, ``(*sample_shape, *batch, …)``, of the weights' dtype.

        Raises:
            ValueError: on a wrong shape of ``lr``, or a negative temperature.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3; Kingma and Dhariwal, Glow (NeurIPS 2018), section 6, for τ.

        Example:
            >>> import flowsr
            >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(2, 3, 6, 8)
            >>> z = flow.draw_latents(lr, sample_shape=(5,), temperature=(0.9, 0.5))
            >>> [tuple(latent.shape) for latent in z]
            [(5, 2, 21, 6, 8), (5, 2, 6, 12, 16)]
            >>> flow.decode(lr, z).shape
            torch.Size([5, 2, 3, 24, 32])
        """
        check_image_shape(lr.shape, channels=self.config.image_channels, name="lr")
        base = self._latents(lr.to(self.device, self.dtype), temperature=temperature)
        check_drawable(base)
        return self._unpack(base.rsample(sample_shape, generator=generator))[1]

    def sample(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        num_samples: int = 1,
        temperature: Temperature = 1.0,
        lr_log_scale: float | Tensor = -math.inf,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num_samples *batches channels height width"]:
        """Draw HR images: ``hr = decode(y, z)``, ``z_l ~ N(0, τ_l²)``, and y the LR image exactly, or ``N(lr, σ²)``.

        Where the LR image is a part of the latent (HCFlow, IRN) the default is the Dirac limit: not quite the model
        that :meth:`condition` scores, whose LR image has the width σ.

        Draw k of a seed is the same image, up to rounding, however many are asked for, and whoever asks: :meth:`stream`
        and ``condition(lr, …).sample((n,))`` give it too. It is that at another temperature or σ with the same noise.

        An LR image whose sides the model does not take, as odd ones for SRFlow, is padded by reflection at the bottom
        and the right, and the draws are cropped.

        Cost: one decoding pass for all draws together; memory grows with their number, see :meth:`stream`.

        Args:
            lr: LR image in [0, 1].
            num_samples: number of draws per LR image.
            temperature: τ ≥ 0 for all levels, or one per level, coarse to fine.
            lr_log_scale: log σ of the LR image; ``-inf`` is σ = 0. Only for models that have one in their latent.
            generator: source of randomness; the global one by default.

        Returns:
            HR images ``(num_samples, *batch, C, s·h, s·w)``, not clamped; a batch of temperatures or widths broadcasts
            with that of ``lr``.

        Raises:
            ValueError: on wrong shape, dtype or values of ``lr``, fewer than one draw, a negative temperature, or a
                width of an LR image that is no part of the latent.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3; Lugmayr et al., SRFlow (ECCV 2020), section 3.

        Example:
            >>> import flowsr
            >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(3, 6, 8)
            >>> draws = flow.sample(lr, num_samples=2, temperature=0.8, generator=torch.Generator().manual_seed(0))
            >>> draws.shape, torch.allclose(flow.encode(draws).lr, lr.expand(2, 3, 6, 8), atol=1e-3)
            (torch.Size([2, 3, 24, 32]), True)
        """
        check_num_samples(num_samples)
        given, base = self._given(lr, temperature, lr_log_scale)
        noise = base.draw_noise((num_samples,), generator=generator)
        hr = self.decode_noise(given, noise, temperature=temperature, lr_log_scale=lr_log_scale)
        return crop_to(hr, (self.upscale * lr.shape[-2], self.upscale * lr.shape[-1]))

    def stream(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        num_samples: int,
        temperature: Temperature = 1.0,
        lr_log_scale: float | Tensor = -math.inf,
        generator: torch.Generator | None = None,
        tiling: Tiling | None = None,
        levels: bool = False,
        on_tile: Callable[[], None] | None = None,
    ) -> Iterator[Tensor]:
        """Draw HR images one after the other: the draws of :meth:`sample`, in memory for one, and without gradients.

        With a tiling, of :func:`flowsr.models.plan_tiles`, an image is decoded tile after tile from one field of noise.

        Cost: one decoding pass per draw; by tiles, what their halos overlap besides.

        Args:
            lr: LR image in [0, 1].
            num_samples: number of draws; at temperature 0 they are all the same.
            temperature: see :meth:`sample`, as for ``lr_log_scale`` and ``generator``.
            lr_log_scale: log σ of the LR image.
            generator: source of randomness.
            tiling: how to cut the image; by default it is decoded whole.
            levels: give grey levels, ``torch.uint8``, clamped, rounded and interleaved as in files, in less memory.
            on_tile: called after each tile of each draw.

        Returns:
            Iterator of HR images ``(*batch, C, s·h, s·w)``, not clamped.

        Raises:
            ValueError: for fewer than one draw; then as :meth:`sample`, and for a tiling of another size.
            NonFiniteError: for grey levels of a draw that is not finite.

        Example:
            >>> import flowsr
            >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(3, 4, 4)
            >>> draws = flow.stream(lr, num_samples=1000, generator=torch.Generator().manual_seed(0))
            >>> torch.allclose(next(draws), flow.sample(lr, generator=torch.Generator().manual_seed(0))[0], atol=1e-4)
            True
        """
        check_num_samples(num_samples)

        @torch.no_grad()
        def draw() -> Tensor:
            given, base = self._given(lr, temperature, lr_log_scale)
            whole = (self.upscale * lr.shape[-2], self.upscale * lr.shape[-1]), self.multiple
            cut = Tiling.whole(*whole) if tiling is None else tiling.checked(*whole)
            with base.noise_field(generator=generator, on_disk=len(cut) > 1) as noise:

                def decoded(tile: Tile) -> Tensor:
                    part = given[..., *tile.window.times(self.multiple // self.upscale)]
                    window = noise.window(*tile.window)
                    return self.decode_noise(part, window, temperature=temperature, lr_log_scale=lr_log_scale)

                return cut.assemble(decoded, levels=levels, on_tile=on_tile)

        return (draw() for _ in range(num_samples))

    def _given(self, lr: Tensor, temperature: Any, lr_log_scale: float | Tensor) -> tuple[Tensor, PackedNormal]:
        """What is drawn from: the LR image checked, padded to what the model takes, as the weights are; the latents."""
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        self._check_width(lr_log_scale)
        lr = pad_to_multiple(lr, self.multiple // self.upscale)[0].to(self.device, self.dtype)
        latents = self._latents(lr, temperature=temperature, lr_log_scale=lr_log_scale)
        check_drawable(latents)
        return lr, latents

    def decode_noise(
        self, lr: Tensor, noise: Tensor, *, temperature: Temperature = 1.0, lr_log_scale: float | Tensor = -math.inf
    ) -> Tensor:
        """The draws of packed noise, see :func:`flowsr.distributions.draw_noise`, without checks. Cost: a decoding."""
        latents = self._latents(lr, temperature=temperature, lr_log_scale=lr_log_scale)
        y, z = self._unpack(latents.from_noise(noise))
        # One LR image for all draws needs its features once.
        return self.decode_unchecked(lr if y is None or _is_dirac(lr_log_scale) else y, z)

    def _latents(
        self, lr: Tensor, *, temperature: Temperature, lr_log_scale: float | Tensor = -math.inf
    ) -> PackedNormal:
        """The distribution of packed latents given an LR image in the dtype of the weights, whose values count."""
        raise NotImplementedError

    def _unpack(self, packed: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """A packed latent taken apart: the LR image, None where it is no part of it, and latents, coarsest first."""
        raise NotImplementedError

    def _check_width(self, lr_log_scale: float | Tensor) -> None:
        if Capability.LR_LATENT not in self.capabilities and not _is_dirac(lr_log_scale):
            raise ValueError(
                f"expected no lr_log_scale for {type(self).__name__}, which has no LR image in its latent; got "
                f"{lr_log_scale}: leave it out"
            )

    def as_given(self, lr: Tensor, temperature: Temperature) -> tuple[Tensor, Temperature]:
        """LR image and temperature as :meth:`condition` uses them: the image checked, in the dtype of the weights.

        An LR image that carries a gradient may be what an inference proposes, and is not refused for its values. Where
        it is far from all images, or not finite, its temperatures are NaN, so that its density is zero. Within a Pyro
        program, where inference starts from anywhere, one without a gradient is refused only for a wrong scale.

        Raises:
            ValueError: on wrong shape, dtype or, without a gradient, values.
        """
        channels, tolerance = self.config.image_channels, 16.0
        if not lr.requires_grad:
            narrow = tolerance if am_i_wrapped() else 0.25
            check_image(lr, name="lr", channels=channels, tolerance=narrow, empty_batch=True)
            return lr.to(self.device, self.dtype), temperature
        check_image_shape(lr.shape, channels=channels, name="lr")
        lr = lr.to(self.device, self.dtype)
        fits = (lr >= -tolerance) & (lr <= 1 + tolerance)
        taus = split_levels(temperature, len(self.latent_levels()))
        possible = fits.flatten(-3).all(-1)
        # At zero there is no density in any case, and sampling stays deterministic.
        kept = [isinstance(tau, float) and tau == 0 for tau in taus]
        tensors = [torch.as_tensor(tau, dtype=lr.dtype, device=lr.device) for tau in taus]
        given = [
            tau if keep else torch.where(possible, tensor, torch.nan)
            for tau, keep, tensor in zip(taus, kept, tensors, strict=True)
        ]
        return torch.where(fits, lr, 0.5), tuple(given)

    def check_pair(self, hr: Tensor, lr: Tensor | None, *, tolerance: float | None = 16.0) -> Tensor:
        """Raise ValueError unless ``hr`` is an HR image and ``lr`` an LR image of its size; returns the LR image."""
        if lr is None:
            raise ValueError("expected an LR image, as this model is conditional; got none")
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=tolerance)
        check_image_shape(hr.shape, multiple=self.upscale, name="the HR image")
        self._check_lr(lr, hr, tolerance=0.25)
        return lr.to(self.dtype)

    def _encoded_pair(self, hr: Tensor, lr: Tensor | None, *, pad: bool) -> tuple[Tensor, Tensor | None]:
        """HR and LR image to encode, checked, padded where asked for, in the dtype of the weights."""
        # Decoded images overshoot [0, 1], and must encode: only a wrong scale is refused.
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=16.0)
        if pad:
            hr = pad_to_multiple(hr, self.multiple)[0]
        check_image_shape(hr.shape, multiple=self.multiple, name="the HR image")
        if lr is None:
            return hr.to(self.dtype), None
        if pad:
            lr = pad_to_multiple(lr, self.multiple // self.upscale)[0]
        self._check_lr(lr, hr, tolerance=16.0)
        return hr.to(self.dtype), lr.to(self.dtype)

    def _check_lr(self, lr: Tensor, hr: Tensor, *, tolerance: float) -> None:
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=tolerance)
        size = (hr.shape[-2] // self.upscale, hr.shape[-1] // self.upscale)
        if tuple(lr.shape[-2:]) != size:
            raise ValueError(f"expected an lr of {size_text(size)} for this hr; got {size_text(lr.shape[-2:])}")
        check_same_batch(hr.shape, lr.shape)

    def decode_unchecked(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        """:meth:`decode` without its checks, for images and latents in the dtype of the weights."""
        raise NotImplementedError


def _is_dirac(lr_log_scale: float | Tensor) -> bool:
    # A tensor may hold several widths, and is not looked at.
    return not isinstance(lr_log_scale, Tensor) and lr_log_scale == -math.inf


def check_drawable(base: PackedNormal) -> None:
    """Raise ValueError if a tensor among the arguments is no temperature or log σ: no image is drawn from it.

    A density is zero there, so that inference goes on; a draw would be NaN, or as of another temperature.
    """
    if any(isinstance(value, Tensor) for value in (*base.temperature, base.lr_log_scale)):
        good = base.scale.isfinite() & (base.scale >= 0)
        if not bool(good.all()):
            raise ValueError(
                "expected finite temperatures >= 0, and lr_log_scale of at most 40, to draw from; got tensors with "
                f"{int((~good).flatten(-3).any(-1).sum())} of {good.flatten(-3).any(-1).numel()} in the batch beyond"
            )


def as_conditional(flow: ImageModel) -> ConditionalModel | None:
    """The model itself if it has the capability ``condition``, else None: a density of images alone."""
    return cast(ConditionalModel, flow) if Capability.CONDITION in flow.capabilities else None


def require_conditional(flow: ImageModel, *, what: str) -> ConditionalModel:
    """The model itself; raises ValueError, naming what it was wanted for, if it is a density of images alone.

    Example:
        >>> from flowsr.models import IRN
        >>> require_conditional(IRN.from_preset("irn-x4-small"), what="sampling").upscale
        4
    """
    conditional = as_conditional(flow)
    if conditional is None:
        raise ValueError(
            f"expected a model of HR images given their LR images for {what}, such as sr-x4-small; got "
            f"{type(flow).__name__}, a density of images alone: take another model, or use what such a density "
            "offers, flowsr score, flowsr evaluate, and in Python flow.sample((height, width))"
        )
    return conditional
