"""Activation memory: keep everything for the backward pass, or compute it again from what is kept."""

from torch import nn

from flowsr.nn import RRDB, BatchStatistics
from flowsr.transforms import Compose
from flowsr.transforms._reversible import MEMORY_MODES, Memory


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
