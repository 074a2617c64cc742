"""The command that measures chains on the shipped model's posterior."""

import pytest
import torch

from benchmarks.posterior import main, photograph_problem
from flowsr.models.weights import shipped_path

pytestmark = pytest.mark.skipif(shipped_path("sr-x4-small") is None, reason="needs the shipped weights")


@pytest.mark.slow
def test_a_row_is_printed_for_each_problem_and_start(capsys):
    short = ["--size", "8", "--chains", "2", "--warmup", "1", "--samples", "4", "--method", "pcn", "--num-steps", "1"]
    assert main([*short, "--start", "draw"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["problem", "start", "R-hat"]
    assert [row.split()[:2] for row in rows] == [["inpainting", "draw"], ["deblurring", "draw"]]
    assert all(row.split()[4] == "8" and int(row.split()[5]) > 50 for row in rows)


def test_what_is_no_problem_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["denoising"])
    assert "expected problems of inpainting, deblurring; got denoising" in capsys.readouterr().err


def test_the_photograph_explains_what_was_observed_of_it():
    problem = photograph_problem("deblurring", 16)
    assert problem.observation.shape == (3, 16, 16) and problem.dims == 3 * (256 - 16)
    assert torch.equal(problem.observation, photograph_problem("deblurring", 16).observation)
