"""What commands print and write as JSON: each document follows its schema, which the documentation shows."""

import json
import re
from pathlib import Path

import pytest
import torch
from cases import tiny
from commands import run
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

import flowsr
from flowsr.images import write_image

FOLDER = Path(flowsr.__file__).parent / "workflows" / "schemas"
SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
REGISTRY = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in SCHEMAS.values())
SNAKE = re.compile(r"[a-z][a-z0-9_]*")


def keys_of(value):
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_of(inner)


def named(value, key):
    """All that stands under a key, at any depth."""
    if isinstance(value, dict):
        yield from (inner for name, inner in value.items() if name == key)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from named(inner, key)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def checked(text, kind):
    """A document that follows its schema, from text that every parser reads."""
    document = json.loads(text, parse_constant=refuse)
    assert list(document)[:2] == ["schema", "version"] and document["schema"] == f"urn:flowsr:{kind}"
    Draft202012Validator(SCHEMAS[kind], registry=REGISTRY).validate(document)
    assert not (strange := sorted({key for key in keys_of(document) if not SNAKE.fullmatch(key)})), strange
    return document


def printed(kind, *command):
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    return checked(result.stdout, kind)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("sr-x4", "rescaling-x4", "srflow-x4", "glow"):
            flow = tiny(name, strength=0.02)
            flowsr.save(flow, folder / f"{name}.safetensors")
        (folder / "hr").mkdir()
        for name in ("a", "b"):
            write_image(folder / "hr" / f"{name}.png", torch.rand(3, 32, 48))
        write_image(folder / "lr.png", torch.rand(3, 8, 12))
    return folder


def test_schemas_are_schemas_and_the_documentation_shows_each():
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    page = (Path(__file__).parents[2] / "docs" / "json.rst").read_text(encoding="utf-8")
    assert all(f"schemas/{name}.json" in page for name in SCHEMAS)


def test_a_schema_refuses_what_is_wrong(place):
    document = printed("scores", "score", place / "hr" / "a.png", "--model", place / "sr-x4.safetensors")
    validator = Draft202012Validator(SCHEMAS["scores"], registry=REGISTRY)
    figure = document["images"][0]["figures"]["bits_per_dim"]
    for spoiled in ({"value": None}, {"reason": "and a value"}, {"convention": ""}, {"key": "Bits Per Dim"}):
        before = dict(figure)
        figure.update(spoiled)
        with pytest.raises(ValidationError):
            validator.validate(document)
        figure.update(before)
    validator.validate(document)


@pytest.mark.parametrize("name", ["sr-x4", "srflow-x4", "glow", "rescaling-x4"])
@pytest.mark.parametrize("more", [(), ("-n", 3, "--official")])
def test_score(place, name, more):
    document = printed("scores", "score", place / "hr", "--model", place / f"{name}.safetensors", *more)
    first = document["images"][0]
    assert first["size"] == {"height": 32, "width": 48}
    asked = bool(more) and name in ("sr-x4", "rescaling-x4")
    assert (first["figures"]["official_nll"]["value"] is not None) == asked
    assert first["terms"]["bits_per_dim"] == pytest.approx(first["terms"]["density_bits_per_dim"] + 8, abs=1e-3)


