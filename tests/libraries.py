"""Libraries that the tests of adapters need, and that need not be installed."""

import pytest

from flowsr.interop.libraries import library


def optional(name):
    """A library, or a module of it, and the mark of the tests that need it."""
    try:
        return library(name), pytest.mark.skipif(False, reason="")
    except ImportError as error:
        return None, pytest.mark.skipif(True, reason=str(error))
