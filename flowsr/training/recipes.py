"""Recipes: what is optimized and how, with the published settings under their names (HCFlow, section 4)."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from torch import Tensor

from flowsr.errors import did_you_mean
from flowsr.models import Capability, ImageModel

Adversary = Literal["vanilla", "least-squares", "relativistic"]

_X8_HALVE_AT = tuple(step / 350 for step in (200, 250, 280, 310, 340))

_LOSSES = ("nll", "l1", "perceptual", "gan", "hr_l1", "lr_mse", "z_square")
_POSITIVE = ("learning_rate", "critic_learning_rate", "clip_value", "clip_norm")
_AT_LEAST = {
    **dict.fromkeys(("steps", "batch_size", "crop", "bins"), 1),
    **dict.fromkeys(("cosine_to", "warmup", "critic_warmup", "temperature", *_LOSSES), 0),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Losses, optimizer, schedule and crops of a training run; frozen, so that a run can be named by it.

    A loss takes part when its weight is not 0. Losses fall into passes, each with a backward pass and an optimizer
    step of its own: likelihood; L1; perceptual and adversarial; rescaling.

    Args:
        name: what it is called.
        task: which models it trains.
        steps: optimizer iterations.
        learning_rate: of Adam, after the warm-up.
        batch_size: crops per iteration, over all processes and accumulation steps together.
        crop: side of the square HR crops in pixels, a multiple of the upscale factor.
        halve_at: fractions of ``steps`` at which the learning rate is halved.
        cosine_to: instead, fall to this learning rate along half a cosine.
        warmup: steps over which the learning rate rises from 0.
        betas: of Adam.
        clip_value: bound of each gradient entry, applied first; None for none.
        clip_norm: bound of the norm of all gradients; None for none.
        nll: weight of the negative log-likelihood in bits per pixel.
        l1: weight of the mean ``|decode(lr, z = 0) − hr|``.
        perceptual: weight of the L1 distance of VGG19 features of a draw.
        gan: weight of the adversarial loss of a draw.
        hr_l1: rescaling: weight of the mean ``|decode(round8(y), z) − hr|``, z ~ N(0, 1).
        lr_mse: rescaling: weight of the mean squared error of the flow's LR image.
        z_square: rescaling: weight of the mean square of the latents.
        temperature: τ of the draws of the perceptual and adversarial losses.
        separate: step each pass on its own, as published; False adds the losses up for one step.
        adversary: form of the adversarial loss.
        critic_learning_rate: of the discriminator.
        critic_warmup: first iterations in which the discriminator trains alone.
        bins: quantization levels per unit for uniform dequantization, 256 for 8-bit images.
        lr_log_scale: log σ of the LR image in the likelihood.
        lr_log_scale_start: if given, log σ falls linearly from here over the first half of the steps.
        flips: random horizontal flips.
        rotations: random rotations by multiples of 90 degrees.
        ema: decay of the moving average of the weights; 0 for none.

    Raises:
        ValueError: for values out of range.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4; the released configurations.

    Example:
        >>> RECIPES["nll+l1"].passes
        ('likelihood', 'l1')
    """

    name: str
    task: Literal["super-resolution", "rescaling"] = "super-resolution"
    steps: int = 300_000
    learning_rate: float = 2.5e-4
    batch_size: int = 16
    crop: int = 160
    halve_at: tuple[float, ...] = ()
    cosine_to: float | None = None
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.99)
    clip_value: float | None = 5.0
    clip_norm: float | None = 100.0
    nll: float = 0.0
    l1: float = 0.0
    perceptual: float = 0.0
    gan: float = 0.0
    hr_l1: float = 0.0
    lr_mse: float = 0.0
    z_square: float = 0.0
    temperature: float = 0.9
    separate: bool = True
    adversary: Adversary = "vanilla"
    critic_learning_rate: float = 5e-5
    critic_warmup: int = 1500
    bins: int = 256
    lr_log_scale: float = -6.0
    lr_log_scale_start: float | None = None
    flips: bool = True
    rotations: bool = True
    ema: float = 0.999

    def __post_init__(self) -> None:
        for name in ("halve_at", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_numbers()
        if any(not 0 < fraction < 1 for fraction in self.halve_at):
            raise ValueError(f"expected halve_at to be fractions of the steps between 0 and 1; got {self.halve_at}")
        if self.halve_at and self.cosine_to is not None:
            raise ValueError("expected either halve_at or cosine_to; got both")
        if self.adversary not in get_args(Adversary):
            raise ValueError(f"expected adversary to be vanilla, least-squares or relativistic; got {self.adversary!r}")
        if not self.passes:
            raise ValueError(f"expected at least one loss with a weight other than 0 in recipe {self.name!r}")
        if self.task == "rescaling" and (self.l1 or self.perceptual or self.gan):
            raise ValueError("expected rescaling losses (and nll) only for the rescaling task")

    def _check_numbers(self) -> None:
        for name, value in asdict(self).items():
            numbers = [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, float)]
            if not all(map(math.isfinite, numbers)):
                raise ValueError(f"expected finite {name}; got {value}")
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"expected {name} >= {least}; got {value}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"expected {name} > 0; got {value}")
        if len(self.betas) != 2 or any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"expected betas to be two numbers in [0, 1); got {self.betas}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"expected ema in [0, 1); got {self.ema}")

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of the passes of an iteration, in order."""
        present = {
            "likelihood": self.nll,
            "l1": self.l1,
            "perceptual": self.perceptual or self.gan,
            "rescaling": self.hr_l1 or self.lr_mse or self.z_square,
        }
        return tuple(name for name, weight in present.items() if weight)

    @property
    def held_passes(self) -> int:
        """How many passes through the flow are held at once: rescaling encodes and decodes before it goes back."""
        return 2 if "rescaling" in self.passes else 1

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The inverse of :meth:`to_dict`; raises ValueError for unknown names."""
        _check_names(values)
        return cls(**values)

    def with_changes(self, **changes: Any) -> "Recipe":
        """The recipe with other values of some fields; raises ValueError for unknown names."""
        _check_names(changes)
        return replace(self, **changes)


