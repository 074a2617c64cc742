"""What is said of a model: for what, with which commands, in which levels, at what cost; against the model itself."""

import json

import pytest
import torch
from commands import run

import flowsr
from flowsr.images import write_image
from flowsr.models import MEANINGS, Capability, presets
from flowsr.models import capabilities as capability_table
from flowsr.workflows.info import _SERVED, describe, describe_model, list_models, passes_over


def test_every_name_that_loads_is_listed_with_a_sentence():
    models = list_models()
    assert [one["name"] for one in models] == list(presets())
    for one in models:
        assert 20 < len(one["purpose"]) < 100 and one["model"] == presets()[one["name"]].__name__
    kinds = {one["name"]: one["weights"] for one in models}
    assert (kinds["sr-x4-small"], kinds["sr-x4"], kinds["irn-x3"]) == ("shipped", "released", "random")
    said = run("info").stdout
    assert all(f" {name} " in said for name in presets())
    assert said.index("rescaling-x4-small") < said.index("their authors have released") < said.index("irn-x3")


def test_capabilities_in_words_are_those_of_the_documented_table():
    assert MEANINGS.keys() == set(Capability)
    table = " ".join(str(capability_table.__doc__).split())
    assert all(f"``{capability}`` {words}" in table for capability, words in MEANINGS.items())


@pytest.mark.parametrize("name", ["sr-x4-small", "rescaling-x4-small", "srflow-x4-small", "irn-x3-small", "glow-small"])
def test_latents_for_a_size_are_those_of_an_encoding(name):
    flow = flowsr.from_preset(name)
    size = (2 * flow.multiple - 1, 3 * flow.multiple)
    found = passes_over(flow, size)
    padded = (2 * flow.multiple, 3 * flow.multiple)
    assert (found["padded_to"]["height"], found["padded_to"]["width"]) == padded
    hr = torch.rand(3, *padded)
    with torch.no_grad():
        z = flow.encode(hr, hr[..., ::4, ::4]).z if name.startswith("srflow") else flow.encode(hr).z
    assert [(one["channels"], one["height"], one["width"]) for one in found["latents"]] == [tuple(t.shape) for t in z]
    assert describe_model(flow)["levels"] == max(one["level"] for one in found["latents"])
    assert (found["draw_seconds"] is None) == (name == "glow-small") and found["encode_seconds"] > 0


def test_commands_are_those_that_take_the_model(tmp_path):
    """A command that is not named refuses the model before it does anything; all that takes a model is looked at."""
    write_image(tmp_path / "a.png", torch.rand(3, 16, 16))
    for name in ("glow-small", "srflow-x4-small"):
        flow, path = flowsr.from_preset(name), tmp_path / f"{name}.safetensors"
        flowsr.save(flow, path)
        served = describe_model(flow)["commands"]
        for command in sorted({command for commands in _SERVED.values() for command in commands} - set(served)):
            arguments = ["uncertainty"] if command == "study" else []
            result = run(command, *arguments, tmp_path / "a.png", "--model", path, "--out", tmp_path / "out")
            assert result.exit_code == 2 and not (tmp_path / "out").exists(), (name, command, result.output)


def test_a_model_by_either_way_and_an_image():
    assert run("info", "glow-small").stdout == run("info", "--model", "glow-small").stdout
    said = run("info", "glow-small").stdout
    assert "density of images: says how probable" in said and "evaluate, compare, score" in said
    released = json.loads(run("info", "sr-x8", "--json").stdout)
    assert released["weights"] == "fetched from the authors when used" and "CelebA" in released["provenance"]["about"]


def test_points_serve_no_command_for_images():
    assert describe("realnvp-points")["commands"] == []
    assert "points of the plane" in describe("realnvp-points")["purpose"]


def test_an_image_is_told_width_first(tmp_path):
    write_image(tmp_path / "a.png", torch.rand(3, 8, 12))
    said = run("info", tmp_path / "a.png").stdout
    assert "12 × 8 pixels" in said and "48 × 32 pixels" in said
