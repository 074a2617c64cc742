"""Activation memory: keep everything for the backward pass, or compute it again from what is kept."""

from flowsr.models import HCFlow
from flowsr.nn import RRDB
from flowsr.transforms import Compose
from flowsr.transforms._reversible import MEMORY_MODES, Memory


def set_memory(flow: HCFlow, mode: Memory) -> None:
    """Choose what a model keeps for the backward pass; gradients are the same up to rounding.

    ========== ============================== ==================================
    mode       kept per level                 extra work of a training step
    ========== ============================== ==================================
    full       every activation               none
    checkpoint the input of each flow step    one more forward pass
    reversible the level's result             two more passes through flow steps
    ========== ============================== ==================================

    In the last two the RRDBs of the encoders keep their inputs only.

    Cost: none here.

    Args:
        flow: the model, changed in place; state dicts are not affected.
        mode: full, checkpoint or reversible.

    Raises:
        ValueError: for another mode.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> set_memory(flow, "reversible")
        >>> {module.memory for module in flow.modules() if isinstance(module, Compose)}
        {'reversible'}
    """
    if mode not in MEMORY_MODES:
        raise ValueError(f"expected memory to be full, checkpoint or reversible; got {mode!r}")
    for module in flow.modules():
        if isinstance(module, Compose):
            module.memory = mode
        elif isinstance(module, RRDB):
            block: RRDB = module
            block.recompute = mode != "full"
