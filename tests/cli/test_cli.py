"""The command: what it writes, what it refuses and in which words, and that it refuses before it works."""

import ast
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from commands import refused, run
from typer.testing import CliRunner

import flowsr
from flowsr.cli.app import app
from flowsr.cli.guard import sentence
from flowsr.images import encode_png, read_image, write_image
from flowsr.models.official import OFFICIAL_LAYOUTS, hcflow_key_pairs
from flowsr.models.weights import shipped_path
from flowsr.workflows.rescale import SIZE_KEY

TINY = flowsr.HCFlowConfig(
    steps=2, conditional_steps=1, hidden_channels=4, conditional_hidden_channels=4, features=4, growth=2, rrdbs=(1, 1)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = flowsr.HCFlow(TINY, start="haar")
        flow.initialize(torch.rand(2, 3, 16, 16))
    flowsr.save(flow, path)
    return path


@pytest.fixture
def lr(tmp_path):
    path = tmp_path / "lr" / "baby.png"
    path.parent.mkdir()
    write_image(path, torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(1)))
    return path


def test_help_and_version():
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.output for command in ("demo", "sample", "info", "import"))
    assert run("--version").output == f"flowsr {flowsr.__version__}\n"


def test_help_shows_defaults_in_words_and_whole_paragraphs():
    """What stands in brackets in a help text is markup to rich, and line breaks of the code are no paragraphs."""
    defaults = {
        ("train", "--start"): "haar",
        ("train", "--recipe"): "rescaling for such a model, else nll",
        ("train", "--lr-folder"): "bicubic",
        ("train", "--validation"): "those held out",
        ("train", "--vgg"): "torchvision's cache",
        ("train", "--processes"): "1,8,64",
        ("train", "--efficiency"): "0.9",
        ("evaluate", "--lr"): "bicubic of the HR images, 8 bits",
        ("evaluate", "--temperature"): "0 and 0.8; rescaling: 0 and 1",
        ("evaluate", "--crop-to-multiple"): "16, or what the model needs",
        ("score", "--lr"): "bicubic of the HR images, 8 bits",
        ("report", "--out"): "name.html",
        ("upscale", "--size"): "the size downscale kept, or all",
        ("sample", "--temperature"): "0.8",
        ("study", "--crop"): "the study's own",
        ("study", "--num-samples"): "the study's own",
        ("study", "--problem"): "two small ones",
        ("study", "--sampler"): "all but nuts",
    }
    shown = {}
    for command, option in defaults:
        shown[command] = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        listed = shown[command].split("─ Options")[1].replace("│", " ")
        after = " ".join(listed.split()).split(f" {option} ")[1]
        assert f"[default: ({defaults[command, option]})]" in after.split(" --")[0], (command, option)
    assert "median and worst value over the images" in " ".join(shown["evaluate"].split())
    paragraph = next(line for line in run("train", "--help").output.splitlines() if "model.safetensors. Ctrl-C" in line)
    assert len(paragraph.rstrip()) > 70  # as wide as the window, not as the code


def test_a_bar_is_gone_before_the_error_is_said(model, tmp_path):
    bad = _transparent(tmp_path / "glass.png")
    said = run("evaluate", bad, "--model", model, "--out", tmp_path / "out").stderr
    assert said.startswith("Error: ") and said.count("\n") == 1
    assert "in an image editor or, from Python" in said


def test_a_missing_argument_is_answered_with_an_example(lr):
    assert refused(run("sample", "--out", "samp"), "Missing argument 'IMAGE'.", "Expected IMAGE..., such as")
    assert refused(run("sample", "-n", 2), "such as: flowsr sample lr.png")
    assert refused(run("study", "calibration"), "expected a FOLDER of HR images", "got none")
    assert refused(run("score"), "Expected IMAGE..., such as: flowsr score hr.png")


def test_a_wrong_choice_is_named_without_what_a_library_says():
    assert refused(run("study", "calibration", ".", "--method", "hcm"), "'--method': 'hcm' is not one of")


