"""Training and evaluation of the whole family: every kind of model through a run, its figures, and the refusals."""

import json
import math

import pyro
import pytest
import torch
from cases import tiny
from commands import refused, run

import flowsr
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.images import bicubic_down, make_lr, read_image, round_to_8bit, write_image
from flowsr.likelihood import decompose
from flowsr.models import Capability, presets
from flowsr.nn import BatchStatistics
from flowsr.training import (
    Data,
    Objective,
    Run,
    likelihood_loss,
    likelihood_svi,
    recipe,
    score_images,
    set_memory,
    train,
)
from flowsr.training.crops import Batch
from flowsr.training.journal import read_csv
from flowsr.training.preparation import build_model, check_data
from flowsr.training.recipes import default_recipe
from flowsr.training.trainer import Trainer
from flowsr.workflows.evaluate import evaluate_files
from flowsr.workflows.report import build_report
from flowsr.workflows.score import score_file

QUICK = {"accelerator": "cpu", "progress": False, "pictures": False, "validate_every": 0, "log_every": 1}
CONDITIONAL = ("sr-x4", "rescaling-x4", "srflow-x4", "irn-x2", "irn-x3", "irn-x4")
DENSITIES = ("glow", "realnvp", "realnvp-small")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = torch.Generator().manual_seed(4)
    for i in range(3):
        small = torch.rand(1, 3, 6, 6, generator=generator)
        smooth = torch.nn.functional.interpolate(small, size=(36 + 5 * i, 43), mode="bilinear")[0]
        write_image(folder / f"{i}.png", smooth)
    return folder


def short(flow, steps=3, **changes):
    settings = {"learning_rate": 1e-4, "halve_at": (), "batch_size": 2, "crop": 24 if flow.multiple == 3 else 16}
    return recipe(default_recipe(flow), flow=flow, steps=steps, **{**settings, **changes})


def saved(name, tmp_path):
    path = tmp_path / f"{name}.safetensors"
    flowsr.save(tiny(name, strength=0.05), path)
    return path


# -- training


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_every_model_goes_through_a_run(name, images, tmp_path):
    flow, out = tiny(name, strength=0.05), tmp_path / "run"
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    data = Data(folders=images, hold_out=1)
    trained = train(flow, data, out=out, recipe=short(flow), run=Run(**{**QUICK, "pictures": True}))
    assert (trained.step, trained.skipped, trained.flow) == (3, 0, flow)
    rows = read_csv(out / "train.csv")
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert all(("encoded_lr_psnr" in row) == (Capability.LR_LATENT in flow.capabilities) for row in rows)
    assert ("psnr_mean" in trained.validation) == (Capability.CONDITION in flow.capabilities)
    assert ("bits_per_dim" in trained.validation) == (Capability.DOWNSCALE not in flow.capabilities)
    assert (out / "pictures" / "step-00000003.png").exists()
    loaded = flowsr.load(out / "model.safetensors")
    assert type(loaded) is type(flow)
    assert all(torch.equal(value, flow.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["srflow-x4", "realnvp"])
def test_resuming_gives_the_same_weights(name, images, tmp_path):
    settings = Run(**QUICK, checkpoint_every=2)
    whole = train(tiny(name, strength=0.05), images, out=tmp_path / "a", recipe=short(tiny(name), 4), run=settings)
    (tmp_path / "a" / "checkpoints" / "step-00000004.ckpt").unlink()
    other = tiny(name, strength=0.2)
    resumed = train(other, images, out=tmp_path / "a", recipe=short(other, 4), run=settings, resume=True)
    own = whole.flow.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in resumed.flow.state_dict().items())


@pytest.mark.parametrize("name", presets())
def test_every_preset_of_images_has_a_recipe_that_fits(name):
    if name == "realnvp-points":
        return
    with torch.device("meta"):
        flow = presets()[name].from_preset(name)
    chosen = recipe(default_recipe(flow), flow=flow)
    assert chosen.crop % flow.multiple == 0 and 128 <= chosen.crop <= 160
    assert chosen.task == ("rescaling" if Capability.DOWNSCALE in flow.capabilities else "super-resolution")


