"""Export to ArviZ: dimensions, values, and a round trip through a file."""

import types
import warnings

import numpy as np
import pytest
import torch

from flowsr.errors import MissingExtraError
from flowsr.posterior import GaussianLR, GaussianNoise, Identity, InverseProblem, LinearGaussianFlow, solve
from flowsr.posterior.arviz_export import _from_dict, to_arviz

with warnings.catch_warnings():
    # ArviZ 0.23 announces its refactoring when it is imported.
    warnings.simplefilter("ignore")
    arviz = pytest.importorskip("arviz")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:arviz", "ignore::DeprecationWarning")


def _solution():
    flow = LinearGaussianFlow(detail_std=(0.1, 0.05), image_channels=2)
    prior = GaussianLR(torch.full((2, 2, 3), 0.5), std=0.1)
    problem = InverseProblem(flow, prior, Identity(), torch.rand(2, 8, 12), GaussianNoise(0.1))
    return solve(problem, "pcn", num_samples=8, num_warmup=4, num_chains=3, num_steps=2, seed=5)


def test_round_trip(tmp_path):
    solution = _solution()
    data = to_arviz(solution)
    path = tmp_path / "draws.nc"
    data.to_netcdf(str(path))
    back = arviz.from_netcdf(str(path))
    assert back.posterior["z_2"].dims == ("chain", "draw", "z_2_channel", "z_2_y", "z_2_x")
    assert back.posterior["z_1"].shape == (3, 8, 6, 4, 6)
    assert back.posterior["lr"].shape == (3, 8, 2, 2, 3)
    images = solution.images().reshape(3, 8, 2, 8, 12)
    assert np.allclose(back.posterior["hr"].values, images.numpy(), atol=1e-6)
    expected = solution.problem.log_likelihood(images)
    assert np.allclose(back.log_likelihood["joint"].values, expected.numpy(), rtol=1e-5)
    assert np.allclose(back.observed_data["observation"].values, solution.problem.observation.numpy())
    assert back.posterior.attrs["inference_library"] == "flowsr"
    assert back.posterior.attrs["method"] == "pcn" and back.posterior.attrs["seed"] == 5
    lr, z = solution.problem.unwhiten(torch.from_numpy(solution.latents.numpy()))
    assert np.allclose(back.posterior["z_1"].values, z[1].numpy()) and np.allclose(
        back.posterior["lr"].values, lr.numpy()
    )
    assert "z_1" in arviz.rhat(back, var_names=["z_1"])


def test_images_can_be_left_out():
    assert "hr" not in to_arviz(_solution(), images=False).posterior


def test_the_newer_signature_gets_a_dict_of_groups():
    seen = {}

    def from_dict(data, *, name=None, dims=None, attrs=None):
        seen.update(data=data, dims=dims, attrs=attrs)
        return "tree"

    groups = {
        "posterior": {"z_1": np.zeros((2, 3, 1, 4, 4))},
        "log_likelihood": {"joint": np.zeros((2, 3))},
        "observed_data": {"observation": np.zeros((1, 4))},
    }
    assert (
        _from_dict(types.SimpleNamespace(from_dict=from_dict), groups, {"z_1": ["c", "y", "x"]}, {"seed": 1}) == "tree"
    )
    assert set(seen["data"]) == {"posterior", "log_likelihood", "observed_data"}
    assert seen["attrs"] == {"posterior": {"seed": 1}}
    assert seen["dims"]["observation"] == ["observation_0", "observation_1"]


def test_without_arviz(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'flowsr\[arviz\]'"):
        to_arviz(_solution())
