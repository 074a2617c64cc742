"""Libraries that are not needed unless their adapter is used: imported then, and quietly."""

from functools import cache
from typing import Any

from torch import nn

from flowsr._support.extras import import_extra


def library(name: str) -> Any:
    """Import an optional library, or a module of it, without what its import changes for the whole process.

    zuko switches off the validation of arguments of all distributions of torch, and sbi imports zuko: afterwards it is
    as it was before. Somebody who imports them himself switches it on again by
    ``torch.distributions.Distribution.set_default_validate_args(True)``.

    Cost: that of the import, once: sbi and deepinv take seconds.

    Args:
        name: as in an ``import`` statement.

    Raises:
        MissingExtraError: naming the extra of flowsr to install.

    Example:
        >>> library("json").dumps([1])
        '[1]'
    """
    return import_extra(name, to="use its adapter", quietly=True)


@cache
def subclass(adapter: type[nn.Module] | type, module: str, base: str) -> Any:
    """An adapter made a subclass of a library's class, which is known only once the library is imported.

    Its name is that of the adapter without the underscore. The adapter's module hands it out by its ``__getattr__``,
    so that pickle finds it in another process too.

    Args:
        adapter: a class whose name starts with an underscore, written as if it had that base.
        module: of the library, where the base is.
        base: name of the base.

    Raises:
        MissingExtraError: if the library is not installed.

    Example:
        >>> class _Table:
        ...     def to_text(self):
        ...         return " ".join(self)
        >>> subclass(_Table, "collections", "OrderedDict")(a=1, b=2).to_text()
        'a b'
    """
    parent = getattr(library(module), base)
    return type(
        adapter.__name__.removeprefix("_"),
        (adapter, parent),
        {"__module__": adapter.__module__, "__doc__": adapter.__doc__},
    )
