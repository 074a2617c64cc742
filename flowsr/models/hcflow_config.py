"""What fixes the architecture of an HCFlow, and the configurations that have names."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from flowsr.models.blocks import MIXINGS, Mixing
from flowsr.models.image_model import ModelConfig, is_int

Task = Literal["super-resolution", "rescaling"]


@dataclass(frozen=True, kw_only=True)
class HCFlowConfig(ModelConfig):
    """What fixes the architecture of an HCFlow; the upscale factor is ``2 ** levels``.

    Args:
        task: "super-resolution" (pixel shuffle, 1x1 convolutions) or "rescaling" (Haar, 3-channel couplings).
        image_channels: channels of the image; 3 for RGB.
        levels: L ≥ 1.
        steps: K, flow steps per level, conditional ones included.
        conditional_steps: K_c, how many of them belong to the conditional flow.
        hidden_channels: width of the main flow's conditioners (super-resolution).
        conditional_hidden_channels: width of the conditional flow's conditioners.
        dense_growth: growth of the dense blocks in the main flow's couplings (rescaling).
        features: width nf of the feature encoders.
        growth: growth gc of the encoders' dense blocks.
        rrdbs: number of RRDBs in the first and second trunk of each encoder.
        coupling: variant: "spline" puts rational-quadratic splines in the place of the affine maps of all couplings,
            "logistic-mixture" the log-odds of mixtures of logistics (Flow++).
        spline_bins: bins of each spline.
        spline_bound: where its linear tails begin.
        mixture_components: logistics of each mixture.
        mixing: variant: "plu" or "orthogonal" 1x1 convolutions instead of "dense" ones.
        head: variant: "sinh-arcsinh" lets the head of each level predict a skewness and a weight of the tails for each
            value of a latent, beside mean and width; "logistic-mixture" a mixture of logistics.
        prior: variant: "learned" gives the latent of each level a Gaussian whose mean and width an FCN predicts from
            the level's features, in place of N(0, I); it comes on top of the head, which is one convolution.
        hierarchical: variant: False takes the features of coarser levels away from each level's encoder, which then
            sees only what the main flow keeps at that level (the ablation of the paper).
        learned_lr_width: variant: True learns the width σ of the LR image, from the published e^-6 on.

    Raises:
        ValueError: for values out of range.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4; the released configurations.

    Example:
        >>> HCFlowConfig(levels=3).upscale
        8
    """

    variants = (
        "coupling",
        "spline_bins",
        "spline_bound",
        "mixture_components",
        "mixing",
        "head",
        "prior",
        "hierarchical",
        "learned_lr_width",
    )

    task: Task = "super-resolution"
    image_channels: int = 3
    levels: int = 2
    steps: int = 26
    conditional_steps: int = 13
    hidden_channels: int = 64
    conditional_hidden_channels: int = 64
    dense_growth: int = 32
    features: int = 64
    growth: int = 32
    rrdbs: tuple[int, int] = (7, 7)
    coupling: Literal["affine", "spline", "logistic-mixture"] = "affine"
    spline_bins: int = 8
    spline_bound: float = 5.0
    mixture_components: int = 4
    mixing: Mixing = "dense"
    head: Literal["gaussian", "sinh-arcsinh", "logistic-mixture"] = "gaussian"
    prior: Literal["standard", "learned"] = "standard"
    hierarchical: bool = True
    learned_lr_width: bool = False

    def __post_init__(self) -> None:
        self.check_choice("task", ("super-resolution", "rescaling"))
        self.make_tuple("rrdbs")
        if len(self.rrdbs) != 2 or any(not is_int(n) or n < 0 for n in self.rrdbs):
            raise ValueError(f"expected rrdbs to be two integers >= 0; got {self.rrdbs}")
        self.check_choice("coupling", ("affine", "spline", "logistic-mixture"))
        self.check_choice("mixing", tuple(MIXINGS))
        self.check_choice("head", ("gaussian", "sinh-arcsinh", "logistic-mixture"))
        self.check_choice("prior", ("standard", "learned"))
        self.check_choice("hierarchical", (True, False))
        self.check_choice("learned_lr_width", (True, False))
        if not isinstance(self.spline_bound, int | float) or not 0 < self.spline_bound < math.inf:
            raise ValueError(f"expected a positive spline_bound; got {self.spline_bound!r}")
        for name, most in (("spline_bins", 999), ("mixture_components", 100)):
            if is_int(value := getattr(self, name)) and value > most:
                raise ValueError(f"expected at most {most} {name}; got {value}")
        least = {f.name: 1 for f in fields(self) if is_int(f.default)}
        self.check_integers({**least, "conditional_steps": 0, "spline_bins": 2})
        if self.conditional_steps > self.steps:
            raise ValueError(f"expected conditional_steps <= steps = {self.steps}; got {self.conditional_steps}")

    @property
    def upscale(self) -> int:
        """The upscale factor s = 2^L."""
        return int(2**self.levels)


_SMALL: dict[str, Any] = {
    "steps": 8,
    "hidden_channels": 32,
    "conditional_hidden_channels": 32,
    "dense_growth": 16,
    "features": 32,
    "growth": 16,
    "rrdbs": (1, 1),
}

HCFlowPreset = Literal[
    "sr-x4", "sr-x8", "rescaling-x4", "sr-x4-small", "sr-x8-small", "rescaling-x4-small", "sr-x4-small-v1"
]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, HCFlowConfig] = {
    "sr-x4": HCFlowConfig(levels=2, rrdbs=(7, 7)),
    "sr-x8": HCFlowConfig(levels=3, rrdbs=(5, 5)),
    "rescaling-x4": HCFlowConfig(task="rescaling", steps=14, conditional_steps=6, growth=16, rrdbs=(2, 1)),
    "sr-x4-small": HCFlowConfig(
        steps=16,
        conditional_steps=12,
        hidden_channels=48,
        conditional_hidden_channels=48,
        dense_growth=16,
        features=16,
        growth=8,
        rrdbs=(1, 1),
        head="sinh-arcsinh",
    ),
    "sr-x8-small": HCFlowConfig(levels=3, conditional_steps=4, **_SMALL),
    "rescaling-x4-small": HCFlowConfig(task="rescaling", levels=2, conditional_steps=3, **_SMALL),
    "sr-x4-small-v1": HCFlowConfig(levels=2, conditional_steps=4, **_SMALL),
}
"""Published and small configurations by name; a version is that of the weights that are shipped under the name."""