def test_the_start_is_for_models_that_have_one():
    assert build_model("sr-x4-small", "rotation")[1] == "rotation"
    assert build_model("sr-x4-small")[1] == "haar"
    assert build_model("srflow-x4-small")[1] == "random weights"
    with pytest.raises(ValueError, match="expected no start for glow-small, as Glow has no choice; got 'haar'"):
        build_model("glow-small", "haar")
    with pytest.raises(ValueError, match="expected a preset among sr-x4"):
        build_model("no-such-preset")


def test_points_and_lr_images_are_refused_where_they_make_no_sense(images, tmp_path):
    with pytest.raises(ValueError, match=r"expected a model of gray or RGB images.*RealNVP of 2 channels"):
        check_data(Data(folders=images), build_model("realnvp-points")[0])
    for data in (Data(folders=images, lr_folders=images), Data(folders=images, degradation=lambda hr, **_: hr)):
        with pytest.raises(ValueError, match="expected no LR images for Glow"):
            check_data(data, tiny("glow"))
    assert not (tmp_path / "run").exists()


def test_recipes_that_do_not_fit_are_refused():
    glow = tiny("glow")
    with pytest.raises(
        ValueError, match=r"expected a recipe of the likelihood alone for Glow.*likelihood, l1: take nll"
    ):
        recipe("nll+l1", flow=glow)
    with pytest.raises(ValueError, match="expected a recipe of the likelihood alone for Glow"):
        train(glow, "nowhere", out="nowhere", recipe="rescaling")
    with pytest.raises(ValueError, match="expected a recipe for rescaling; got 'nll'"):
        recipe("nll", flow=tiny("irn-x4"))
    with pytest.raises(ValueError, match=r"expected lr_log_scale -6.*this SRFlow.*got -6 and -1.0: leave them out"):
        recipe("nll", flow=tiny("srflow-x4"), lr_log_scale_start=-1.0)
    with pytest.raises(ValueError, match="has no width to set"):
        recipe("nll", flow=tiny("sr-x4", learned_lr_width=True), lr_log_scale=-5.0)
    with pytest.raises(ValueError, match="expected a crop that is a multiple of 8; got 20"):
        recipe("nll", flow=tiny("srflow-x4"), crop=20)
    with pytest.raises(ValueError, match="downscale; got SRFlow"):
        Objective(tiny("srflow-x4"), recipe("rescaling"))


def test_a_learned_width_is_trained(images, tmp_path):
    flow = tiny("sr-x4", strength=0.05, learned_lr_width=True)
    before = flow.log_width.detach().clone()
    trained = train(flow, images, out=tmp_path / "a", recipe=short(flow, 2, ema=0.0), run=Run(**QUICK))
    assert not torch.equal(trained.flow.log_width, before)
    loaded = flowsr.load(tmp_path / "a" / "model.safetensors")
    assert torch.equal(loaded.log_width, trained.flow.log_width)
    hr, lr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
    seen = likelihood_loss(flow, hr, lr)[1]
    psnr = -10 * (flow.encode(hr).lr - lr).square().mean((-3, -2, -1)).log10().mean()
    assert torch.allclose(seen["encoded_lr_psnr"], psnr, atol=1e-2)


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4", "glow", "realnvp"])
def test_bfloat16_is_for_the_conditioners_of_all(name, images, tmp_path):
    flow = tiny(name, strength=0.05)
    run_in = Run(**QUICK, precision="bf16", channels_last=True)
    trained = train(flow, images, out=tmp_path / "a", recipe=short(flow, 2), run=run_in)
    assert (trained.step, trained.skipped) == (2, 0)
    assert all(p.dtype == torch.float32 for p in flow.state_dict().values() if p.is_floating_point())


def test_l1_trains_srflow(images, tmp_path):
    flow = tiny("srflow-x4", strength=0.05)
    chosen = recipe("nll+l1", flow=flow, steps=2, batch_size=2, crop=16)
    train(flow, images, out=tmp_path / "a", recipe=chosen, run=Run(**QUICK))
    assert all(math.isfinite(row["l1"]) and "encoded_lr_psnr" not in row for row in read_csv(tmp_path / "a/train.csv"))


