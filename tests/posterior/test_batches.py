"""Chains, particles and climbs that do not fit into memory together go in parts, with the same result."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from cases import tiny_flow

from flowsr.models import memory
from flowsr.models.memory import batch_that_fits, memory_estimate
from flowsr.posterior import GaussianNoise, Identity, InverseProblem, LinearGaussianFlow, log_evidence, solve


def _problem():
    flow = LinearGaussianFlow(detail_std=(0.1,)).double()
    lr = torch.full((1, 2, 2), 0.5).double()
    hr = flow.sample(lr, generator=torch.Generator().manual_seed(0))[0]
    return InverseProblem(flow, lr, Identity(), hr, GaussianNoise(0.1))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "hmc", "start": "laplace", "steps": 20},
        {"method": "langevin", "num_steps": 2},
        {"method": "pcn", "start": "mode", "num_steps": 2, "steps": 20},
    ],
    ids=lambda options: options["method"],
)
def test_chains_in_parts_are_those_of_one_batch(options: dict[str, Any], monkeypatch):
    asked = []
    together = solve(_problem(), num_samples=6, num_warmup=6, num_chains=5, **options)

    def few(self, most, *, gradients=True):
        asked.append((most, gradients))
        return min(most, 2)

    monkeypatch.setattr(InverseProblem, "batch", few)
    problem = _problem()
    decode, largest = problem.flow.decode, [0]

    def watched(lr, z):
        largest.append(z[0].shape[:-3].numel())
        return decode(lr, z)

    monkeypatch.setattr(problem.flow, "decode", watched)
    apart = solve(problem, num_samples=6, num_warmup=6, num_chains=5, **options)
    assert torch.allclose(together.latents, apart.latents, atol=1e-9)
    assert (5, options["method"] != "pcn") in asked
    # Sixteen draws near which modes are looked for, and lines of nine points, stay small whatever there is.
    assert sorted(set(largest))[-1] <= 16


def test_particles_in_parts_are_those_of_one_batch(monkeypatch):
    options: dict[str, Any] = {"num_particles": 12, "num_runs": 2, "num_steps": 1}
    together = log_evidence(_problem(), **options)
    monkeypatch.setattr(InverseProblem, "batch", lambda self, most, gradients=True: 5)
    assert torch.allclose(together.runs, log_evidence(_problem(), **options).runs, atol=1e-9)


def test_as_many_fit_as_are_estimated_to(monkeypatch):
    flow = tiny_flow("sr-x4", levels=1)
    for parameter in flow.parameters():
        parameter.requires_grad_(False)  # as while solving
    one, ten = (memory_estimate(flow, (64, 64), batch=batch, task="infer") for batch in (1, 10))
    assert ten > one
    for free, most, expected in ((ten / 0.75 + 1, 64, 10), (ten / 0.75 + 1, 3, 3), (1, 64, 1)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: int(free))
        assert abs(batch_that_fits(flow, (64, 64), most=most, task="infer") - expected) <= (expected == 10)
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert batch_that_fits(flow, (64, 64), most=64, task="infer") == 64


_MEASURE = """
import json, torch
torch.set_num_threads(1)
import flowsr
from flowsr.models import memory
from flowsr.posterior import GaussianNoise, Identity, InverseProblem, solve
memory.free_memory = lambda device: 400_000_000
flow = flowsr.HCFlow.from_preset("sr-x4-small")
problem = InverseProblem(flow, torch.full((3, 20, 20), 0.5), Identity(), torch.rand(3, 80, 80), GaussianNoise(0.1))
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
solve(problem, "map", steps=1)
before = peak()
solve(problem, "hmc", num_samples=4, num_warmup=0, num_chains=64, trajectory=1e-3)
print(json.dumps([problem.batch(64), peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux tells it")
def test_many_chains_of_a_large_image_stay_within_what_is_free():
    found = subprocess.run([sys.executable, "-c", _MEASURE], check=True, capture_output=True, text=True).stdout
    batch, used = json.loads(found)
    assert 1 < batch < 64 and used < 400_000_000, (batch, used / 1e6)
