"""The comparison of architectures at a small size: what is scored, what is kept, and that a worse option is seen."""

import time
from dataclasses import replace

import pytest
import torch
from cases import TINY

from benchmarks import architectures
from benchmarks.architectures import CSV, OPTIONS, Option, Work, bits_of, main, read_csv, row_of, start, table, trained
from benchmarks.training import yardstick
from flowsr.distributions import VariationalDequantizer
from flowsr.images import write_image
from flowsr.models import HCFlow
from flowsr.testing import randomize
from flowsr.training import score_images


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "BASE", TINY)
    small = {"model": {}, "dequantizer_steps": 0}
    monkeypatch.setattr(architectures, "OPTIONS", {name: replace(OPTIONS[name], **small) for name in ("base", "grain")})
    for part, count in (("data", 6), ("set5", 2)):
        (tmp_path / part).mkdir()
        for i in range(count):
            smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 6), size=(40, 48), mode="bicubic")[0]
            write_image(tmp_path / part / f"{i}.png", smooth.clamp(0, 1))
    data, set5 = tmp_path / "data", tmp_path / "set5"
    return Work(data=[data], set5=set5, seconds=0.1, hold_out=2, trial=1, batch=2, crop=16)


def asked(work, tmp_path, *more):
    sizes = ("--seconds", "0.1", "--hold-out", "2", "--trial", "1", "--batch", "2", "--crop", "16")
    where = ("--data", *work.data, "--set5", work.set5, "--out", tmp_path / "kept", "--csv", tmp_path / "runs.csv")
    return [*map(str, where), *sizes, "--only", *more]


def test_every_option_is_a_model_of_like_size_and_a_recipe():
    work = Work(data=[], set5=CSV, seconds=1.0)
    base = sum(p.numel() for p in start(OPTIONS["base"], work).parameters())
    for name, option in OPTIONS.items():
        size = sum(p.numel() for p in start(option, work).parameters())
        assert 0.85 < size / base < 1.2, name
        yardstick("sr-x4-small", 100, **option.recipe)
        assert name == "base" or option.change != "none"


def test_bits_are_those_of_every_other_score_and_a_dequantizer_bounds_them_too():
    flow = randomize(HCFlow.from_preset("sr-x4-small", start="haar", **TINY), strength=0.02).eval()
    image = torch.rand(3, 40, 52).mul(255).round().div(255)
    (score,) = score_images(flow, [("a", image)])
    assert bits_of(flow, image) == pytest.approx(score.bits_per_dim, rel=1e-6)
    assert bits_of(flow, image, VariationalDequantizer(3, steps=1)) == pytest.approx(score.bits_per_dim, rel=0.1)


def test_the_time_of_training_is_that_of_its_steps(work):
    begin = time.process_time()
    _, stamps = trained(architectures.OPTIONS["base"], work, 5)
    whole = time.process_time() - begin
    assert len(stamps) == 5 and stamps == sorted(stamps)
    assert 0 < stamps[-1] - stamps[0] < whole


def test_there_are_as_many_steps_as_time(work, monkeypatch):
    monkeypatch.setattr(architectures, "seconds_per_step", lambda *_: 0.5)
    facts = architectures.run_option(architectures.OPTIONS["base"], replace(work, seconds=1.9))
    assert facts["steps"] == 3 and facts["seconds"] > 0
    assert [len(facts[key]) for key in ("set5_bits", "set5_psnr", "held_out_bits")] == [2, 2, 2]


def test_held_out_images_are_the_same_for_every_seed_and_not_trained_on(work):
    train, held_out = architectures.split(work)
    assert len(train) == 4 and len(held_out) == 2 and not set(train) & set(held_out)
    assert architectures.split(replace(work, seed=5)) == (train, held_out)


def test_an_option_that_does_not_learn_is_seen(work):
    rates = {rate: Option(question="rate", recipe={"learning_rate": rate}) for rate in (1e-9, 3e-3)}
    image = architectures._images(architectures.ImageFolder(architectures.split(work)[1], minimum=16))[0]
    bits = {rate: bits_of(trained(option, work, 40)[0].eval(), image) for rate, option in rates.items()}
    assert bits[3e-3] < bits[1e-9] - 0.1