def test_a_study_that_there_is_not_is_asked_about(lr):
    assert refused(run("study", "calibratoin", lr), "expected a study among", "did you mean calibration?")


def typed(*arguments):
    """The answer of a command to a model among its images, without the words before the command to type."""
    result = run(*arguments)
    assert refused(result, f"expected images; got {arguments[1]}, a model, which goes behind --model: type flowsr")
    return " ".join(result.stderr.split()).split(": type ")[1]


def test_the_old_order_is_answered_with_the_new_one(model, lr, tmp_path):
    old = {
        ("evaluate", "rescaling-x4-small", lr, "-n", 2): f"flowsr evaluate {lr} -n 2 --model rescaling-x4-small",
        ("train", "sr-x8-small", lr.parent, "-o", "r"): f"flowsr train {lr.parent} -o r --model sr-x8-small",
        ("sample", model, lr): f"flowsr sample {lr} --model {model}",
        ("report", model, lr): f"flowsr report {lr} --model {model}",  # of one image: two are too many otherwise
        ("score", model, lr, "-m", model): f"flowsr score {lr} -m {model}",
        ("downscale", "irn-x4", "--", "-1.png"): "flowsr downscale --model irn-x4 -- -1.png",
        ("upscale", "glow", "a b.png", "-q"): "flowsr upscale 'a b.png' -q --model glow",
        ("upscale", "sr-x4-small"): "flowsr upscale IMAGE --model sr-x4-small",
    }
    assert {arguments: typed(*arguments) for arguments in old} == old
    # What is an option's value, an image's name or a folder is no model in the place of an image.
    (tmp_path / "sr-x4-small").mkdir()
    with contextlib.chdir(tmp_path):
        assert refused(run("score", "sr-x4-small"), "expected files named .png")
    assert refused(run("train", lr.parent, "--vgg", model, "--out", lr), "is a file")


def test_models_are_named_alike_everywhere():
    """Every command that takes a model takes it by one option, with one help, and has a shipped one by default."""
    commands = typer.main.get_command(app).commands
    found = {name: p for name, command in commands.items() for p in command.params if p.name == "model" and p.default}
    # Which show the shipped model, convert a file or a figure, take two models, are asked about models as about images.
    without = {"demo", "import", "compare", "info", "cite", "convert-nll"}
    assert found.keys() == commands.keys() - without
    for name, option in found.items():
        assert option.opts == ["--model", "-m"] and option.show_default is True, name
        assert option.help == found["sample"].help, name
        task = "rescaling" if name in ("downscale", "upscale") else "sr"
        assert option.default == f"{task}-x4-small" and shipped_path(option.default), name
        assert option.default in CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output


def test_an_option_means_the_same_in_every_command():
    long_of, help_of = {}, {}
    for command in typer.main.get_command(app).commands.values():
        for param in (param for param in command.params if param.param_type_name == "option"):
            long = next(text for text in param.opts if text.startswith("--"))
            for short in set(param.opts) - {long}:
                long_of.setdefault(short, set()).add(long)
            help_of.setdefault(long, set()).add(param.help)
    assert all(len(found) == 1 for found in long_of.values()), long_of
    shared = ("--model", "--lr", "--seed", "--dtype", "--json", "--quiet", "--force", "--crop-to-multiple")
    assert all(len(help_of[name]) == 1 for name in shared), help_of


def test_module_level_imports_of_the_cli_are_light():
    """Nothing heavy loads before a command runs: `--help` must be quick."""
    light = {*sys.stdlib_module_names, "typer", "rich"}
    for path in (Path(flowsr.__file__).parent / "cli").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("flowsr.cli") or name in (
                    "flowsr._support.atomic",
                    "flowsr._support.free_memory",
                    "flowsr._support.json",
                    "flowsr._support.lock",
                    "flowsr._support.names",
                    "flowsr._support.temperatures",
                    "flowsr.errors",
                )
                assert own or name.split(".")[0] in light, f"{path.name} imports {name}"


