"""Keeping the parts of a flow that autocast must not touch in full precision."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``x``: bfloat16 is for conditioners, never for the bijection."""
    return torch.autocast(device_type=x.device.type, enabled=False)