def test_svi_is_the_same_loss_for_srflow():
    pyro.clear_param_store()
    flow, hr, lr = tiny("srflow-x4", strength=0.05), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
    loss = likelihood_svi(flow, pyro.optim.Adam({"lr": 1e-3})).evaluate_loss(hr, lr)
    assert loss == pytest.approx(float(likelihood_loss(flow, hr, lr)[0].detach()) - 3 * 8, rel=1e-5)
    pyro.clear_param_store()


def test_srflow_starts_from_its_lr_images():
    hr = 0.2 + 0.6 * torch.rand(2, 3, 16, 16)
    bicubic = make_lr(hr, 4)
    plain, dark = (tiny("srflow-x4") for _ in range(2))
    for part in (*plain.modules(), *dark.modules()):
        if hasattr(part, "initialized"):
            part.initialized.fill_(False)
    plain.initialize(hr, bicubic)
    dark.initialize(hr, 0.1 * bicubic)
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), dark.parameters(), strict=True))


def test_the_loss_of_a_density_is_its_bits():
    flow, hr = tiny("glow", strength=0.05), torch.rand(2, 3, 16, 16)
    loss, seen = likelihood_loss(flow, hr)
    expected = -flow.log_prob(hr).mean() / (16 * 16 * math.log(2)) + 3 * 8
    assert torch.allclose(loss, expected) and set(seen) == {"bits_per_dim"}
    batch = Batch(hr, None, torch.tensor([1, 2]))
    assert torch.isfinite(Objective(flow, recipe("nll", flow=flow))(batch, ("likelihood",))[0])
    with pytest.raises(ValueError, match="expected a batch with LR images for this loss"):
        Objective(tiny("sr-x4"), recipe("nll+l1"))(batch, ("l1",))


def test_batch_statistics_move_in_training_steps_only():
    flow = tiny("realnvp", strength=0.05)
    norms = [part for part in flow.modules() if isinstance(part, BatchStatistics)]
    batch = Batch(torch.rand(2, 3, 16, 16), None, torch.tensor([1, 2]))
    objective = Objective(flow, recipe("nll", flow=flow))
    before = [norm.mean.clone() for norm in norms]
    objective.eval()(batch, ("likelihood",))
    score_images(flow, [("a", batch.hr[0])])
    assert all(torch.equal(norm.mean, mean) for norm, mean in zip(norms, before, strict=True))
    objective.train()(batch, ("likelihood",))
    assert any(not torch.equal(norm.mean, mean) for norm, mean in zip(norms, before, strict=True))
    with pytest.raises(ValueError, match="expected memory full for a model with batch norm; got 'reversible'"):
        set_memory(flow, "reversible")


def test_a_step_that_is_not_finite_leaves_running_statistics_alone():
    from lightning.fabric import Fabric

    flow = tiny("realnvp", strength=0.05)
    norms = [part for part in flow.modules() if isinstance(part, BatchStatistics)]
    trainer = Trainer(Fabric(accelerator="cpu"), Objective(flow, recipe("nll", flow=flow)), Run(**QUICK))
    with torch.no_grad():
        weight = next(p for p in flow.parameters() if p.dim() == 4)
        weight.fill_(math.nan)
    before = [(norm.mean.clone(), norm.var.clone()) for norm in norms]
    trainer.make_step([Batch(torch.rand(2, 3, 16, 16), None, torch.tensor([1, 2]))])
    assert trainer.guard.total == 1
    for norm, (mean, var) in zip(norms, before, strict=True):
        assert torch.equal(norm.mean, mean) and torch.equal(norm.var, var)


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4", "glow", "realnvp-small"])
@pytest.mark.parametrize("mode", ["checkpoint", "reversible"])
def test_memory_modes_give_the_same_gradients(name, mode):
    flow = tiny(name, strength=0.1).double()
    hr = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    lr = bicubic_down(hr, flow.upscale).clamp(0, 1) if Capability.CONDITION in flow.capabilities else None

    def gradients(chosen):
        set_memory(flow, chosen)
        flow.zero_grad()
        likelihood_loss(flow, hr, lr)[0].backward()
        return [None if p.grad is None else p.grad.clone() for p in flow.parameters()]

    for plain, other in zip(gradients("full"), gradients(mode), strict=True):
        assert (plain is None) == (other is None)
        assert plain is None or torch.allclose(plain, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["irn-x4-small", "realnvp-small"])