def test_sample_writes_draws_moments_and_listing(model, lr, tmp_path):
    out = tmp_path / "deep" / "out"
    result = run("sample", lr, "--model", model, "-n", 2, "-t", 0, "-t", 0.8, "--moments", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    names = ["baby_tau0_0.png"] + [f"baby_tau0.8_{part}.png" for part in ("0", "1", "mean", "std")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "samples.json"])
    assert all(read_image(out / name).shape == (3, 28, 36) for name in names)
    listing = json.loads(result.stdout)
    assert listing == json.loads((out / "samples.json").read_text(encoding="utf-8"))
    assert listing["images"][0]["files"] == names
    assert listing["images"][0]["card"] is None
    draws = torch.stack([read_image(out / name) for name in names[1:3]])
    assert (draws[0] - draws[1]).abs().max() > 2 / 255
    assert (draws.mean(0) - read_image(out / names[3])).abs().mean() < 4 / 255  # clamping apart


def test_sample_is_determined_by_the_seed_alone(model, lr, tmp_path):
    other = lr.with_name("anna.png")
    write_image(other, torch.rand(3, 5, 5))
    calls = {"a": ("--seed", 3), "b": ("--seed", 3, "-n", 2), "c": ("--seed", 4)}
    for name, options in calls.items():
        inputs = lr.parent if name == "b" else lr
        assert run("sample", inputs, "--model", model, "--out", tmp_path / name, "--quiet", *options).output == ""
    a, b, c = ((tmp_path / name / "baby_tau0.8_0.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_sample_with_truth_names_every_convention(model, lr, tmp_path):
    hr = tmp_path / "truth.png"
    write_image(hr, torch.rand(3, 28, 36))
    result = run("sample", lr, "--model", model, "--hr", hr, "--out", tmp_path / "out", "-n", 2)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "out" / "samples.json").read_text(encoding="utf-8"))["images"][0]["card"]
    assert card["columns"] == ["bicubic", "τ=0.8"]
    psnr = [figure for figure in card["figures"] if figure["key"] == "psnr"]
    assert [figure["column"] for figure in psnr] == ["bicubic", "τ=0.8"]
    assert psnr[0]["convention"] == "RGB, border 4, rounded to 8 bits"
    assert "border 4" in result.stdout


def test_a_damaged_second_image_is_found_before_the_first_is_drawn(model, lr, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(lr.read_bytes()[:60])
    assert refused(run("sample", lr, bad, "--model", model, "--out", tmp_path / "out"), "bad.png", "damaged")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_a_damaged_second_image_is_found_before_the_first_is_measured(command, model, tmp_path, monkeypatch):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    write_image(good, torch.rand(3, 16, 16))
    bad.write_bytes(good.read_bytes()[:60])
    for name in ("flowsr.workflows.evaluate.measure_pair", "flowsr.workflows.score.score_file"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("measured"))
    assert refused(run(command, good, bad, "--model", model, "--out", tmp_path / "out"), "bad.png", "damaged")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "sample", "score", "downscale", "upscale", "report", "study", "train"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_model_is_opened(command, lr, tmp_path, monkeypatch):
    monkeypatch.setattr("flowsr.cli.options.open_model", lambda *_, **__: pytest.fail("opened"))
    out = tmp_path / "new" / ("n" * 300)  # more than any file system takes
    of = {"study": ["uncertainty", lr], "train": [lr.parent]}
    target = out / "page.html" if command == "report" else out
    result = run(command, *of.get(command, [lr]), "--out", target)
    assert refused(result, "expected a folder that can be written to", "File name too long", "choose another --out")
    assert [path.name for path in tmp_path.iterdir()] == ["lr"]


def test_nothing_is_overwritten_without_force(model, lr, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "baby_tau0.8_0.png").write_text("precious")
    arguments = ("sample", lr, "--model", model, "--out", out)
    assert refused(run(*arguments), "baby_tau0.8_0.png exists", "--force")
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("baby_tau0.8_0.png", "precious")]
    assert run(*arguments, "--force").exit_code == 0
    assert read_image(out / "baby_tau0.8_0.png").shape == (3, 28, 36)


