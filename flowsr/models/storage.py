"""Saving and loading: tensors in safetensors, configuration and provenance in the file's metadata.

Loading never runs code from a file: safetensors holds tensors only, and a ``.pth`` is read with ``weights_only``.
"""

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from flowsr._support.atomic import atomic_path
from flowsr.errors import CheckpointError, did_you_mean
from flowsr.models.conditional import ConditionalModel
from flowsr.models.hcflow import HCFlow
from flowsr.models.image_model import ImageModel, ModelType
from flowsr.models.official import HCFLOW_LAYOUT, IRN_LAYOUT, SRFLOW_LAYOUT, find_layout, from_official
from flowsr.models.registry import REGISTRY, presets
from flowsr.models.weights import RELEASES, ReleaseName, ShippedName, fetch_release, shipped_path

_FORMAT = "1"

OFFICIAL_LAYOUTS = (HCFLOW_LAYOUT, SRFLOW_LAYOUT, IRN_LAYOUT)
"""The key layouts of released weights that :func:`load` reads."""


def save(flow: ImageModel, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write a model to one safetensors file; configuration and ``flow.provenance`` go into its metadata.

    The file appears whole or not at all.

    Args:
        flow: the model.
        path: a name that ends in ``.safetensors``, in a folder that exists.
        overwrite: replace an existing file.

    Raises:
        ValueError: for another suffix, or provenance that JSON cannot hold.
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
    tensors = {key: value.detach().contiguous().cpu() for key, value in flow.state_dict().items()}
    with atomic_path(path, overwrite=overwrite) as temporary:
        save_file(tensors, temporary, metadata)


def _registered_name(flow: ImageModel) -> str:
    for name, model in REGISTRY.items():
        if type(flow) is model:
            return name
    raise ValueError(f"expected a model of flowsr.models.REGISTRY, {', '.join(REGISTRY)}; got {type(flow).__name__}")


def _to_json(provenance: dict[str, Any]) -> str:
    try:
        return json.dumps(provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected flow.provenance to hold JSON's finite values; got {provenance}") from error


@overload
def load(source: ShippedName | ReleaseName, *, device: str | torch.device = "cpu") -> HCFlow: ...


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

    A name gives the weights that come with the package (``sr-x4-small``, ``rescaling-x4-small``) or the authors'
    released ones (``sr-x4``, ``sr-x8``, ``rescaling-x4``), which are fetched once into a cache, see
    :func:`flowsr.models.weights.fetch_release`.

    An editor knows what a name gives. What is in a file of your own it cannot know, and takes it for a model of HR
    images given their LR images, with ``sample``, ``condition`` and ``encode``; ``model`` says more, and holds the file
    to it: ``flowsr.load("mine.safetensors", model=flowsr.Glow)``.

    Cost: reading the file once.

    Args:
        source: a ``.safetensors`` of :func:`save`, an official ``.pth``, or a name.
        model: the class that the file must hold; by default any.
        device: where the weights go.

    Returns:
        An instance of ``model``, of one of the classes in ``flowsr.models.REGISTRY``.

    Raises:
        FileNotFoundError: if there is neither a file nor a name like that.
        DownloadError: if released weights cannot be fetched.
        CheckpointError: if the file is truncated, of another architecture, has missing or surplus keys, is a pickle
            that holds more than tensors, or holds another ``model``.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> flow.sample(torch.rand(3, 6, 8)).shape
        torch.Size([1, 3, 24, 32])
    """
    path = Path(source)
    name = str(source)
    if not path.is_file():
        if shipped := shipped_path(name):
            path = shipped
        elif name in RELEASES:
            path = fetch_release(name)
        else:
            raise FileNotFoundError(
                f"expected a .safetensors or official .pth file, or a name among {', '.join(_names())}; "
                f"{_what_instead(path, name)}"
            )
    if path.suffix == ".safetensors":
        flow = _load_safetensors(path)
    elif path.suffix in (".pth", ".pt"):
        flow = _load_official(path)
    else:
        raise CheckpointError(f"expected a file that ends in .safetensors, .pth or .pt; got {path.name!r}")
    if not isinstance(flow, model):
        raise CheckpointError(f"expected a file that holds a model {model.__name__}; {path} has {type(flow).__name__}")
    # Decorated, as tensors that are made in inference mode can never be differentiated through afterwards.
    return flow.to(device).eval()


def _names() -> list[str]:
    return [name for name in presets() if name in RELEASES or shipped_path(name)]


def _what_instead(path: Path, name: str) -> str:
    """What is there in place of a file of weights, and what to do about it."""
    if path.is_dir():
        weights = path / "model.safetensors"
        return f"{path} is a folder: " + (f"give {weights}" if weights.is_file() else "give a file in it")
    if name in presets():
        return f"there is no file {name}: for random weights use flowsr.from_preset"
    return f"there is no file {name}{did_you_mean(name, _names())}"


def _load_safetensors(path: Path) -> ImageModel:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"expected a complete safetensors file; {path} cannot be read: {error}") from error
    model = REGISTRY.get(metadata.get("model", ""))
    if metadata.get("flowsr_format") != _FORMAT or model is None:
        raise CheckpointError(
            f"expected a file written by flowsr.save (format {_FORMAT}, model {', '.join(REGISTRY)}); {path} says "
            f"format {metadata.get('flowsr_format')}, model {metadata.get('model')}"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random state
            flow = model(model.config_class.from_dict(json.loads(metadata["config"])))
        flow.provenance = dict(json.loads(metadata["provenance"]))
    except (KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:  # RecursionError is a RuntimeError
        raise CheckpointError(f"expected a valid configuration in {path}; {error}") from error
    dtypes = {value.dtype for value in state.values()} - {torch.bool}
    if len(dtypes) != 1 or not dtypes <= {torch.float16, torch.bfloat16, torch.float32, torch.float64}:
        raise CheckpointError(f"expected one floating dtype in {path}; got {', '.join(sorted(map(str, dtypes)))}")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise CheckpointError(f"expected finite weights in {path}; got NaN or infinity")
    flow.to(dtypes.pop())
    try:
        flow.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"expected {path} to hold exactly the weights of {flow.config}; {error}") from error
    return flow


def _load_official(path: Path) -> ImageModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on unusual pickle protocols: what matters is said below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"expected {path} to hold tensors only; it is damaged or holds other objects, and was not unpickled: such "
            "objects can run code. Save a plain state dict."
        ) from error
    except Exception as error:  # damaged files raise nearly anything: RuntimeError, EOFError, KeyError
        raise CheckpointError(f"expected a complete .pth file; {path} cannot be read: {error!r}") from error
    plain = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not plain or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"expected {path} to hold a plain state dict of tensors; got something else")
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_meta:
            kind = "one without values (meta)" if value.is_meta else str(value.layout)
            raise CheckpointError(f"expected dense tensors in {path}; got {kind} in {key}: save with .to_dense()")
    layout = find_layout(state, OFFICIAL_LAYOUTS)
    if layout is None:
        known = "; ".join(f"{known.model.__name__}: {known.example}" for known in OFFICIAL_LAYOUTS)
        raise CheckpointError(
            f"expected {path} in the key layout of a model's authors ({known}); got keys like "
            f"{', '.join(list(state)[:3]) or 'none'}"
        )
    flow = from_official(state, layout, name=str(path))
    flow.provenance = {"imported_from": path.name, "key_layout": f"official {layout.model.__name__}"}
    return flow
