"""Libraries that only some jobs need: each comes with an extra of the package, which is named where it is missing.

What loads a model, draws, scores, and reads and writes images is always installed. The rest is imported here alone, so
that its absence is said in one way, and before anything is begun.
"""

import warnings
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from flowsr.errors import MissingExtraError

EXTRAS = {
    "arviz": "arviz",
    "lightning": "train",
    "tensorboard": "tensorboard",
    **dict.fromkeys(("zuko", "nflows", "deepinv", "sbi", "onnx", "onnxscript", "onnxruntime"), "interop"),
}
"""The extra, as pyproject.toml has it, that brings each optional library."""


def import_extra(module: str, *, to: str, quietly: bool = False) -> Any:
    """An optional module, imported without what its import changes for the whole process.

    zuko switches off the validation of arguments of all distributions of torch, and sbi imports zuko: afterwards it is
    as it was before.

    Cost: the import, where it is the first.

    Args:
        module: its full name, whose first part is a key of :data:`EXTRAS`.
        to: what it is needed for, as the end of "expected … to".
        quietly: without its warnings of what will change one day: nothing a user of flowsr can do anything about.

    Raises:
        MissingExtraError: if it is not installed. An installed one that fails to import raises what it raises.

    Example:
        >>> import sys
        >>> arviz, sys.modules["arviz"] = sys.modules.get("arviz"), None  # as if it were not installed
        >>> import_extra("arviz", to="hand over draws")
        Traceback (most recent call last):
        flowsr.errors.MissingExtraError: expected arviz to hand over draws; it is not installed: pip install ...
        >>> _ = sys.modules.pop("arviz") if arviz is None else sys.modules.update(arviz=arviz)
    """
    from torch.distributions import Distribution

    library, validates = module.partition(".")[0], Distribution._validate_args
    try:
        # Where it is not quiet, the filters that its import sets stay.
        with warnings.catch_warnings(action="ignore") if quietly else nullcontext():
            return import_module(module)
    except ModuleNotFoundError as error:
        # The folder "lightning" of somebody's work is a module without contents: then a part of it is not found.
        if (error.name or "").partition(".")[0] != library:
            raise
        raise MissingExtraError(
            f"expected {library} to {to}; it is not installed: pip install 'flowsr[{EXTRAS[library]}]'"
        ) from error
    finally:
        Distribution.set_default_validate_args(validates)
