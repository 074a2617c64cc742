"""Types and shapes in annotations hold: a part of the suite runs with every annotation of the package checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PARTS = ["models/test_models.py", "models/test_golden.py", "models/test_family.py", "test_programs.py"]
PARTS += ["distributions/test_distributions.py", "distributions/test_composition.py"]


@pytest.mark.slow
def test_annotations():
    # Messages are left out: the checker refuses bad input before the package can. So are the slowest inferences, and
    # compiled models: the checker's own code cannot be traced.
    selection = "not messages and not hmc and not svi and not presets and not memory_modes and not compiles"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "filterwarnings=ignore", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", selection, *(str(HERE / part) for part in PARTS)],
        env={**os.environ, "FLOWSR_CHECK_SHAPES": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
