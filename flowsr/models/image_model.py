"""What all models share: a configuration that fits into a file, one transform from latent to image, and presets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from flowsr.distributions import FlowDistribution, PackedNormal
from flowsr.images import check_image
from flowsr.models.capabilities import Capability
from flowsr.models.latents import LRLikelihood, Term
from flowsr.nn import CONDITIONERS, initialize_from_data
from flowsr.transforms import ImageTransform

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


ModelType = TypeVar("ModelType", bound="ImageModel")


class ImageModel(nn.Module):
    """Base of the models: a normalizing flow of images, with its configuration.

    A subclass sets ``config_class``, ``presets`` and ``citations``, builds ``transform`` in its ``__init__``, and says
    how it encodes a batch in ``_encode_ladj``. What else it offers depends on what it is a density of: that is its
    ``capabilities``, see :class:`flowsr.models.Capability`.

    Args:
        config: the architecture.

    Attributes:
        config: the architecture.
        transform: one transform from packed latent to image.
        citations: BibTeX of the papers that the model comes from; those of its parts stand with the parts.
        provenance: free-form facts about the weights that travel with the file, see :func:`flowsr.save`.
        calls: what to call in place of the model itself.
        instead: the calls to make in place of what other libraries offer under these names, and this model does not.
        starts: the initial weights that ``from_preset(name, start=...)`` offers; empty where there is no choice.

    Raises:
        ValueError: for a configuration of another model.
    """

    config_class: ClassVar[type[ModelConfig]]
    presets: ClassVar[dict[str, Any]]
    citations: ClassVar[tuple[str, ...]]
    calls: ClassVar[str]
    instead: ClassVar[dict[str, str]] = {}
    starts: ClassVar[tuple[str, ...]] = ()
    config: Any
    transform: ImageTransform

    def __init__(self, config: Any) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            name = type(self).__name__
            raise ValueError(
                f"expected {self.config_class.__name__}; got {config!r}: for a preset use {name}.from_preset"
            )
        self.config = config
        self.provenance: dict[str, Any] = {}

    if TYPE_CHECKING:
        # Module's says "Tensor | Module" of any name, so that no type checker would see a misspelt one.
        __getattr__: None
    else:

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                advice = f": use {self.instead[name]}" if name in self.instead else ""
                # With name and obj, Python asks "Did you mean" in its tracebacks.
                raise AttributeError(f"{error}{advice}", name=name, obj=self) from None

    def forward(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Always a TypeError that says what to call: a model has several passes, and none of them is *the* one."""
        raise TypeError(f"expected a call of one of the model's passes; got {type(self).__name__}(…): use {self.calls}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Any:
        """The configuration of a preset of this model, with some of its fields changed.

        Raises:
            ValueError: for an unknown preset or field.
        """
        unknown = sorted(set(changes) - {field.name for field in fields(cls.config_class)})
        if unknown:
            raise ValueError(f"expected changes to fields of {cls.config_class.__name__}; got {', '.join(unknown)}")
        if name not in cls.presets:
            raise ValueError(f"expected a preset among {', '.join(cls.presets)}; got {name!r}")
        return replace(cls.presets[name], **changes)

    @classmethod
    @torch.inference_mode(False)  # as load, so that the weights can be trained wherever they are made
    def from_preset(cls: type[ModelType], name: str, **changes: Any) -> ModelType:
        """A model with random weights from a named configuration.

        Args:
            name: one of ``presets``.
            **changes: fields of the configuration to change, for example ``image_channels=1``.

        Raises:
            ValueError: for an unknown preset or field.
        """
        return cls(cls.preset(name, **changes))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the model can do, for analyses to ask."""
        raise NotImplementedError

    @property
    def multiple(self) -> int:
        """What height and width of an HR image must be multiples of."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @torch.no_grad()
    def initialize(
        self,
        hr: Float[Tensor, "*batch channels height width"],
        lr: Float[Tensor, "*batch channels h w"] | None = None,
    ) -> None:
        """Data-dependent initialization of every layer that has one and has not had it, from a first batch.

        Cost: about two encoding passes. Scoring and sampling never do this by themselves.

        Args:
            hr: HR images in [0, 1]; what lies anywhere for a density of points.
            lr: their LR images, for a model whose flow is conditioned on them (SRFlow); by default the bicubic ones.

        Raises:
            ValueError: on wrong shape, dtype or values, or images too flat or too small to start from; the weights are
                then as before.

        References:
            Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.

        Example:
            >>> import flowsr
            >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(4, 3, 32, 32)
            >>> flow.initialize(hr)
            >>> z = flow.encode(hr).z[0]  # latents are now of about unit size
            >>> bool(0.5 < z.std() < 2)
            True
        """
        self._check_first(hr)
        before = {name: value.clone() for name, value in self.state_dict().items()}
        with initialize_from_data(self):
            ladj = self._encode_ladj(hr.to(self.dtype), lr)
        scales = [(name, value) for name, value in self.named_parameters() if name.endswith(".logs")]
        changed = [value for name, value in scales if not torch.equal(value, before[name])]
        # A channel without variation gets the largest scale there is, exp(-log 1e-6).
        degenerate = any(value.abs().max() > 13.0 for value in changed) or not torch.isfinite(ladj).all()
        if degenerate:
            self.load_state_dict(before)
            raise ValueError(
                "expected a batch of images in which every channel varies at every level; got one that is flat or has "
                f"too few pixels, of shape {tuple(hr.shape)}: take several larger crops of photographs"
            )

    def _check_first(self, hr: Tensor) -> None:
        """Raise ValueError for images that no model should start from; a density of points says otherwise."""
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=0.25)

    def compile_conditioners(self, **options: Any) -> None:
        """Compile the networks between the invertible layers, each where it stands, at their next call.

        Conditioners of one kind and shape share their code, so that this takes a small part of what compiling a whole
        pass does. Results are those of before up to rounding, and files know nothing of it.

        Cost: minutes at the first call for each shape of image on a CPU, where it seldom pays: measure it.

        Args:
            **options: of :func:`torch.compile`, such as ``mode`` or ``backend``.

        References:
            PyTorch, "Reducing torch.compile cold start compilation time with regional compilation".

        Example:
            >>> import flowsr
            >>> flow = flowsr.load("sr-x4-small")
            >>> flow.compile_conditioners(backend="eager")
            >>> flow.condition(torch.rand(3, 8, 8)).sample().shape
            torch.Size([3, 32, 32])
        """
        validates = Distribution._validate_args
        for module in self.modules():
            if isinstance(module, CONDITIONERS):
                module.compile(**options)
        # Torch has switched it off for the whole process; there are no distributions in what is compiled here.
        Distribution.set_default_validate_args(validates)

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``, or of ``log p(hr)``, see :func:`flowsr.likelihood.decompose`."""
        raise NotImplementedError

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float | None = None) -> dict[str, Tensor]:
        """The noise that an image would be made from: standard normal under the model, by name."""
        raise NotImplementedError

    def _encode_ladj(self, hr: Tensor, lr: Tensor | None) -> Tensor:
        """Encode a batch and return the log-determinant; the LR image is for models that are conditioned on it."""
        return self.transform.inv_call_and_ladj(hr)[1]


def distribution_of(model: ImageModel, base: PackedNormal, transform: ImageTransform) -> FlowDistribution:
    """The distribution of images that a model makes of its base, which says whose it is."""
    distribution = FlowDistribution(base, [transform])
    distribution.model = type(model).__name__
    return distribution
