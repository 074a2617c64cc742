"""Two processes over gloo, started as torchrun starts them, against one process at the same global batch."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from flowsr.images import write_image
from flowsr.training.journal import read_csv

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from flowsr.models import HCFlow, SRFlow
from flowsr.training import Data, Run, recipe, train
from flowsr.testing import randomize

torch.manual_seed(3)
images, out, memory, accumulate, name = sys.argv[1:6]
preset = "rescaling-x4-small" if name == "rescaling" else "sr-x4-small"
flow = HCFlow.from_preset(preset, steps=2, conditional_steps=1, hidden_channels=8, features=4, dense_growth=4,
                          conditional_hidden_channels=8, growth=4)
if name == "srflow":
    flow = SRFlow.from_preset("srflow-x4-small", steps=1, hidden_channels=4, features=4, growth=2, rrdbs=1,
                              stacked=(0,))
flow = randomize(flow, strength=0.05).double()
changes = {"perceptual": 0.0, "critic_warmup": 1} if name.endswith("gan") else {}
name = "nll" if name == "srflow" else name
chosen = recipe(name, **changes, steps=4, halve_at=(), learning_rate=1e-4, batch_size=4, crop=32, clip_value=None)
run = Run(accelerator="cpu", progress=False, pictures=False, validate_every=0, log_every=1, memory=memory,
          accumulate=int(accumulate))
train(flow, Data(folders=images, workers=0), out=out, recipe=chosen, run=run)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for i in range(6):
        write_image(folder / f"{i}.png", torch.rand(3, 40, 40, generator=generator))
    return folder


def launch(program, arguments, *, processes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), *map(str, arguments)]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]


def test_a_discriminator_trains_in_two_processes(images, tmp_path):
    # Batch normalization sees half of the batch in each process, so the weights are not those of one process.
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(program, [images, tmp_path / "two", "checkpoint", 1, "nll+l1+perceptual+gan"], processes=2)
    rows = read_csv(tmp_path / "two" / "train.csv")
    assert len(rows) == 4
    assert all("critic" in row for row in rows)
    assert ["adversarial" in row for row in rows] == [False, True, True, True]


# SRFlow has weights that the loss does not reach.
@pytest.mark.parametrize(
    ("name", "memory", "accumulate"),
    [("nll+l1", "reversible", 2), ("rescaling", "full", 1), ("srflow", "checkpoint", 2)],
)
def test_two_processes_train_as_one_does(images, tmp_path, name, memory, accumulate):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(program, [images, tmp_path / "one", "full", 1, name], processes=1)
    launch(program, [images, tmp_path / "two", memory, accumulate, name], processes=2)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    moved = 0.0
    for key, value in one.items():
        if value.is_floating_point():
            # Adam turns rounding noise in gradients that are nearly zero into steps of up to its rate, hence not 1e-12.
            torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-6)
            moved += float(value.abs().sum())
    assert moved > 0
    rows = [read_csv(tmp_path / run / "train.csv") for run in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 4
    for a, b in zip(*rows, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)
    assert rows[0][0]["loss"] != rows[0][-1]["loss"]
