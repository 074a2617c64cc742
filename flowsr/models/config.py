"""The configuration of HCFlow and the named presets."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Task = Literal["super-resolution", "rescaling"]


@dataclass(frozen=True, kw_only=True)
class HCFlowConfig:
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

    Raises:
        ValueError: for values out of range.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4.1; the released configurations.

    Example:
        >>> HCFlowConfig(levels=3).upscale
        8
    """

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

    def __post_init__(self) -> None:
        if self.task not in ("super-resolution", "rescaling"):
            raise ValueError(f"expected task super-resolution or rescaling; got {self.task!r}")
        object.__setattr__(self, "rrdbs", tuple(self.rrdbs))
        if len(self.rrdbs) != 2 or any(not _is_int(n) or n < 0 for n in self.rrdbs):
            raise ValueError(f"expected rrdbs to be two integers >= 0; got {self.rrdbs}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("task", "rrdbs"):
                continue
            least = 0 if field.name == "conditional_steps" else 1
            if not _is_int(value) or value < least:
                raise ValueError(f"expected {field.name} to be an integer >= {least}; got {value!r}")
        if self.conditional_steps > self.steps:
            raise ValueError(f"expected conditional_steps <= steps = {self.steps}; got {self.conditional_steps}")

    @property
    def upscale(self) -> int:
        """The upscale factor s = 2^L."""
        return int(2**self.levels)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {**asdict(self), "rrdbs": list(self.rrdbs)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HCFlowConfig":
        """The inverse of :meth:`to_dict`; raises ValueError for unknown or missing names."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            wrong = sorted(set(values) ^ names)
            raise ValueError(f"expected the fields {sorted(names)}; missing or unknown: {wrong}")
        return cls(**{**values, "rrdbs": tuple(values["rrdbs"])})


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_SMALL: dict[str, Any] = {
    "steps": 8,
    "hidden_channels": 32,
    "conditional_hidden_channels": 32,
    "dense_growth": 16,
    "features": 32,
    "growth": 16,
    "rrdbs": (1, 1),
}

PRESETS: dict[str, HCFlowConfig] = {
    "sr-x4": HCFlowConfig(levels=2, rrdbs=(7, 7)),
    "sr-x8": HCFlowConfig(levels=3, rrdbs=(5, 5)),
    "rescaling-x4": HCFlowConfig(task="rescaling", steps=14, conditional_steps=6, growth=16, rrdbs=(2, 1)),
    "sr-x4-small": HCFlowConfig(levels=2, conditional_steps=4, **_SMALL),
    "sr-x8-small": HCFlowConfig(levels=3, conditional_steps=4, **_SMALL),
    "rescaling-x4-small": HCFlowConfig(task="rescaling", levels=2, conditional_steps=3, **_SMALL),
}
"""Published and small configurations by name."""


def preset(name: str) -> HCFlowConfig:
    """The configuration of a preset; raises ValueError that lists the names.

    Example:
        >>> preset("sr-x4").steps
        26
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset among {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]