def test_the_command_trains_presets_of_the_family(name, images, tmp_path):
    small = ("--set", "steps=1 crop=16 batch_size=1", "--device", "cpu", "--hold-out", 1, "--json")
    result = run("train", images, "--model", name, "--out", tmp_path / "run", *small)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["steps"] == 1 and document["validation"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["start"] == "random weights"
    words = refused(
        run("train", images, "--model", name, "--out", tmp_path / "b", *small, "--start", "haar"), "expected no start"
    )
    assert words and not (tmp_path / "b").exists()


# -- evaluation


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x3", "irn-x4", "glow", "realnvp"])
def test_files_are_measured(name, images):
    flow = tiny(name, strength=0.05).eval()
    files = sorted(images.iterdir())[:2]
    plan = EvaluationPlan(num_samples=2)
    result = evaluate_files(flow, files, plan=plan)
    keys = [column.key for column in result.columns]
    assert keys == [column.key for column in plan.resolve(flow).columns]
    assert all(set(row) == set(keys) for row in result.rows.values())
    assert ("encoded_lr_psnr" in keys) == (Capability.LR_LATENT in flow.capabilities)
    assert ("bits_per_dim" in keys) == (Capability.DOWNSCALE not in flow.capabilities)
    assert ("ntire_tau0_8" in keys) == (name == "srflow-x4")
    json.dumps({"plan": result.plan.to_dict(), **result.to_dict()}, allow_nan=False)
    label = result.columns[0].label
    assert ("σ" in label) is False and ("p(hr)" in label) == (Capability.DENSITY in flow.capabilities)


def test_the_figures_of_srflow_are_those_of_the_library():
    flow = tiny("srflow-x4", strength=0.05).eval()
    hr = round_to_8bit(torch.rand(3, 21, 34))
    scores = score_pair(flow, hr, plan=EvaluationPlan(seed=5))
    hr = hr[:, :16, :32]
    lr = make_lr(hr, 4)
    noise = torch.rand(hr.shape, generator=torch.Generator().manual_seed(5)) / 256
    with torch.no_grad():
        expected = float(decompose(flow, hr + noise, lr).dequantized().bits_per_dim)
    assert float(scores["bits_per_dim"]) == pytest.approx(expected, rel=1e-6)


def test_plans_that_do_not_fit_are_refused(images):
    files = sorted(images.iterdir())
    srflow, glow = tiny("srflow-x4"), tiny("glow")
    with pytest.raises(ValueError, match="cropped to a multiple of 8, as sides of this SRFlow's images are; got 12"):
        evaluate_files(srflow, files, plan=EvaluationPlan(multiple=12))
    with pytest.raises(ValueError, match="expected no lr_log_scale for SRFlow, as it lacks the capability lr-latent"):
        evaluate_files(srflow, files, plan=EvaluationPlan(lr_log_scale=-6.0))
    with pytest.raises(ValueError, match="expected no temperatures for Glow, as it lacks the capability condition"):
        evaluate_files(glow, files, plan=EvaluationPlan(temperatures=(0.5,)))
    with pytest.raises(ValueError, match="expected no LR images for Glow, a density of images alone"):
        evaluate_files(glow, files, lr=files)
    with pytest.raises(ValueError, match="expected no LR image for Glow"):
        score_pair(glow, torch.rand(3, 16, 16), torch.rand(3, 4, 4), plan=EvaluationPlan())


def test_scores_of_files(images):
    path = images / "0.png"
    for name in ("srflow-x4", "irn-x3", "glow", "realnvp"):
        flow = tiny(name, strength=0.05)
        scored = score_file(flow, path, num_samples=2, maps=True, official=True)
        assert all(side % flow.multiple == 0 for side in scored.size)
        within = Capability.LR_LATENT in flow.capabilities
        for figure in (scored.official_nll, scored.encoded_lr_psnr):
            assert (figure.value is not None) == within and ("no LR image in its latent" in figure.reason) != within
        assert ("Official NLL" in scored.to_text()) == within
        json.dumps(scored.to_dict(), allow_nan=False)
        if name == "glow":
            hr = read_image(path)[..., :36, :40]
            noise = torch.rand(hr.shape, generator=torch.Generator().manual_seed(0)) / 256
            expected = float(-flow.log_prob(hr + noise).detach()) / (hr.numel() * math.log(2)) + 8
            assert float(scored.terms.bits_per_dim) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="expected no LR image for RealNVP"):
        score_file(flow, path, lr=path)


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4"])
def test_reports_of_conditional_models(name, images):
    page = build_report(tiny(name, strength=0.05).eval(), images / "0.png", num_samples=2)
    assert page.startswith("<!doctype html>")
    assert ("authors' code would print" in page.replace("&#39;", "'")) == (name == "irn-x4")