@pytest.mark.parametrize("name", ["sr-x4", "srflow-x4", "glow", "rescaling-x4"])
def test_evaluate(place, tmp_path, name):
    command = ["evaluate", place / "hr", "--model", place / f"{name}.safetensors", "--out", tmp_path / "out"]
    document = printed("evaluation", *command)
    assert checked((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"), "evaluation") == document
    keys = {column["key"] for column in document["columns"]}
    assert all(set(image["figures"]) == keys for image in document["images"])
    for image in document["images"]:
        missing = {key for key, value in image["figures"].items() if value is None}
        assert missing == set(image["reasons"])


@pytest.mark.parametrize("small", [(16, 16), (32, 32)])
def test_compare(place, tmp_path, small):
    write_image(tmp_path / "a.png", torch.rand(3, 32, 32))
    write_image(tmp_path / "b.png", torch.rand(3, *small))  # the first is too small for SSIM's window
    models = [place / f"{name}.safetensors" for name in ("sr-x4", "srflow-x4")]
    document = printed("comparison", "compare", *models, tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path)
    assert checked((tmp_path / "compare.json").read_text(encoding="utf-8"), "comparison") == document
    assert ("ssim_tau0" in document["images"][1]["reasons"]) == (small == (16, 16))
    for image in document["images"]:
        missing = {key for part in "ab" for key, value in image[part].items() if value is None}
        assert missing == set(image["reasons"])
    for figure in document["figures"]:
        assert (figure["interval"] is None) == ("interval" in figure["reasons"]) == (figure["num_images"] == 1)


def test_sample(place, tmp_path):
    command = ("sample", place / "lr.png", "--model", place / "sr-x4.safetensors")
    bare = printed("samples", *command, "--out", tmp_path / "a")
    assert bare["images"][0]["card"] is None and "--hr" in bare["images"][0]["reasons"]["card"]
    assert bare["temperatures"] == [0.8] and bare["images"][0]["size"] == {"height": 32, "width": 48}
    full = ["--hr", place / "hr" / "a.png", "-n", 2, "--moments", "--out", tmp_path / "b"]
    document = printed("samples", *command, *full)
    figures = document["images"][0]["card"]["figures"]
    assert {"bicubic", "τ=0.8", "mean τ=0.8"} == {figure["column"] for figure in figures}
    assert checked((tmp_path / "b" / "samples.json").read_text(encoding="utf-8"), "samples") == document


def test_downscale_and_upscale(place, tmp_path):
    flow, hr = ("--model", place / "rescaling-x4.safetensors"), place / "hr" / "a.png"
    down = printed("rescaling", "downscale", hr, *flow, "--out", tmp_path / "lr")
    assert down["images"][0]["encoded_lr_psnr"]["unit"] == "dB" and down["temperature"] is None
    small = tmp_path / "lr" / "a_LR.png"
    up = printed("rescaling", "upscale", small, *flow, "--out", tmp_path / "hr", "--original", hr)
    assert up["images"][0]["encoded_lr_psnr"] is None and up["temperature"] == 0.0
    assert "card" not in up["images"][0]["reasons"]
    assert "card" in printed("rescaling", "upscale", small, *flow, "--out", tmp_path / "hr2")["images"][0]["reasons"]


def test_demo(tmp_path):
    document = printed("demo", "demo", "--smoke", "--out", tmp_path)
    assert checked((tmp_path / "demo.json").read_text(encoding="utf-8"), "demo") == document


@pytest.mark.parametrize("name", ["uncertainty", "calibration", "local_calibration", "inpainting"])
def test_study(place, tmp_path, name):
    more = ("--pairs", 20, "-n", 4, "--crop", 16) + (("--method", "pcn") if name == "inpainting" else ())
    flow = place / "sr-x4.safetensors"
    document = printed("study", "study", name, place / "hr", "--model", flow, "--out", tmp_path, *more)
    assert checked((tmp_path / f"{name}.json").read_text(encoding="utf-8"), "study") == document


def test_train(place, tmp_path):
    changes = "steps=2 batch_size=2 crop=16"
    command = [
        "train",
        place / "hr",
        "--model",
        place / "sr-x4.safetensors",
        "--out",
        tmp_path / "run",
        "--set",
        changes,
    ]
    more = ["--hold-out", 1, "--device", "cpu", "--quiet"]
    document = printed("training", *command, *more)
    assert document["stopped_by_signal"] is None and document["validation"]["bits_per_dim"] > 0
    checked((tmp_path / "run" / "run.json").read_text(encoding="utf-8"), "run")


def test_train_dry_run(place, tmp_path):
    command = ["train", place / "hr", "--model", place / "sr-x4.safetensors", "--out", tmp_path / "run", "--dry-run"]
    command += ["--set", "steps=100 batch_size=2 crop=16", "--device", "cpu"]
    document = printed("plan", *command)
    assert [one["processes"] for one in document["runs"]] == [1, 8, 64, 1, 1, 1] and document["device"] == "cpu"
    given = printed("plan", *command, "--step-seconds", 36)
    assert given["runs"][0]["hours"] == 1.0 and given["measured_memory"] is None


def test_info(place):
    assert printed("info", "info", "--model", place / "sr-x4.safetensors")["kind"] == "model"
    assert printed("info", "info", "--model", "glow-small")["upscale"] is None
    shipped = printed("info", "info", "--model", "sr-x4-small", "--size", "640x512")
    assert shipped["memory"]["hr_size"] == {"height": 512, "width": 640}
    assert 1e8 < shipped["memory"]["draw_bytes"] < 4e8
    assert printed("info", "info", "--model", "glow-small", "--size", "64x64")["memory"]["draw_bytes"] is None
    assert shipped["provenance"]["trained_by"]  # the weights' own words, which have a space
    assert {one["name"] for one in printed("info", "info")["models"]} >= {"sr-x4", "glow-small"}
    assert printed("info", "info", place / "hr" / "a.png")["size"] == {"height": 32, "width": 48}


def test_bits_per_dim_is_of_the_8bit_image_everywhere(place, tmp_path):
    """A density without the 8 of log2 256 is never called so: of a flow that models noise well, it is negative."""
    flow = flowsr.load("sr-x4-small")
    flowsr.save(flow, tmp_path / "x4.safetensors")
    write_image(tmp_path / "flat.png", torch.full((3, 32, 32), 0.5))
    score = printed("scores", "score", tmp_path / "flat.png", "--model", tmp_path / "x4.safetensors")
    demo = printed("demo", "demo", "--smoke", "--out", tmp_path / "demo")
    density = list(named(score, "density_bits_per_dim"))
    assert density[0] < 0
    for document in (score, demo):
        for found in named(document, "bits_per_dim"):
            assert (found["value"] if isinstance(found, dict) else found) > 0, found