def test_runs_are_kept_and_a_change_of_the_work_is_refused(work, tmp_path, monkeypatch, capsys):
    assert main(asked(work, tmp_path, "base")) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert first.startswith("base ")
    (kept,) = (tmp_path / "kept").iterdir()
    before = kept.read_bytes()
    run = architectures.run_option
    monkeypatch.setattr(architectures, "run_option", lambda *_: pytest.fail("the run is there already"))
    assert main(asked(work, tmp_path, "base")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first and kept.read_bytes() == before
    with pytest.raises(ValueError, match=r"expected runs of the same options and work in .*; got base 0.json: take an"):
        main([*asked(work, tmp_path, "base"), "--seconds", "0.2"])
    monkeypatch.setattr(architectures, "run_option", run)
    assert main([*asked(work, tmp_path, "grain", "base"), "--seeds", "0", "1"]) == 0
    rows = read_csv(tmp_path / "runs.csv")
    assert [(row["option"], row["seed"]) for row in rows] == [
        ("base", "0"),
        ("base", "1"),
        ("grain", "0"),
        ("grain", "1"),
    ]
    assert all(row["machine"] and row["steps"] for row in rows)


def test_the_table_has_means_and_spreads_over_seeds():
    facts = {"machine": {"cpu": "one", "threads": "1", "torch": "2"}, "parameters": 934528, "steps": 9, "seconds": 80.4}
    facts |= {"name": "base", "more_seconds": 0.0, "set5_psnr": [26.0, 28.0], "set5_lr_psnr": [45.0, 47.0]}
    rows = [
        row_of({**facts, "seed": seed, "set5_bits": [3.0, 5.0 + seed], "held_out_bits": [3.0, 3.2]}) for seed in (0, 1)
    ]
    assert rows[0]["set5"] == "4.000" and rows[1]["set5_worst"] == "6.00" and rows[0]["held_out"] == "3.100"
    cells = table(rows).splitlines()[1].split("  ")
    assert [cell.strip() for cell in cells if cell] == [
        *("base", "none", "0.93M", "9", "80", "2"),
        *("4.250 ±0.354", "5.50 ±0.71", "3.100 ±0.000", "27.00 ±0.00", "46.00 ±0.00"),
    ]


def test_a_transformer_in_a_coupling_starts_at_the_identity_and_is_a_bijection():
    torch.manual_seed(0)
    option = Option(question="transformer", transformer=(16, 1), model=TINY)
    flow = start(option, Work(data=[], set5=CSV, seconds=1.0)).double().eval()
    kinds = [type(step.coupling.conditioner).__name__ for step in flow.transform.conditionals[0].steps.parts]
    assert set(kinds) == {"PatchTransformer"}
    level = flow.transform.conditionals[0]
    details, features = torch.rand(level.channels, 4, 8).double(), torch.rand(level.encoder.out_channels, 4, 8).double()
    assert level.steps.parts[0].coupling.inv_call_and_ladj(details, features)[0].allclose(details)
    step = randomize(level).steps.parts[0].coupling

    def encoded(flat):
        return step.inv_call_and_ladj(flat.reshape(details.shape), features)[0].flatten()

    jacobian = torch.autograd.functional.jacobian(encoded, details.flatten())
    z, ladj = step.inv_call_and_ladj(details, features)
    assert torch.allclose(ladj, torch.linalg.slogdet(jacobian)[1], atol=1e-9)
    assert torch.allclose(step.call_and_ladj(z, features)[0], details, atol=1e-9)


def test_crops_are_scored_as_images_of_their_own(work, tmp_path):
    write_image(tmp_path / "one.png", torch.rand(3, 48, 80))
    (path,) = architectures.set5_files(tmp_path)
    crops = architectures._images(architectures.ImageFolder(path.parent, minimum=16), 16)
    assert len(crops) == 9 and {tuple(crop.shape) for crop in crops} == {(3, 16, 16)}