def test_the_commands_serve_srflow_and_irn(images, tmp_path):
    srflow, irn, out = saved("srflow-x4", tmp_path), saved("irn-x3", tmp_path), tmp_path / "out"
    odd = tmp_path / "odd.png"
    write_image(odd, torch.rand(3, 5, 7))
    quiet = ("--device", "cpu", "--quiet")
    for words in (
        ("evaluate", images, "--model", srflow, "--out", out / "e", "-n", 1, "-t", 0),
        ("evaluate", images, "--model", irn, "--out", out / "f", "-n", 1, "-t", 0),
        ("sample", odd, "--model", srflow, "--out", out / "s"),
        ("sample", odd, "--model", irn, "--out", out / "t"),
        ("upscale", odd, "--model", srflow, "--out", out / "u"),
        ("downscale", images / "0.png", "--model", irn, "--out", out / "d"),
        ("upscale", out / "d" / "0_LR.png", "--model", irn, "--out", out / "d", "--original", images / "0.png"),
    ):
        result = run(*words, *quiet)
        assert result.exit_code == 0, (words, result.output)
    assert read_image(out / "s" / "odd_tau0.8_0.png").shape == read_image(out / "u" / "odd_HR.png").shape == (3, 20, 28)
    assert read_image(out / "d" / "0_HR.png").shape == read_image(images / "0.png").shape
    assert json.loads((out / "f" / "evaluation.json").read_text())["plan"]["multiple"] == 3
    described = run("info", "--model", srflow, "--json")
    assert json.loads(described.stdout)["capabilities"] == ["condition"]


def test_the_commands_say_what_a_density_of_images_cannot_do(images, tmp_path):
    glow, path = saved("glow", tmp_path), images / "0.png"
    out = ("--out", tmp_path / "out")
    assert refused(
        run("sample", path, "--model", glow, *out), "expected a model of HR images given their LR images", "got Glow"
    )
    assert refused(run("upscale", path, "--model", glow, *out), "for enlarging images", "flowsr score")
    assert refused(run("downscale", path, "--model", glow, *out), "expected a rescaling model", "got Glow")
    assert refused(
        run("downscale", path, "--model", saved("srflow-x4", tmp_path), *out), "got a super-resolution model"
    )
    assert refused(run("report", path, "--model", glow, "--out", tmp_path / "a.html"), "for a report", "got Glow")
    assert refused(run("score", path, "--model", glow, "--lr", path), "expected no LR image for Glow")
    assert refused(
        run("study", "uncertainty", images, "--model", glow, *out), "for a study of its posterior", "got Glow"
    )
    srflow = saved("srflow-x4", tmp_path)
    wide = ("--crop", 16, "--lr-log-scale", -3.0)
    assert refused(run("study", "uncertainty", images, "--model", srflow, *wide, *out), "no lr_log_scale for SRFlow")
    assert refused(run("evaluate", path, "--model", glow, "--lr", path, *out), "expected no LR images for Glow")
    assert not (tmp_path / "out").exists()
    scored = run("score", path, "--model", glow, "--json")
    assert scored.exit_code == 0, scored.output
    (record,) = json.loads(scored.stdout)["images"]
    assert record["figures"]["official_nll"]["value"] is None and record["lr_source"] is None
    measured = run("evaluate", path, "--model", glow, *out, "--json")
    assert measured.exit_code == 0, measured.output
    assert [column["key"] for column in json.loads(measured.stdout)["columns"]] == ["bits_per_dim", "seconds_encode"]
    described = json.loads(run("info", "--model", "glow-small", "--json").stdout)
    assert described["model"] == "Glow" and described["upscale"] is None and described["sides_are_multiples_of"] == 8