def _check_names(values: dict[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    for name in values:
        if name not in known:
            advice = did_you_mean(name, known) or f": the fields are {', '.join(known)}"
            raise ValueError(f"expected fields of Recipe; got {name!r}{advice}")


_PLUS = Recipe(name="nll+l1", steps=50_000, learning_rate=5e-5, halve_at=(0.4, 0.8), nll=2e-3, l1=1.0)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="nll", nll=1.0, halve_at=(0.5, 0.75, 0.9, 0.95)),
        _PLUS,
        replace(_PLUS, name="nll+l1+perceptual+gan", learning_rate=1.25e-5, perceptual=5e-2, gan=0.5),
        Recipe(
            name="rescaling",
            task="rescaling",
            steps=500_000,
            halve_at=(0.2, 0.4, 0.6, 0.8, 0.9),
            hr_l1=1.0,
            lr_mse=5e-2,
            z_square=1e-5,
        ),
    )
}
"""Published recipes by name: HCFlow, HCFlow+, HCFlow++ and the rescaling model."""


def recipe(name: str, *, flow: ImageModel | None = None, **changes: Any) -> Recipe:
    """A published recipe by name, with fields changed at will.

    Args:
        name: nll (HCFlow), nll+l1 (HCFlow+), nll+l1+perceptual+gan (HCFlow++) or rescaling.
        flow: the model, for the settings that differ for super-resolution by 8 (schedule of ``nll``, no rotations,
            τ = 0.8), and for a crop that its sides allow, the largest up to the published one.
        **changes: fields of :class:`Recipe` to replace.

    Raises:
        ValueError: for an unknown name or field, or a recipe that is not for the model, see ``check_recipe``.

    Example:
        >>> recipe("nll", steps=1500, cosine_to=1e-5, halve_at=()).learning_rate
        0.00025
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe among {', '.join(RECIPES)}; got {name!r}{did_you_mean(name, RECIPES)}")
    found = RECIPES[name]
    if flow is not None:
        found = replace(found, crop=max(found.crop // flow.multiple, 1) * flow.multiple)
        check_recipe(found, flow)
        if getattr(flow, "upscale", None) == 8 and found.task == "super-resolution":
            found = replace(found, rotations=False, temperature=0.8)
            if name == "nll":
                found = replace(found, steps=350_000, halve_at=_X8_HALVE_AT)
    found = found.with_changes(**changes)
    if flow is not None:
        check_recipe(found, flow)
    return found


def default_recipe(flow: ImageModel) -> str:
    """The name of the first recipe of a model: ``rescaling`` if it is made for that, else ``nll``.

    Example:
        >>> from flowsr.models import from_preset
        >>> default_recipe(from_preset("irn-x4-small")), default_recipe(from_preset("glow-small"))
        ('rescaling', 'nll')
    """
    return "rescaling" if Capability.DOWNSCALE in flow.capabilities else "nll"


def sets_lr_width(flow: ImageModel) -> bool:
    """Whether a recipe sets σ of the LR image: not where it is learned, nor where no LR image is in the latent."""
    return Capability.LR_LATENT in flow.capabilities and not isinstance(getattr(flow, "lr_log_scale", None), Tensor)


def check_recipe(recipe: Recipe, flow: ImageModel) -> None:
    """Raise ValueError, in words, unless a recipe can train a model."""
    name = type(flow).__name__
    if Capability.CONDITION not in flow.capabilities:
        if recipe.passes != ("likelihood",):
            raise ValueError(
                f"expected a recipe of the likelihood alone for {name}, a density of images without LR images; got "
                f"{recipe.name!r}, which has {', '.join(recipe.passes)}: take nll"
            )
    elif recipe.task != (task := "rescaling" if Capability.DOWNSCALE in flow.capabilities else "super-resolution"):
        raise ValueError(f"expected a recipe for {task}; got {recipe.name!r}, which is for {recipe.task}")
    changed = recipe.lr_log_scale != Recipe.lr_log_scale or recipe.lr_log_scale_start is not None
    if "likelihood" in recipe.passes and changed and not sets_lr_width(flow):
        raise ValueError(
            f"expected lr_log_scale {Recipe.lr_log_scale:g} and no lr_log_scale_start for this {name}, whose LR image "
            f"has no width to set; got {recipe.lr_log_scale:g} and {recipe.lr_log_scale_start}: leave them out"
        )
    if recipe.crop % flow.multiple:
        raise ValueError(f"expected a crop that is a multiple of {flow.multiple}; got {recipe.crop}")


def learning_rate(recipe: Recipe, step: int, *, base: float | None = None) -> float:
    """The learning rate of a step: linear warm-up, then halvings or half a cosine.

    Args:
        recipe: the schedule.
        step: from 0.
        base: the rate to start from; the recipe's own by default.

    Example:
        >>> from flowsr.training.recipes import recipe
        >>> nll = recipe("nll", steps=100)
        >>> learning_rate(nll, 49), learning_rate(nll, 50)
        (0.00025, 0.000125)
    """
    rate = recipe.learning_rate if base is None else base
    if recipe.cosine_to is not None:
        lowest = recipe.cosine_to * rate / recipe.learning_rate
        progress = min(step / recipe.steps, 1.0)
        rate = lowest + 0.5 * (rate - lowest) * (1.0 + math.cos(math.pi * progress))
    rate *= 0.5 ** sum(step >= round(fraction * recipe.steps) for fraction in recipe.halve_at)
    if step < recipe.warmup:
        rate *= (step + 1) / recipe.warmup
    return rate


def lr_log_scale(recipe: Recipe, step: int) -> float:
    """log σ of the LR image at a step: the recipe's, or falling linearly to it over the first half of the steps.

    Example:
        >>> from flowsr.training.recipes import recipe
        >>> lr_log_scale(recipe("nll", steps=100, lr_log_scale_start=-1.0), 25)
        -3.5
    """
    if recipe.lr_log_scale_start is None:
        return recipe.lr_log_scale
    progress = min(step / (0.5 * recipe.steps), 1.0)
    return recipe.lr_log_scale_start + progress * (recipe.lr_log_scale - recipe.lr_log_scale_start)
