"""What a newcomer meets first: names that are there, types that an editor knows, and words where a call is another."""

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from cases import tiny

import flowsr
from flowsr.models import REGISTRY, glow, hcflow_config, irn, realnvp, srflow
from flowsr.models.weights import RELEASES, ReleaseName, ShippedName, shipped_path

ROOT = Path(flowsr.__file__).parents[1]
MODULES = {
    module.name
    for module in pkgutil.iter_modules(flowsr.__path__)
    if module.name not in ("__main__", "_support", "cli")
}


def test_every_documented_module_is_there_untouched():
    code = f"""
import sys, flowsr
assert "torch" not in sys.modules
assert all(getattr(flowsr, name).__name__ == "flowsr." + name for name in {sorted(MODULES)})
assert flowsr.workflows.score.score_file.__name__ == "score_file"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dir_shows_the_public_names_only_and_each_once():
    names = dir(flowsr)
    assert len(names) == len(set(names)) and names == sorted(flowsr.__all__)
    assert set(names) >= MODULES
    assert not [name for name in names if name.startswith("_")]
    assert not set(names) & {"Any", "TYPE_CHECKING", "import_module", "annotations", "lazy_loader"}
    with pytest.raises(AttributeError, match="lod"):
        _ = flowsr.lod


def test_names_in_types_are_those_there_are():
    """A type checker cannot read a dict's keys, so the names of presets stand beside it once more."""
    of_model = {
        "HCFlow": hcflow_config.HCFlowPreset,
        "SRFlow": srflow.SRFlowPreset,
        "IRN": irn.IRNPreset,
        "Glow": glow.GlowPreset,
        "RealNVP": realnvp.RealNVPPreset,
    }
    assert {name: list(get_args(of_model[name])) for name in REGISTRY} == {
        name: list(model.presets) for name, model in REGISTRY.items()
    }
    assert set(get_args(ReleaseName)) == set(RELEASES)
    shipped = {path.stem for path in (ROOT / "flowsr" / "weights").glob("*.safetensors")}
    shipped |= {re.sub(r"-v[0-9]+$", "", name) for name in shipped}
    assert set(get_args(ShippedName)) == shipped and all(map(shipped_path, shipped))


USER = """
import flowsr
import torch

lr = torch.rand(3, 6, 8)
flow = flowsr.load("sr-x4-small")
reveal_type(flow)
reveal_type(flow.sample(lr, num_samples=2))
reveal_type(flow.downscale(lr))
flow.smaple(lr)  # error: Cannot access attribute "smaple" for class "HCFlow"
flow.smaple  # error: Cannot access attribute "smaple" for class "HCFlow"
flow.log_prob(lr)  # error: Cannot access attribute "log_prob" for class "HCFlow"
flow.sample(lr, num_sample=2)  # error: No parameter named "num_sample"
mine = flowsr.load("runs/first/model.safetensors", device="cuda")
reveal_type(mine)
mine.sample(lr)
mine.smaple(lr)  # error: Cannot access attribute "smaple" for class "ConditionalModel"
glow = flowsr.load("glow.safetensors", model=flowsr.Glow)
reveal_type(glow)
glow.sample((8, 8))
glow.sample(lr)  # error: Argument of type "Tensor" cannot be assigned to parameter "size"
glow.condition(lr)  # error: Cannot access attribute "condition" for class "Glow"
reveal_type(flowsr.from_preset("irn-x4"))
reveal_type(flowsr.from_preset("realnvp-small", features=3))
reveal_type(flowsr.HCFlow.from_preset("sr-x8", start="haar").double().eval())
flowsr.HCFlow.from_preset("sr-x8", start="hair")  # error: Argument of type "Literal['hair']"
reveal_type(flowsr.likelihood.bits_per_dim)
flowsr.likelyhood  # error: "likelyhood" is not a known attribute of module "flowsr"
flowsr.save(flow, "mine.safetensors", overwrite=True)
flowsr.sav(flow)  # error: "sav" is not a known attribute of module "flowsr"
reveal_type(flowsr.load("srflow-x4-small"))
reveal_type(flowsr.load("irn-x4-small"))
reveal_type(flowsr.load("glow-small"))
reveal_type(flowsr.load("realnvp-points"))
"""
"""A program as a user may write it; what a type checker must say of a line stands behind it."""

