"""flowsr: HCFlow, a flow between an image and its low-resolution version, as Pyro transforms and distributions.

What it offers is listed once, in ``__init__.pyi`` beside this file, for editors and for here: names are looked up when
first used, so that ``flowsr --help`` need not wait for torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
