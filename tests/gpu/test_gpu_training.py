"""Training on a GPU: every recipe and memory mode, a run that goes on, and processes that talk over NCCL."""

import os
import subprocess
import sys

import pytest
import torch
from cases import tiny
from devices import DEVICE

from flowsr.images import write_image
from flowsr.training import Data, Run, recipe, train
from flowsr.training.journal import read_csv
from flowsr.training.recipes import RECIPES
from flowsr.transforms.reversible import MEMORY_MODES

pytestmark = pytest.mark.gpu

NAME = "cpu" if DEVICE == "cpu" else "gpu"

PROGRAM = """
import os, sys
import torch
from cases import tiny
from lightning.fabric import Fabric
from flowsr.training import Data, Run, preparation, recipe, train

def launch(run, *, unused=False):
    fabric = Fabric(accelerator=preparation.choose_accelerator(run.accelerator), devices=1, strategy="ddp")
    fabric.launch()
    assert torch.distributed.get_backend() == sys.argv[4], torch.distributed.get_backend()
    return fabric

import flowsr.training.fit as fit
if sys.argv[4] != "none":
    fit.launch = launch
chosen = recipe("nll", steps=3, batch_size=2, crop=16, halve_at=())
run = Run(accelerator=sys.argv[3], progress=False, pictures=False, log_every=1, validate_every=0)
train(tiny("sr-x4", strength=0.05).double(), Data(folders=sys.argv[1]), out=sys.argv[2], recipe=chosen, run=run)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        write_image(folder / f"{i}.png", torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(i)))
    return folder


def fit(images, out, name="nll", *, steps=3, resume=False, **changes):
    settings = {"halve_at": (), "batch_size": 2, "crop": 32}
    if name.endswith("gan"):
        settings |= {"perceptual": 0.0, "critic_warmup": 1}
    chosen = recipe(name, steps=steps, **settings)
    run = Run(accelerator=NAME, progress=False, pictures=False, log_every=1, validate_every=0, **changes)
    model = tiny("rescaling-x4" if name == "rescaling" else "sr-x4", strength=0.05)
    trained = train(model, Data(folders=images), out=out, recipe=chosen, run=run, resume=resume)
    return trained, [row["loss"] for row in read_csv(out / "train.csv")]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(images, tmp_path, name, precision):
    trained, losses = fit(images, tmp_path / "run", name, precision=precision, channels_last=precision == "bf16")
    assert trained.step == 3 and trained.skipped == 0 and len(losses) == 3
    assert trained.flow.device.type == torch.device(DEVICE).type
    assert all(torch.isfinite(weight).all() for weight in trained.flow.parameters())


def test_memory_modes_make_the_same_steps(images, tmp_path):
    full, *others = (torch.tensor(fit(images, tmp_path / mode, memory=mode)[1]) for mode in MEMORY_MODES)
    for losses in others:
        torch.testing.assert_close(losses, full, rtol=1e-3, atol=1e-3)


def test_a_run_goes_on_where_it_was(images, tmp_path):
    whole, expected = fit(images, tmp_path / "whole", steps=4)
    fit(images, tmp_path / "parts", steps=4, checkpoint_every=2)
    for path in (tmp_path / "parts" / "checkpoints").glob("*4*"):
        path.unlink()
    again, found = fit(images, tmp_path / "parts", steps=4, checkpoint_every=2, resume=True)
    assert again.step == whole.step == 4
    torch.testing.assert_close(torch.tensor(found[-1]), torch.tensor(expected[-1]), rtol=1e-3, atol=1e-3)


def test_processes_that_talk_make_the_same_steps(images, tmp_path):
    """One device bears one process of NCCL: its collectives run, with nobody to wait for."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    paths = os.pathsep.join([*sys.path, os.path.dirname(os.path.dirname(__file__))])
    for backend in ("none", "gloo" if DEVICE == "cpu" else "nccl"):
        arguments = [images, tmp_path / backend, NAME, backend]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", program]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        result = subprocess.run(
            [*map(str, [*command, *arguments])], env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr[-4000:]
    alone, joined = (read_csv(folder / "train.csv") for folder in (tmp_path / "none", tmp_path / backend))
    for one, other in zip(alone, joined, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-6)
