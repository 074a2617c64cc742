"""HCFlow: one bijection between an HR image and its LR image with a Gaussian latent per level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsr._shapes import check_image_shape, check_same_batch, sum_event
from flowsr.distributions import FlowDistribution, PackedNormal, Temperature, level_temperatures, normal_log_prob
from flowsr.images import check_image, crop_to, pad_to_multiple
from flowsr.models.build import build_hierarchy
from flowsr.models.config import HCFlowConfig, preset
from flowsr.models.start import Start, haar_start
from flowsr.models.terms import LRLikelihood, Term, TermKind, lr_term
from flowsr.nn import initialize_from_data


@dataclass(frozen=True)
class Latents:
    """What an image is under the flow.

    Attributes:
        lr: the flow's own LR image, ``(*batch, C, H/s, W/s)``; close to the bicubic one after training.
        z: latents, coarsest level first; level i has resolution ``2^i`` times that of ``lr``.
        ladj: ``log|det ∂(lr, z)/∂hr|`` in nats, of the batch's shape.
        size: height and width of the image before padding.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


class HCFlow(nn.Module):
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

    def __init__(self, config: HCFlowConfig, *, start: Start = "rotation") -> None:
        super().__init__()
        if not isinstance(config, HCFlowConfig):
            raise ValueError(f"expected an HCFlowConfig; got {config!r}: for a preset use HCFlow.from_preset")
        if start not in ("rotation", "haar"):
            raise ValueError(f"expected start to be rotation or haar; got {start!r}")
        self.config = config
        self.transform = build_hierarchy(config)
        self.provenance: dict[str, Any] = {}
        if start == "haar":
            haar_start(self.transform)

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
        unknown = sorted(set(changes) - {field.name for field in fields(HCFlowConfig)})
        if unknown:
            raise ValueError(f"expected changes to fields of HCFlowConfig; got {', '.join(unknown)}")
        return cls(replace(preset(name), **changes), start=start)

    @property
    def upscale(self) -> int:
        """The upscale factor s = 2^L."""
        return self.config.upscale

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def encode(self, hr: Float[Tensor, "*batch channels height width"], *, pad: bool = False) -> Latents:
        """LR image and latents of an HR image, with the log-determinant.

        Cost: one pass through the flow.

        Args:
            hr: HR image in [0, 1].
            pad: pad sides that are not multiples of the upscale factor at the bottom and the right by reflection;
                :meth:`decode` crops back. The log-determinant is then that of the padded image.

        Raises:
            ValueError: on wrong shape, dtype, or values (not finite, or far out of [0, 1], as for 0 to 255).

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.1.

        Example:
            >>> latents = HCFlow.from_preset("sr-x4-small").encode(torch.rand(2, 3, 16, 24))
            >>> latents.lr.shape, [tuple(z.shape) for z in latents.z], latents.ladj.shape
            (torch.Size([2, 3, 4, 6]), [(2, 21, 4, 6), (2, 6, 8, 12)], torch.Size([2]))
        """
        # Decoded images overshoot [0, 1], and must encode: only a wrong scale is refused.
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=16.0)
        size = (hr.shape[-2], hr.shape[-1])
        if pad:
            hr, _ = pad_to_multiple(hr, self.upscale)
        encoding = self.transform.encode(hr.to(self.dtype))
        return Latents(encoding.lr, encoding.z, encoding.ladj, size)

    def decode(self, lr: Tensor | Latents, z: Sequence[Tensor] | None = None) -> Tensor:
        """HR image from LR image and latents, the exact inverse of :meth:`encode`.

        Cost: one pass through the flow. The coarsest features are computed once for all draws of one LR image.

        Args:
            lr: LR image ``(*batch, C, h, w)``, or the result of :meth:`encode`, which is cropped back to its size.
            z: latents, coarsest first, ``(*sample, *batch, C_l, 2^i·h, 2^i·w)``; None for zeros (temperature 0).

        Returns:
            HR image ``(*sample, *batch, C, s·h, s·w)``, not clamped.

        Raises:
            ValueError: on wrong shapes, dtype or values.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.1.

        Example:
            >>> flow, hr = HCFlow.from_preset("sr-x4-small"), torch.rand(3, 18, 23)
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
        shapes = self.transform.latent_shapes(*lr.shape[-2:])
        if z is None:
            z = [lr.new_zeros(*lr.shape[:-3], *shape) for shape in shapes]
        self._check_latents(lr, z, shapes)
        return self.transform.decode(lr, [latent.to(lr.dtype) for latent in z])[0]

    def draw_latents(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        sample_shape: Sequence[int] = (),
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Draw latents ``z_l ~ N(0, τ_l²)``, independent of each other, for :meth:`decode`.

        The noise is made in float32 on the generator's device and then moved, so that one seed gives the same draws, up
        to rounding, in any dtype and, with a generator of the CPU, on any device.

        Cost: one normal number per entry.

        Args:
            lr: LR image, of which only shape and device matter.
            sample_shape: draws per LR image.
            temperature: τ ≥ 0 for all levels, or one per level, coarse to fine.
            generator: source of randomness; the global one of the LR image's device by default.

        Returns:
            Latents, coarsest first, ``(*sample_shape, *batch, C_l, 2^i·h, 2^i·w)``, of the weights' dtype.

        Raises:
            ValueError: on a wrong shape of ``lr``, or a negative temperature.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.2; Kingma and Dhariwal, Glow (NeurIPS 2018), section 6, for τ.

        Example:
            >>> flow, lr = HCFlow.from_preset("sr-x4-small"), torch.rand(2, 3, 6, 8)
            >>> z = flow.draw_latents(lr, sample_shape=(5,), temperature=(0.9, 0.5))
            >>> [tuple(latent.shape) for latent in z]
            [(5, 2, 21, 6, 8), (5, 2, 6, 12, 16)]
            >>> flow.decode(lr, z).shape
            torch.Size([5, 2, 3, 24, 32])
        """
        check_image_shape(lr.shape, channels=self.config.image_channels, name="lr")
        shapes = self.transform.latent_shapes(*lr.shape[-2:])
        temperatures = level_temperatures(temperature, len(shapes))
        place = lr.device if generator is None else generator.device
        latents = []
        for tau, shape in zip(temperatures, shapes, strict=True):
            size = (*sample_shape, *lr.shape[:-3], *shape)
            noise = torch.randn(size, dtype=torch.float32, device=place, generator=generator)
            latents.append(tau * noise.to(lr.device, self.dtype))
        return tuple(latents)

    def sample(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        num_samples: int = 1,
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num_samples *batch channels height width"]:
        """Draw HR images as HCFlow does: y is the LR image exactly (the Dirac limit), ``z_l ~ N(0, τ_l²)``.

        This is not quite the model that :meth:`condition` scores, whose y has the width σ.

        Cost: one decoding pass for all draws together; memory grows with their number.

        Args:
            lr: LR image in [0, 1].
            num_samples: number of draws per LR image.
            temperature: τ ≥ 0 for all levels, or one per level, coarse to fine.
            generator: source of randomness; the global one by default.

        Returns:
            HR images ``(num_samples, *batch, C, s·h, s·w)``, not clamped.

        Raises:
            ValueError: on wrong shape, dtype or values of ``lr``, fewer than one draw, or a negative temperature.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.2.

        Example:
            >>> flow, lr = HCFlow.from_preset("sr-x4-small"), torch.rand(3, 6, 8)
            >>> draws = flow.sample(lr, num_samples=2, temperature=0.8, generator=torch.Generator().manual_seed(0))
            >>> draws.shape, torch.allclose(flow.encode(draws).lr, lr.expand(2, 3, 6, 8), atol=1e-3)
            (torch.Size([2, 3, 24, 32]), True)
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        if not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(f"expected an integer num_samples >= 1; got {num_samples!r}")
        z = self.draw_latents(lr, sample_shape=(num_samples,), temperature=temperature, generator=generator)
        return self.transform.decode(lr.to(self.dtype), z)[0]

    def condition(
        self,
        lr: Float[Tensor, "*batch channels h w"],
        *,
        temperature: Temperature = 1.0,
        lr_log_scale: float = -6.0,
    ) -> FlowDistribution:
        """The posterior over HR images given an LR image, as a Pyro distribution.

        Cost: nothing until it is sampled or scored.

        Args:
            lr: LR image in [0, 1]; its batch shape becomes the distribution's.
            temperature: τ ≥ 0 of the latents, global or per level; τ = 1 is the model, at τ = 0 sampling is the
                deterministic decode and there is no density.
            lr_log_scale: log σ of the LR image; ``-inf`` gives the Dirac limit, which can be sampled, not scored.

        Returns:
            Distribution with ``batch_shape = lr.shape[:-3]`` and ``event_shape = (C, s·h, s·w)``.

        Raises:
            ValueError: on wrong shape, dtype or values; from ``log_prob`` where there is no density.

        References:
            Liang et al., HCFlow (ICCV 2021), section 3.2; Bingham et al., Pyro (JMLR 2019).

        Example:
            >>> flow, hr = HCFlow.from_preset("sr-x4-small", start="haar"), torch.rand(2, 3, 16, 16)
            >>> posterior = flow.condition(torch.nn.functional.avg_pool2d(hr, 4))
            >>> posterior.batch_shape, posterior.event_shape, posterior.log_prob(hr).shape
            (torch.Size([2]), torch.Size([3, 16, 16]), torch.Size([2]))
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        shapes = self.transform.latent_shapes(1, 1)
        base = PackedNormal(
            lr.to(self.dtype),
            latent_channels=[shape.numel() for shape in shapes],
            temperature=temperature,
            lr_log_scale=lr_log_scale,
        )
        return FlowDistribution(base, [self.transform])

    def check_pair(self, hr: Tensor, lr: Tensor) -> None:
        """Raise ValueError unless ``hr`` is an HR image and ``lr`` an LR image s times smaller that may be its own."""
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=16.0)
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        shape = self.transform.inverse_shape(hr.shape)
        if lr.shape[-2:] != shape[-2:]:
            raise ValueError(f"expected an lr of size {tuple(shape[-2:])} for this hr; got {tuple(lr.shape[-2:])}")
        check_same_batch(hr.shape, lr.shape)

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float = -6.0,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``: LR image, latents, log-determinants per level, coarse to fine.

        :func:`flowsr.likelihood.decompose` is the way to them. Cost: one encoding pass.

        Raises:
            ValueError: on wrong shapes, dtype or values, or without an LR image.
        """
        if lr is None:
            raise ValueError("expected an LR image, as this model is conditional; got none")
        self.check_pair(hr, lr)
        encoding = self.transform.encode(hr.to(self.dtype))
        levels = range(len(encoding.z), 0, -1)
        latents = [sum_event(normal_log_prob(z)) for z in encoding.z]
        parts: list[tuple[TermKind, Sequence[Tensor]]] = [
            ("latent", latents),
            ("main", encoding.ladj_main),
            ("conditional", encoding.ladj_steps),
            ("head", encoding.ladj_head),
        ]
        first = lr_term(encoding.lr, lr.to(self.dtype), log_scale=lr_log_scale, likelihood=lr_likelihood)
        rest = [Term(kind, value, level) for kind, values in parts for level, value in zip(levels, values, strict=True)]
        return (first, *rest)

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float = -6.0) -> dict[str, Tensor]:
        """The noise that an image would be made from: standard normal under the model, by name, coarse to fine.

        The LR residual ``(y − lr)/σ`` and the latents. Cost: one encoding pass.

        Raises:
            ValueError: on wrong shapes, dtype or values, or without an LR image.
        """
        if lr is None:
            raise ValueError("expected an LR image, as this model is conditional; got none")
        self.check_pair(hr, lr)
        encoding = self.transform.encode(hr.to(self.dtype))
        residual = (encoding.lr - lr.to(self.dtype)) * math.exp(-lr_log_scale)
        levels = range(len(encoding.z), 0, -1)
        return {"LR residual": residual, **{f"z_{level}": z for level, z in zip(levels, encoding.z, strict=True)}}

    def lr_features(self, lr: Tensor) -> Tensor:
        """What the coarsest conditional flow sees in an LR image: mean and deviation of its features, ``(*batch, F)``.

        Cost: the coarsest encoder.

        Raises:
            ValueError: on wrong shape, dtype or values.
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        features = self.transform.conditionals[-1].features(lr.to(self.dtype))
        return torch.cat([features.mean((-2, -1)), features.std((-2, -1), correction=0)], -1)

    def pack(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        """Put LR image and latents into one tensor, the latent that :attr:`transform` maps to the image.

        Cost: copies; no arithmetic.

        Args:
            lr: LR image ``(*batch, C, h, w)``.
            z: latents, coarsest first, ``(*batch, C_l, 2^i·h, 2^i·w)``.

        Returns:
            Packed latent ``(*batch, C·s², h, w)``.

        Raises:
            ValueError: on wrong shapes, dtype or values.

        Example:
            >>> flow, hr = HCFlow.from_preset("sr-x4-small"), torch.rand(3, 16, 16)
            >>> latents = flow.encode(hr)
            >>> packed = flow.pack(latents.lr, latents.z)
            >>> packed.shape, torch.allclose(flow.transform(packed), hr, atol=1e-3)
            (torch.Size([48, 4, 4]), True)
        """
        check_image_shape(lr.shape, channels=self.config.image_channels, name="lr")
        self._check_latents(lr, z, self.transform.latent_shapes(*lr.shape[-2:]))
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
            >>> lr, z = HCFlow.from_preset("sr-x4-small").unpack(torch.rand(48, 4, 6))
            >>> lr.shape, [tuple(latent.shape) for latent in z]
            (torch.Size([3, 4, 6]), [(21, 4, 6), (6, 8, 12)])
        """
        return self.transform.unpack(packed)

    @torch.no_grad()
    def initialize(self, hr: Float[Tensor, "*batch channels height width"]) -> None:
        """Data-dependent initialization of every ActNorm that has not had it, from a first batch of HR images.

        Cost: about two encoding passes. Scoring and sampling never do this by themselves.

        Args:
            hr: several HR images ``(*batch, C, H, W)`` in [0, 1], as they are trained on.

        Raises:
            ValueError: on wrong shape, dtype or values, or images too flat or too small to start from; the weights are
                then as before.

        References:
            Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.

        Example:
            >>> flow, hr = HCFlow.from_preset("sr-x4-small"), torch.rand(4, 3, 32, 32)
            >>> flow.initialize(hr)
            >>> z = flow.encode(hr).z[0]  # latents are now of about unit size
            >>> bool(0.5 < z.std() < 2)
            True
        """
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=0.25)
        before = {name: value.clone() for name, value in self.state_dict().items()}
        with initialize_from_data(self):
            encoding = self.transform.encode(hr.to(self.dtype))
        changed = [value for name, value in self.named_parameters() if not torch.equal(value, before[name])]
        # A channel without variation gets the largest scale there is, exp(-log 1e-6).
        degenerate = any(value.abs().max() > 13.0 for value in changed) or not torch.isfinite(encoding.ladj).all()
        if degenerate:
            self.load_state_dict(before)
            raise ValueError(
                "expected a batch of images in which every channel varies at every level; got one that is flat or has "
                f"too few pixels, of shape {tuple(hr.shape)}: take several larger crops of photographs"
            )

    def _check_latents(self, lr: Tensor, z: Sequence[Tensor], shapes: Sequence[torch.Size]) -> None:
        for latent in z:
            check_image(latent, name="z", tolerance=None)
        got = [tuple(latent.shape) for latent in z]
        batches = {shape[:-3] for shape in got}
        own = tuple(lr.shape[:-3])
        fits = len(batches) == 1 and next(iter(batches))[len(next(iter(batches))) - len(own) :] == own
        if [shape[-3:] for shape in got] != [tuple(shape) for shape in shapes] or not fits:
            raise ValueError(
                f"expected z to be latents of event shapes {[tuple(s) for s in shapes]}, coarsest first, with a batch "
                f"that ends in that of lr, {own}; got shapes {got}"
            )
