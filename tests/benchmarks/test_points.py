"""Two moons: the true density is one, and a short training comes near it."""

import pytest
import torch

import flowsr
from benchmarks.points import fit, main, nats_above_truth, true_log_density, two_moons


def test_the_truth_has_mass_one_and_is_that_of_the_points():
    side = torch.linspace(-2.0, 3.0, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)[:, :, None, None]
    density = torch.cat([true_log_density(part) for part in grid.split(5000)]).exp() * (side[1] - side[0]) ** 2
    assert abs(float(density.sum()) - 1) < 1e-6
    left = float(density[grid.flatten(1)[:, 0] < 0.2].sum())
    points = two_moons(20_000, seed=3).flatten(1)
    assert abs(float((points[:, 0] < 0.2).double().mean()) - left) < 4 * (left * (1 - left) / 20_000) ** 0.5


def test_no_flow_is_better_than_the_truth_and_training_comes_near_it():
    flow = fit(40, seed=1)
    found, truth, error = nats_above_truth(flow)
    assert -3 * error < found - truth < 0.6
    untrained, _, _ = nats_above_truth(flowsr.RealNVP.from_preset("realnvp-points"))
    assert untrained > found + 0.5


def test_the_command_writes_a_flow_that_loads(tmp_path, capsys):
    path = tmp_path / "points.safetensors"
    assert main(["--steps", "3", "--out", str(path)]) == 0
    assert "above it" in capsys.readouterr().out
    flow = flowsr.load(path, model=flowsr.RealNVP)
    assert "two moons" in flow.provenance["data"]
    with pytest.raises(SystemExit):
        main(["--steps", "3"])