REVEALED = {
    7: "HCFlow",
    8: "Tensor",
    9: "Tensor",
    15: "ConditionalModel",
    19: "Glow",
    23: "IRN",
    24: "RealNVP",
    25: "HCFlow",
    31: "SRFlow",
    32: "IRN",
    33: "Glow",
    34: "RealNVP",
}


def _diagnostics(program, folder):
    (folder / "user.py").write_text(program)
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": "basic"}))
    # The Python of the tests, where torch is; not whatever is first in the path.
    command = [Path(sys.executable).with_name("pyright"), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*map(str, command), "user.py"], cwd=folder, capture_output=True, text=True, check=False)
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        yield found["range"]["start"]["line"] + 1, found["severity"], found["message"]


def test_a_type_checker_knows_what_load_gives_and_refuses_what_is_not_there(tmp_path):
    found = list(_diagnostics(USER, tmp_path))
    lines = USER.splitlines()
    expected = {number: line.split("# error: ")[1] for number, line in enumerate(lines, 1) if "# error: " in line}
    errors = {number: message for number, severity, message in found if severity == "error"}
    assert errors.keys() == expected.keys(), errors
    assert all(message.startswith(expected[number]) for number, message in errors.items()), errors
    types = {number: message for number, severity, message in found if severity == "information"}
    assert all(f'is "{kind}"' in types[number] for number, kind in REVEALED.items()), types


def test_the_types_ship():
    assert (ROOT / "flowsr" / "py.typed").is_file() and (ROOT / "flowsr" / "__init__.pyi").is_file()


CONDITIONAL = ("sr-x4", "rescaling-x4", "srflow-x4", "irn-x2")


@pytest.mark.parametrize("name", CONDITIONAL)
def test_what_is_typed_first_is_answered_with_the_call_to_use(name):
    flow, lr, hr = tiny(name), torch.rand(3, 2, 2), torch.rand(3, 8, 8)
    for call in (lambda: flow(lr), lambda: flow.forward(lr), lambda: flow(hr, context=lr)):
        with pytest.raises(TypeError, match=r"use flow\.sample\(lr\) .* flow\.condition\(lr\)"):
            call()
    for attribute in ("log_prob", "distribution"):
        with pytest.raises(AttributeError, match=rf"no attribute '{attribute}': use flow\.condition\(lr\)"):
            getattr(flow, attribute)
    assert not hasattr(flow, "log_prob")


@pytest.mark.parametrize("name", ["glow", "realnvp"])
def test_a_density_of_images_alone_answers_too(name):
    flow = tiny(name)
    with pytest.raises(TypeError, match=r"use flow\.sample\(\(height, width\)\) .*flow\.log_prob\(hr\)"):
        flow(torch.rand(3, 8, 8))
    with pytest.raises(AttributeError, match=r"use flow\.distribution\(\(height, width\)\)"):
        _ = flow.condition


def test_the_calls_in_the_answers_exist():
    for name in (*CONDITIONAL, "glow", "realnvp"):
        flow = tiny(name)
        text = " ".join((flow.calls, *flow.instead.values()))
        assert all(callable(getattr(flow, call)) for call in re.findall(r"flow\.(\w+)\(", text))


def test_python_can_ask_what_was_meant_by_a_misspelt_name():
    """Its tracebacks say "Did you mean" where an AttributeError knows its name and its object."""
    flow = tiny("irn-x2")
    with pytest.raises(AttributeError, match=r"'IRN' object has no attribute 'smaple'$") as caught:
        _ = flow.smaple
    assert caught.value.name == "smaple" and caught.value.obj is flow


def test_a_file_of_another_model_is_refused_when_one_is_asked_for(tmp_path):
    flowsr.save(tiny("glow"), tmp_path / "glow.safetensors")
    assert isinstance(flowsr.load(tmp_path / "glow.safetensors", model=flowsr.Glow), flowsr.Glow)
    assert isinstance(flowsr.load(tmp_path / "glow.safetensors"), flowsr.Glow)
    with pytest.raises(flowsr.CheckpointError, match=r"holds a model HCFlow; .*glow\.safetensors has Glow"):
        flowsr.load(tmp_path / "glow.safetensors", model=flowsr.HCFlow)
