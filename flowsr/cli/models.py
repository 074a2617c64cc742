"""From what a user names to a model, a device and a dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from flowsr.models import ImageModel


_WITHOUT_FLOAT64 = ("mps",)


def open_model(name: str, *, device: str = "cpu", dtype: str = "float32") -> ImageModel:
    """A model for use: a file, shipped weights or released ones by their preset's name, on a device, in a dtype.

    Raises:
        ValueError: if the device or the dtype does not exist, or the weights are not usable.
        OSError: if there is neither a file nor a name like that, or released weights cannot be fetched.
    """
    import torch

    from flowsr.models import load

    return load(name, device=resolve_device(device)).to(getattr(torch, dtype))


def resolve_device(name: str) -> torch.device:
    """A torch device that works here, from its name or "auto".

    Raises:
        ValueError: if torch does not know it, the machine does not have it, or it lacks float64.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None or found.type in _WITHOUT_FLOAT64 else found
    kind = name.split(":")[0]
    if kind in _WITHOUT_FLOAT64:
        raise ValueError(f"expected a device with float64, which determinants are computed in; got {name!r}: use cpu")
    if kind == "meta":
        raise ValueError(f"expected a device that computes, such as cpu; got {name!r}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"expected a device of this machine, such as cpu, or auto; got {name!r}") from error
    return device
