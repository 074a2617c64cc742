"""The commands that measure chains on the shipped model's posterior, and that make references of it."""

import pytest
import torch

from benchmarks.posterior import references
from benchmarks.posterior.__main__ import main, photograph_problem
from flowsr.known_posteriors import known_posterior
from flowsr.known_posteriors.model_problems import read_reference
from flowsr.models.weights import shipped_path

pytestmark = pytest.mark.skipif(shipped_path("sr-x4-small") is None, reason="needs the shipped weights")


def test_long_runs_of_several_problems_at_once_find_each_posterior():
    """On linear problems, whose posteriors are closed formulas: coordinates of each, steps for all."""
    known = [known_posterior(name) for name in ("linear-deblurring", "linear-inpainting")]
    run = references.LongRun([one.problem for one in known], chains=4, seed=0)
    run.warm_up((20, 20, 40))
    run.extend(200)
    for number, one in enumerate(known):
        images, rhat, ess = run.statistics(number)
        z = one.reference.standardized(images.flatten(0, 1))
        mean_error, std_error = references.batch_errors(images)
        assert min(ess.values()) > 150 and max(rhat.values()) < 1.1
        assert float(z.mean(0).abs().max()) < 0.3 and float((z.std(0) - 1).abs().max()) < 0.25
        off = (images.flatten(0, 1).double().mean(0) - one.reference.mean) / mean_error
        assert 0.4 < float(off.square().mean().sqrt()) < 2.0  # the errors are as large as they are said to be
        assert bool((std_error > 0).all())


@pytest.mark.slow
def test_a_row_is_printed_for_each_problem_and_start(capsys):
    short = ["--size", "8", "--chains", "2", "--warmup", "1", "--samples", "4", "--method", "pcn", "--num-steps", "1"]
    assert main([*short, "--start", "draw"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["problem", "start", "R-hat"]
    assert [row.split()[:2] for row in rows] == [["inpainting", "draw"], ["deblurring", "draw"]]
    assert all(row.split()[4] == "8" and int(row.split()[5]) > 50 for row in rows)


@pytest.mark.slow
def test_a_reference_of_the_model_is_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "WARMUP", (2, 2))
    names = ["inpainting-16", "poisson-16"]
    assert (
        references.main([*names, "--out", str(tmp_path), "--chains", "2", "--segment", "8", "--minutes", "0.01"]) == 0
    )
    for name in names:
        known = read_reference(tmp_path / f"{name}.npz")
        assert known.name == name and known.reference.how == "HMC, 2 chains of 8 draws"
        assert not known.reference.attained and known.reference.kept.shape == (100, 3, 16, 16)


def test_what_is_no_problem_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["denoising"])
    assert "expected problems of inpainting, deblurring; got denoising" in capsys.readouterr().err


def test_the_photograph_explains_what_was_observed_of_it():
    problem = photograph_problem("deblurring", 16)
    assert problem.observation.shape == (3, 16, 16) and problem.dims == 3 * (256 - 16)
    assert torch.equal(problem.observation, photograph_problem("deblurring", 16).observation)