def _text_file(path):
    path.write_text("not an image")
    return path


def _transparent(path):
    write_image(path, torch.rand(4, 8, 8))
    return path


def _truncated(path, model):
    path.write_bytes(model.read_bytes()[:5000])
    return path


def _copy(image, folder):
    return Path(shutil.copy(image, folder))


def _pipe(path):
    os.mkfifo(path)
    return path


def _image(path, height, width):
    write_image(path, torch.rand(3, height, width))
    return path


def _labelled(path, text):
    path.write_bytes(encode_png(torch.rand(3, 8, 8), text={SIZE_KEY: text}))
    return path


MISTAKES = {
    "a pipe": (lambda d, m, i: ("score", _pipe(d / "a.png"), "--model", m), ["a.png is a pipe: give a file"]),
    "info of a pipe": (lambda d, m, i: ("info", _pipe(d / "a.png")), ["expected an image", "is a pipe: give a file"]),
    "model is a pipe": (lambda d, m, i: ("sample", i, "-m", _pipe(d / "m.pth")), ["m.pth is a pipe"]),
    "import of a pipe": (lambda d, m, i: ("import", _pipe(d / "m.pth"), d / "o.safetensors"), ["m.pth is a pipe"]),
    "a device": (lambda d, m, i: ("score", "/dev/zero", "--model", m), ["/dev/zero is a device: give a file"]),
    "nothing to evaluate": (
        lambda d, m, i: ("evaluate", "/nonexistent"),
        ["/nonexistent does not exist: check the name"],
    ),
    "lr of another size": (
        lambda d, m, i: ("score", _image(d / "hr.png", 32, 32), "--lr", _image(d / "odd.png", 7, 6), "--model", m),
        ["Error: ", "odd.png: expected an LR image of 1/4 of 32 × 32 pixels"],
    ),
    "original of another size": (
        lambda d, m, i: ("upscale", i, "--original", _image(d / "odd.png", 7, 6), "--model", m),
        ["odd.png: expected an HR image of"],
    ),
    "a size of a million letters": (
        lambda d, m, i: ("upscale", _labelled(d / "a.png", "y" * 900_000), "--model", m),
        ["a.png: expected HEIGHTxWIDTH under flowsr:hr-size in the file; got", "yyy…"],
    ),
    "missing model": (lambda d, m, i: ("sample", i, "--model", d / "none.safetensors"), ["none.safetensors"]),
    "preset without weights": (
        lambda d, m, i: ("sample", i, "--model", "sr-x8-small"),
        ["there is no file sr-x8-small"],
    ),
    "truncated model": (
        lambda d, m, i: ("sample", i, "--model", _truncated(d / "cut.safetensors", m)),
        ["cut.safetensors"],
    ),
    "missing image": (lambda d, m, i: ("sample", d / "no.png", "--model", m), ["no.png does not exist"]),
    "empty folder": (lambda d, m, i: ("sample", d, "--model", m), ["expected files named .png"]),
    "not an image": (lambda d, m, i: ("sample", _text_file(d / "text.png"), "--model", m), ["text.png"]),
    "wrong suffix": (lambda d, m, i: ("sample", _text_file(d / "a.txt"), "--model", m), ["a.txt", ".png"]),
    "wrong channels": (lambda d, m, i: ("sample", _transparent(d / "rgba.png"), "--model", m), ["transparent"]),
    "negative temperature": (lambda d, m, i: ("sample", i, "--model", m, "-t", -1), ["temperatures >= 0; got -1"]),
    "nan temperature": (lambda d, m, i: ("sample", i, "--model", m, "-t", "nan"), ["temperatures >= 0; got nan"]),
    "temperature twice": (lambda d, m, i: ("sample", i, "--model", m, "-t", 1, "-t", 1), ["different temperatures"]),
    "no number": (lambda d, m, i: ("sample", i, "--model", m, "-t", "warm"), ["--temperature", "number"]),
    "no draws": (lambda d, m, i: ("sample", i, "--model", m, "-n", 0), ["--num-samples"]),
    "moments of one draw": (lambda d, m, i: ("sample", i, "--model", m, "--moments"), ["at least 2 draws"]),
    "no float64": (
        lambda d, m, i: ("sample", i, "--model", m, "--device", "mps:0"),
        ["with float64", "got 'mps:0': use cpu"],
    ),
    "unknown device": (lambda d, m, i: ("sample", i, "--model", m, "--device", "abacus"), ["abacus"]),
    "hr of another size": (
        lambda d, m, i: ("sample", i, "--model", m, "--hr", i),
        ["36 × 28 pixels; got 9 × 7 pixels"],
    ),
    "hr missing": (lambda d, m, i: ("sample", i, "--model", m, "--hr", d / "no.png"), ["no.png does not exist"]),
    "same file twice": (lambda d, m, i: ("sample", i, i.parent, "--model", m), ["each image once", "its folder, once"]),
    "same name twice": (lambda d, m, i: ("sample", i, _copy(i, d), "--model", m), ["different names"]),
    "out is a file": (lambda d, m, i: ("sample", i, "--model", m, "--out", m), ["is a file"]),
    "out below a file": (lambda d, m, i: ("sample", i, "--model", m, "--out", m / "x"), ["is a file"]),
    "info of nothing": (lambda d, m, i: ("info", "--model", "sr-x5"), ["sr-x5", "sr-x4-small"]),
    "info of no image": (
        lambda d, m, i: ("info", d / "no.png"),
        ["expected an image, a model file or a preset", "no.png does not exist"],
    ),
    "info of a folder": (lambda d, m, i: ("info", i.parent), ["expected an image", "is a folder: give a file in it"]),
    "info of a size that is none": (
        lambda d, m, i: ("info", "sr-x4-small", "--size", "512"),
        ["expected a size as WIDTHxHEIGHT"],
    ),
    "info of a size of nothing": (
        lambda d, m, i: ("info", "sr-x4-small", "--size", ""),
        ["expected a size as WIDTHxHEIGHT"],
    ),
    "info of an image's memory": (lambda d, m, i: ("info", i, "--size", "9x9"), ["expected --size with a model"]),
    "info of a size of none": (lambda d, m, i: ("info", "--size", "9x9"), ["expected --size with a model; got none"]),
    "info of two things": (lambda d, m, i: ("info", i, "-m", m), ["expected an image or a model"]),
    "import of nothing": (lambda d, m, i: ("import", d / "no.pth", d / "o.safetensors"), ["no.pth does not exist"]),
    "import of text": (lambda d, m, i: ("import", _text_file(d / "t.pth"), d / "o.safetensors"), ["t.pth"]),
    "import to pth": (lambda d, m, i: ("import", m, d / "o.pth"), ["ends in .safetensors"]),
    "import of safetensors": (lambda d, m, i: ("import", m, d / "o.safetensors"), ["nothing to import"]),
    "unknown command": (lambda d, m, i: ("dream",), ["dream"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_sentence_and_write_nothing(name, model, lr, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    arguments, words = MISTAKES[name]
    command = arguments(folder, model, lr)
    before = sorted(path.name for path in folder.iterdir())
    assert refused(run(*command), *words)
    # A mistake found while reading an image may leave the folder and its earlier images, but no broken file.
    after = {path.name for path in folder.iterdir()} - set(before)
    assert after <= {"samples", "hr"}
    assert not list(folder.glob("samples/*")) + list(folder.glob("hr/*")) or name == "unreachable"


def test_a_bug_keeps_its_traceback_and_a_mistake_shows_it_on_request(monkeypatch, tmp_path):
    assert isinstance(run("--traceback", "info", "--model", tmp_path / "none").exception, FileNotFoundError)
    monkeypatch.setattr("flowsr.workflows.info.describe", lambda name, **_: 1 / 0)
    result = run("info", "--model", "sr-x4")
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\n lines"), "two lines"),
        (ValueError(), "ValueError"),
        (PermissionError(13, "Permission denied", "x.png"), "x.png: permission denied"),
        (FileExistsError("plain"), "plain"),
    ],
)
def test_sentence(error, expected):
    assert sentence(error) == expected


def test_info(model, lr):
    facts = json.loads(run("info", "--model", model, "--json").stdout)
    assert (facts["kind"], facts["upscale"], facts["dtype"]) == ("model", 4, "float32")
    assert facts["configuration"] == TINY.to_dict()
    assert facts["parameters"] == sum(p.numel() for p in flowsr.load(model).parameters())
    image = json.loads(run("info", lr, "--json").stdout)
    assert (image["size"], image["channels"]) == ({"height": 7, "width": 9}, "RGB")
    assert image["as_lr_image"]["x4"] == "gives 36 × 28 pixels"
    table = run("info", "--model", "sr-x4").stdout
    assert "conditional_steps" in table and "fetched from the authors" in " ".join(table.split())
    assert "640 × 512 pixels" in (sized := run("info", "sr-x4-small", "--size", "640x512").stdout)
    assert "sampling" in sized and "latent z_2   21 channels of 160 × 128" in sized
    assert "shipped" in run("info", "sr-x4-small").stdout
    assert run("info", "--quiet").output == ""


def test_import(model, tmp_path):
    flow = flowsr.load(model)
    state = flow.state_dict()
    torch.save({official: state[own] for official, own in hcflow_key_pairs(flow.config)}, tmp_path / "official.pth")
    target = tmp_path / "new" / "mine.safetensors"
    result = run("import", tmp_path / "official.pth", target)
    assert result.exit_code == 0, result.output
    assert "conditional_steps" in result.stdout
    back = flowsr.load(target)
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in state.items())
    assert refused(run("import", tmp_path / "official.pth", target), "exists", "--force")
    assert run("import", tmp_path / "official.pth", target, "--force", "--json").exit_code == 0


def test_import_names_the_preset_of_any_model(tmp_path):
    irn = flowsr.IRN.from_preset("irn-x4-small")
    layout = next(layout for layout in OFFICIAL_LAYOUTS if layout.model is flowsr.IRN)
    state = irn.state_dict()
    torch.save({theirs: state[own] for theirs, own in layout.key_pairs(irn.config)}, tmp_path / "irn.pth")
    result = run("import", tmp_path / "irn.pth", tmp_path / "irn.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["preset"] == "irn-x4-small"


def _process(*args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, "-m", "flowsr", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_real_process_says_one_sentence(tmp_path):
    process = _process("info", "--model", tmp_path / "none.png")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("Error: expected an image, a model file or a preset")
    assert err.count("\n") == 1


_FREED = """
import ctypes, sys
from flowsr._support.free_memory import bound_freed_memory, keep_freed_memory
if sys.argv[1] != "return":
    assert keep_freed_memory()
if sys.argv[1] == "bound":
    assert bound_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]
libc.mallinfo2.restype = Info
libc.free(libc.malloc(ctypes.c_size_t(2**24)))
print(libc.mallinfo2().field0)  # what the process holds, in use or not
"""


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="asks glibc 2.33 what a process holds")
@pytest.mark.parametrize("mode, held", [("keep", True), ("return", False), ("bound", False)])
def test_a_command_keeps_the_memory_that_a_layer_has_freed_unless_it_is_bounded(mode, held):
    done = subprocess.run([sys.executable, "-c", _FREED, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 2**24) == held


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_interrupting_leaves_130_and_no_files(interruptible, tmp_path):
    process = _process("demo", "--train", "--out", tmp_path / "out")
    assert process.stderr is not None
    assert "Training" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
