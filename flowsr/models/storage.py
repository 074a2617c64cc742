"""Saving and loading: tensors in safetensors, configuration and provenance in the file's metadata.

Loading never runs code from a file: safetensors holds tensors only, and a ``.pth`` is read with ``weights_only``.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flowsr._support.atomic import atomic_path
from flowsr.errors import CheckpointError, did_you_mean, quoted, what_is_at
from flowsr.models.conditional import ConditionalModel
from flowsr.models.glow import Glow
from flowsr.models.hcflow import HCFlow
from flowsr.models.image_model import ImageModel, ModelType
from flowsr.models.integrity import Shapes, check_names, check_shape, content_digest, outline
from flowsr.models.irn import IRN
from flowsr.models.official import NO_CONFIGURATION, load_official
from flowsr.models.realnvp import RealNVP
from flowsr.models.registry import REGISTRY, presets
from flowsr.models.srflow import SRFlow
from flowsr.models.weights import RELEASES, ReleaseName, fetch_release, shipped_path

_FORMAT = "1"

_DIGEST = "content_sha256"
_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def save(flow: ImageModel, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write a model to one safetensors file; configuration and ``flow.provenance`` go into its metadata.

    The file appears whole or not at all, and carries a digest (SHA-256) of all that it says, which :func:`load` checks.

    Args:
        flow: the model.
        path: a name that ends in ``.safetensors``, in a folder that exists.
        overwrite: replace an existing file.

    Raises:
        ValueError: for another suffix, weights that share memory, or provenance that JSON cannot hold.
        FileExistsError: if the file exists and must not be overwritten.

    Example:
        >>> import flowsr, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.safetensors"
        >>> flowsr.save(flowsr.HCFlow.from_preset("sr-x4-small"), path)
        >>> flowsr.load(path).upscale
        4
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a name that ends in .safetensors; got {path.name!r}")
    metadata = {
        "flowsr_format": _FORMAT,
        "model": _registered_name(flow),
        "config": json.dumps(flow.config.to_dict()),
        "provenance": _to_json(flow.provenance),
    }
    _check_untied(flow)
    tensors = {key: value.detach().contiguous().cpu() for key, value in flow.state_dict().items()}
    metadata[_DIGEST] = content_digest(tensors, metadata)
    with atomic_path(path, overwrite=overwrite) as temporary:
        save_file(tensors, temporary, metadata)


def _registered_name(flow: ImageModel) -> str:
    for name, model in REGISTRY.items():
        if type(flow) is model:
            return name
    raise ValueError(f"expected a model of flowsr.models.REGISTRY, {', '.join(REGISTRY)}; got {type(flow).__name__}")


def _check_untied(flow: ImageModel) -> None:
    """Refuse weights that share memory: in a file each is by itself, and they would no longer move together."""
    spans = sorted((value.data_ptr(), value.nbytes, key) for key, value in flow.state_dict().items() if value.numel())
    for (start, length, key), (other_start, _, other) in pairwise(spans):
        if other_start < start + length:
            raise ValueError(
                f"expected weights with memory of their own; got {key} and {other}, which share it (tied weights): "
                "give one of them a copy, torch.nn.Parameter(weight.detach().clone())"
            )


def _to_json(provenance: dict[str, Any]) -> str:
    try:
        return json.dumps(provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected flow.provenance to hold JSON's finite values; got {quoted(provenance, most=200)}"
        ) from error


# A type checker takes the first that fits; each of ShippedName is in one of them.
@overload
def load(
    source: Literal["sr-x4-small", "sr-x4-small-v1", "rescaling-x4-small"] | ReleaseName,
    *,
    device: str | torch.device = "cpu",
) -> HCFlow: ...


@overload
def load(source: Literal["srflow-x4-small"], *, device: str | torch.device = "cpu") -> SRFlow: ...


@overload
def load(source: Literal["irn-x4-small"], *, device: str | torch.device = "cpu") -> IRN: ...


@overload
def load(source: Literal["glow-small"], *, device: str | torch.device = "cpu") -> Glow: ...


@overload
def load(source: Literal["realnvp-points"], *, device: str | torch.device = "cpu") -> RealNVP: ...


@overload
def load(
    source: str | os.PathLike[str], *, model: type[ModelType], device: str | torch.device = "cpu"
) -> ModelType: ...


@overload
def load(source: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ConditionalModel: ...


@torch.inference_mode(False)
def load(
    source: str | os.PathLike[str], *, model: type[ImageModel] = ImageModel, device: str | torch.device = "cpu"
) -> ImageModel:
    """Load a model of any kind from a file or by name, in evaluation mode.

    A name gives the weights that come with the package (``sr-x4-small``, ``rescaling-x4-small``, ``srflow-x4-small``,
    ``irn-x4-small``, ``glow-small``, ``realnvp-points``), the newest ones unless it has a version (``sr-x4-small-v1``);
    or the authors' released ones (``sr-x4``, ``sr-x8``, ``rescaling-x4``), which are fetched once into a cache, see
    ``flowsr.models.weights.fetch_release``.

    The file must be whole by its digest or checksums, and hold exactly the weights that its configuration asks for,
    before any memory is taken for them. Warns (UserWarning) of a file without a digest: one of :func:`save` before it
    wrote them, or of torch before 1.6.

    An editor knows what a name gives. What is in a file of your own it cannot know, and takes it for a model of HR
    images given their LR images, with ``sample``, ``condition`` and ``encode``; ``model`` says more, and holds the file
    to it: ``flowsr.load("mine.safetensors", model=flowsr.Glow)``.

    Cost: reading the file once for its digest and once for its tensors.

    Args:
        source: a ``.safetensors`` of :func:`save`, an official ``.pth``, or a name.
        model: the class that the file must hold; by default any.
        device: where the weights go.

    Returns:
        An instance of ``model``, of one of the classes in ``flowsr.models.REGISTRY``.

    Raises:
        FileNotFoundError: if there is neither a file nor a name like that.
        DownloadError: if released weights cannot be fetched.
        CheckpointError: if the file is truncated, damaged, of another architecture, has missing or surplus keys, is a
            pickle that holds more than tensors, or holds another ``model``.
        TypeError: for a source that is no path and no name.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> flow.sample(torch.rand(3, 6, 8)).shape
        torch.Size([1, 3, 24, 32])
    """
    flow = _load_file(*_find(source))
    if not isinstance(flow, model):
        raise CheckpointError(
            f"expected a file that holds a model {model.__name__}; {source} has {type(flow).__name__}"
        )
    # Decorated, as tensors that are made in inference mode can never be differentiated through afterwards.
    return flow.to(device).eval()


def _find(source: str | os.PathLike[str]) -> tuple[Path, bool]:
    """The file that a path or a name stands for, and whether its digest is known already."""
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"expected a path or the name of a preset; got {source!r}")
    path, name = Path(source), str(source)
    if path.is_file():
        return path, False
    if shipped := shipped_path(name):
        return shipped, False
    if name in RELEASES:
        return fetch_release(name), True
    raise FileNotFoundError(
        f"expected a .safetensors or official .pth file, or a name among {', '.join(_names())}; "
        f"{_what_instead(path, name)}"
    )


def _load_file(path: Path, proven: bool) -> ImageModel:
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return load_official(path, proven=proven)
    raise CheckpointError(f"expected a file that ends in .safetensors, .pth or .pt; got {path.name!r}")


def _names() -> list[str]:
    return [name for name in presets() if name in RELEASES or shipped_path(name)]


def _what_instead(path: Path, name: str) -> str:
    """What is there in place of a file of weights, and what to do about it."""
    if path.is_dir():
        weights = path / "model.safetensors"
        return f"{path} is a folder: " + (f"give {weights}" if weights.is_file() else "give a file in it")
    if name in presets():
        return f"there is no file {name}: for random weights use flowsr.from_preset"
    if (found := what_is_at(path)) != "no such file":
        return f"{path} is {found}: give a file"
    return f"there is no file {quoted(name, most=200)}{did_you_mean(name, _names())}"


def _load_safetensors(path: Path) -> ImageModel:
    try:
        with _named_in_utf8(path) as plain, safe_open(plain, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            held = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a mapping
            model, config, provenance = _read_metadata(metadata, held, path)
            expected = outline(model, config, len(held), name=str(path))
            check_names(expected, held, config=config, name=str(path))
            for key, shape in expected.items():
                check_shape(key, shape, held[key], name=str(path))
            state = {key: file.get_tensor(key) for key in held}
    except (SafetensorError, OSError, OverflowError) as error:
        raise CheckpointError(
            f"expected a complete safetensors file; {path} cannot be read: {quoted(error, most=200)}"
        ) from None
    dtype = _check_values(state, metadata, path)
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random state
        flow = model(config).to(dtype)
    flow.load_state_dict(state)
    flow.provenance = provenance
    return flow


@contextmanager
def _named_in_utf8(path: Path) -> Iterator[Path]:
    """The file under a name that safetensors opens: for bytes that are not UTF-8, a passing link to it."""
    if str(path).isascii() or os.fsencode(path).decode(errors="ignore") == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "model.safetensors")
        link.symlink_to(path.absolute())
        yield link


def _read_metadata(metadata: dict[str, str], held: Shapes, path: Path) -> tuple[type[ImageModel], Any, dict[str, Any]]:
    """The model, its configuration and its provenance, as the header of a file says them."""
    model = REGISTRY.get(metadata.get("model", ""))
    if not metadata and any(key.startswith("transform.") for key in held):
        raise CheckpointError(NO_CONFIGURATION.format(path))
    if metadata.get("flowsr_format") != _FORMAT or model is None:
        raise CheckpointError(
            f"expected a file written by flowsr.save (format {_FORMAT}, model {', '.join(REGISTRY)}); {path} says "
            f"format {quoted(metadata.get('flowsr_format'))}, model {quoted(metadata.get('model'))}"
        )
    try:
        config = model.config_class.from_dict(json.loads(metadata["config"]))
        return model, config, dict(json.loads(metadata["provenance"]))
    # All that a text may hold in the place of another: ValueError and RecursionError (a RuntimeError) of JSON, others
    # of values of another type.
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"expected a valid configuration in {path}; {quoted(error, most=300)}") from None


def _check_values(state: dict[str, torch.Tensor], metadata: dict[str, str], path: Path) -> torch.dtype:
    """Refuse tensors that are not those that were written, or are no weights; the dtype that they share."""
    said = metadata.get(_DIGEST)
    if said is not None and said != content_digest(state, {k: v for k, v in metadata.items() if k != _DIGEST}):
        raise CheckpointError(
            f"expected {path} as it was written; it is damaged or was altered since, as its SHA-256 does not fit: take "
            "another copy of it"
        )
    dtypes = {value.dtype for value in state.values()} - {torch.bool}
    if len(dtypes) != 1 or not dtypes <= _DTYPES:
        raise CheckpointError(f"expected one floating dtype in {path}; got {', '.join(sorted(map(str, dtypes)))}")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise CheckpointError(f"expected finite weights in {path}; got NaN or infinity")
    if said is None:
        warnings.warn(
            f"{path} was written without a digest, before flowsr.save had one: whether its numbers are whole cannot be "
            "told; load it and save it again, if you trust it",
            stacklevel=2,
        )
    return dtypes.pop()
