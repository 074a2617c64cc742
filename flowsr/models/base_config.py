"""What the configurations of all models share: checks of integers, and the way into and out of a file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

ConfigType = TypeVar("ConfigType", bound="ModelConfig")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Base of the configurations: frozen, keyword-only dataclasses of numbers, names and tuples of numbers.

    Attributes:
        variants: fields that are options off by default: left out of a file at their default, and a file without them
            means the default, so that files from before an option came stay readable.
    """

    variants: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values; tuples become lists."""
        off = {f.name for f in fields(self) if f.name in self.variants and getattr(self, f.name) == f.default}
        values = {name: value for name, value in asdict(self).items() if name not in off}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls: type[ConfigType], values: Mapping[str, Any]) -> ConfigType:
        """The inverse of :meth:`to_dict`; raises ValueError for unknown or missing names."""
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.name not in cls.variants}
        wrong = sorted((needed - set(values)) | (set(values) - names))
        if wrong:
            raise ValueError(f"expected the fields {sorted(names)}; missing or unknown: {wrong}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def check_integers(self, least: Mapping[str, int]) -> None:
        """Raise ValueError unless each named field is an integer of at least that size."""
        for name, bound in least.items():
            value = getattr(self, name)
            if not is_int(value) or value < bound:
                raise ValueError(f"expected {name} to be an integer >= {bound}; got {value!r}")

    def make_tuple(self, name: str) -> None:
        """Store a list or tuple as a tuple; raise ValueError for anything else."""
        value = getattr(self, name)
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected {name} to be a tuple of integers; got {value!r}")
        object.__setattr__(self, name, tuple(value))

    def check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        """Raise ValueError unless the named field is one of the choices."""
        value = getattr(self, name)
        # 1 == True == 1.0, but a file would not say so.
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            listed = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
            raise ValueError(f"expected {name} {listed}; got {value!r}")


def is_int(value: object) -> bool:
    """Whether a value is an integer and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)
