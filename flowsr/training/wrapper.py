"""The module that is trained: a batch in, the loss of one pass out; and what it keeps for the backward pass."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowsr.distributions import uniform_dequantize
from flowsr.models import Capability, ConditionalModel, ImageModel, require
from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.nn import RRDB, BatchStatistics, batch_statistics
from flowsr.training.adversarial import generator_loss
from flowsr.training.crops import Batch, sample_generators
from flowsr.training.objectives import l1_loss, likelihood_loss, rescaling_loss
from flowsr.training.recipes import Recipe, sets_lr_width
from flowsr.transforms import Compose
from flowsr.transforms.reversible import MEMORY_MODES, Memory

Seen = dict[str, Tensor]

# Names of the random streams of a sample.
_DEQUANTIZATION, _LATENTS, _DRAW = 10, 20, 40


def set_memory(flow: nn.Module, mode: Memory) -> None:
    """Choose what a model keeps for the backward pass; gradients are the same up to rounding.

    ========== ============================== ==================================
    mode       kept per level                 extra work of a training step
    ========== ============================== ==================================
    full       every activation               none
    checkpoint the input of each flow step    one more forward pass
    reversible the level's result             two more passes through flow steps
    ========== ============================== ==================================

    In the last two the RRDBs of the encoders keep their inputs only. They compute everything again, which a batch norm
    in training does not allow: its statistics would move twice, and its inverse has others.

    Cost: none here.

    Args:
        flow: the model, changed in place; state dicts are not affected.
        mode: full, checkpoint or reversible.

    Raises:
        ValueError: for another mode, or one that computes again for a model with batch norm.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> set_memory(flow, "reversible")
        >>> {module.memory for module in flow.modules() if isinstance(module, Compose)}
        {'reversible'}
    """
    if mode not in MEMORY_MODES:
        raise ValueError(f"expected memory to be full, checkpoint or reversible; got {mode!r}")
    if mode != "full" and any(isinstance(module, BatchStatistics) for module in flow.modules()):
        raise ValueError(
            f"expected memory full for a model with batch norm; got {mode!r}: take full, or norm='actnorm'"
        )
    for module in flow.modules():
        if isinstance(module, Compose):
            module.memory = mode
        elif isinstance(module, RRDB):
            block: RRDB = module
            block.recompute = mode != "full"


class Objective(nn.Module):
    """The losses of a recipe as a module around the flow; ``objective(batch, passes)`` returns their weighted sum.

    In training mode the likelihood is computed inside :func:`flowsr.nn.batch_statistics`.

    Cost: the passes': one encoding for the likelihood, one decoding for L1 and for the draw of the perceptual and
    adversarial losses, one of each for rescaling.

    Args:
        flow: the model to train.
        recipe: weights and settings.
        features: feature extractor of the perceptual loss; frozen, and not saved with the model.
        critic: the discriminator as it is called; it is stepped elsewhere.

    Raises:
        ValueError: if the recipe needs a feature extractor or a discriminator that is not given, or a capability that
            the model does not have.

    Example:
        >>> from flowsr.training.recipes import recipe
        >>> import flowsr
        >>> objective = Objective(flowsr.HCFlow.from_preset("sr-x4-small"), recipe("nll"))
        >>> batch = Batch(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4), torch.tensor([1, 2]))
        >>> loss, seen, draw = objective(batch, ("likelihood",))
        >>> sorted(seen)
        ['bits_per_dim', 'encoded_lr_psnr']
    """

    def __init__(
        self,
        flow: ImageModel,
        recipe: Recipe,
        *,
        features: nn.Module | None = None,
        critic: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if recipe.perceptual and features is None:
            raise ValueError(f"expected a feature extractor for the perceptual loss of {recipe.name!r}; got none")
        if recipe.gan and critic is None:
            raise ValueError(f"expected a discriminator for the adversarial loss of {recipe.name!r}; got none")
        if recipe.l1 or recipe.perceptual or recipe.gan:
            require(flow, Capability.CONDITION)
        if "rescaling" in recipe.passes:
            require(flow, Capability.DOWNSCALE)
        self.flow = flow
        self.recipe = recipe
        # Not parts of the trained module: DDP must not reduce their gradients, checkpoints must not repeat them.
        object.__setattr__(self, "_features", features)
        object.__setattr__(self, "_critic", critic)

    def forward(
        self, batch: Batch, passes: tuple[str, ...], *, lr_log_scale: float | None = None
    ) -> tuple[Tensor, Seen, Tensor | None]:
        """Weighted sum of the losses of ``passes``, detached numbers to look at, and the draw if there was one.

        The pass ``"draw"`` only draws: it is what the discriminator's own training needs.
        """
        loss = batch.hr.new_zeros(())
        seen: Seen = {}
        draw = None
        if "likelihood" in passes:
            with batch_statistics(self.flow) if self.training else nullcontext():
                loss, seen = self._likelihood(batch, lr_log_scale)
        if "l1" in passes:
            l1, more = l1_loss(cast(ConditionalModel, self.flow), batch.hr, given_lr(batch))
            loss, seen = loss + self.recipe.l1 * l1, seen | more
        if "perceptual" in passes or "draw" in passes:
            draw = self._draw(batch)
        if "perceptual" in passes and draw is not None:
            perceptual, more = self._perceptual(batch, draw)
            loss, seen = loss + perceptual, seen | more
        if "rescaling" in passes:
            rescaling, more = self._rescaling(batch)
            loss, seen = loss + rescaling, seen | more
        return loss, seen, None if draw is None else draw.detach()

    def _draw(self, batch: Batch) -> Tensor:
        noise = self._noise(batch, _DRAW, self.recipe.temperature)
        return cast(ConditionalModel, self.flow).decode_unchecked(given_lr(batch).to(self.flow.dtype), noise)

    def _likelihood(self, batch: Batch, lr_log_scale: float | None) -> tuple[Tensor, Seen]:
        hr = dequantize(batch, bins=self.recipe.bins)
        width = self.recipe.lr_log_scale if lr_log_scale is None else lr_log_scale
        # A learned width is the model's to know, and to train.
        width = width if sets_lr_width(self.flow) else None
        loss, seen = likelihood_loss(self.flow, hr, batch.lr, bins=self.recipe.bins, lr_log_scale=width)
        return self.recipe.nll * loss, seen

    def _perceptual(self, batch: Batch, sr: Tensor) -> tuple[Tensor, Seen]:
        total = sr.new_zeros(())
        seen: Seen = {}
        if self.recipe.perceptual:
            extract: Any = self._features
            with torch.no_grad():
                target = extract(batch.hr)
            seen["perceptual"] = (extract(sr) - target).abs().mean()
            total = total + self.recipe.perceptual * seen["perceptual"]
        if self.recipe.gan:
            critic: Any = self._critic
            seen["adversarial"] = generator_loss(critic, sr, batch.hr, form=self.recipe.adversary)
            total = total + self.recipe.gan * seen["adversarial"]
        return total, {name: value.detach() for name, value in seen.items()}

    def _rescaling(self, batch: Batch) -> tuple[Tensor, Seen]:
        r = self.recipe
        noise = self._noise(batch, _LATENTS, 1.0)
        flow, lr = cast(HierarchyModel, self.flow), given_lr(batch)
        return rescaling_loss(flow, batch.hr, lr, noise, hr_l1=r.hr_l1, lr_mse=r.lr_mse, z_square=r.z_square)

    def _noise(self, batch: Batch, stream: int, temperature: float) -> list[Tensor]:
        flow, images = cast(ConditionalModel, self.flow), given_lr(batch)
        generators = sample_generators(batch.seeds, stream=stream, device=images.device)
        draws = [
            flow.draw_latents(lr, temperature=temperature, generator=g)
            for lr, g in zip(images, generators, strict=True)
        ]
        return [torch.stack(level) for level in zip(*draws, strict=True)]


def given_lr(batch: Batch) -> Tensor:
    """The LR images of a batch; raises ValueError for one without, as it is made for a density of images alone."""
    if batch.lr is None:
        raise ValueError("expected a batch with LR images for this loss; got one without: take the likelihood alone")
    return batch.lr


def dequantize(batch: Batch, *, bins: int) -> Tensor:
    """Uniform dequantization, ``hr + u/bins`` with ``u ~ U[0, 1)``, each image's noise from its own seed."""
    generators = sample_generators(batch.seeds, stream=_DEQUANTIZATION, device=batch.hr.device)
    noisy = [uniform_dequantize(hr, bins=bins, generator=g) for hr, g in zip(batch.hr, generators, strict=True)]
    stacked = torch.stack(noisy)
    channels_last = batch.hr.is_contiguous(memory_format=torch.channels_last)
    return stacked.contiguous(memory_format=torch.channels_last) if channels_last else stacked
