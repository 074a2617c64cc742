"""Files in, files out: what each command does, one module per command, for use from Python too."""

import pkgutil

import lazy_loader

# Found in this folder, and loaded when first used: a command needs one of them.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, {module.name for module in pkgutil.iter_modules(__path__)})
