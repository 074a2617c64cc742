"""Every test starts from the same random state, leaves torch's global state alone and an empty parameter store."""

import os
import signal

# Two processes share the cores: with torch's default of one thread per core in each, the suite takes ten times as long.
# Set before torch is loaded, and inherited by what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch
from devices import DEVICE

if os.environ.get("FLOWSR_CHECK_SHAPES"):
    # Shapes in annotations are checked in tests only; test_annotations.py runs a part of the suite like this.
    from jaxtyping import install_import_hook

    install_import_hook("flowsr", "beartype.beartype")


def pytest_collection_modifyitems(items):
    if DEVICE == "cuda" and not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _isolated():
    torch.manual_seed(0)
    pyro.clear_param_store()
    before = _global_state()
    yield
    assert _global_state() == before, "the test changed torch's global state"


@pytest.fixture
def interruptible():
    """Signals end this process and what it starts, also where the tests themselves were started to ignore them."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _global_state():
    return (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.distributions.Distribution._validate_args,
    )
