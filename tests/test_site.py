"""The site of the documentation: how its parts are made, and, as a slow test, the build of the whole and its pages."""

import importlib
import json
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import typer
from browser import CHROMIUM, look_at
from built_pages import (
    CHECKS,
    dead_links,
    from_elsewhere,
    hand_written,
    hidden_modules,
    long_lines,
    raw_formulas,
    read_pages,
    words_for_types,
)
from docutils.utils.math import MathError

import flowsr
from docs.card_pages import write_cards
from docs.command_page import write_commands
from docs.formulas import FONT, to_mathml
from docs.reference_pages import Outside, Reference
from flowsr.cli.app import app

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(flowsr.__path__, "flowsr.") if not module.name.endswith("__main__")
)


@pytest.fixture(scope="module")
def reference():
    return Reference()


def test_what_is_public_has_a_page(reference, tmp_path):
    reference.write(tmp_path)
    written = {path.stem for path in (tmp_path / "api" / "generated").iterdir()}
    assert len({stem.lower() for stem in written}) == len(written) > 350  # some disks take Plan and plan for one
    assert not any("._" in stem for stem in written)
    for name in ("flowsr.likelihood", "flowsr.likelihood.decompose", "flowsr.models.HCFlow", "flowsr.workflows.score"):
        assert name in written
    table = (tmp_path / "api" / "generated" / "flowsr.likelihood.rst").read_text()
    assert "\n   decompose\n" in table and ".. py:data:: GROWTH_LIMIT" in table
    assert "LARGE_OUTPUT" in (tmp_path / "api" / "generated" / "flowsr.workflows.outlook.rst").read_text()
    defined = [
        n for n, thing in vars(flowsr.errors).items() if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    assert sorted(defined) == sorted(flowsr.errors.__all__)
    stale = tmp_path / "api" / "generated" / "flowsr.gone.rst"
    stale.touch()
    reference.write(tmp_path)
    assert not stale.exists()


@pytest.mark.parametrize(
    ("called", "documented"),
    [
        ("flowsr.HCFlow", "flowsr.models.HCFlow"),
        ("flowsr.load", "flowsr.models.load"),
        ("flowsr.models.hcflow.HCFlow", "flowsr.models.HCFlow"),
        ("flowsr.HCFlow.sample", "flowsr.models.ConditionalModel.sample"),
        ("ImageTransform.condition", "flowsr.transforms.ImageTransform.condition"),
        ("flowsr.models.nothing", None),
        ("torch.Tensor", None),
    ],
)
def test_other_names_lead_to_the_page(called, documented, reference):
    assert reference.resolve(called) == documented


def test_private_paths_of_other_projects_lead_to_their_pages():
    outside = Outside(ROOT / "docs" / "inventories")
    assert torch.Generator.__module__ != "torch"
    for called, name in {
        "torch._C.Generator": "torch.Generator",
        "torch.nn.modules.module.Module": "torch.nn.Module",
        "Tensor": "torch.Tensor",
        "pyro.distributions.torch_transform.TransformModule": "pyro.distributions.TransformModule",
        "nobody.knows": "nobody.knows",
    }.items():
        assert outside.find(called) == name


def test_the_page_of_commands_has_every_option(tmp_path):
    write_commands(tmp_path / "commands.inc")
    _, *sections = (tmp_path / "commands.inc").read_text().split(".. _command-")
    commands = typer.main.get_command(app).commands
    assert [section.partition(":")[0] for section in sections] == list(commands)
    for section, command in zip(sections, commands.values(), strict=True):
        for parameter in command.params:
            named = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar
            assert getattr(parameter, "hidden", False) or re.search(
                rf"^\.\. .*{re.escape(named)}", section, re.MULTILINE
            )
        assert "$ flowsr" in section and "Usage: ``flowsr" in section
    assert "[default: three quarters of what is free]" in sections[1]


def test_a_card_becomes_a_page_by_itself(tmp_path):
    pages, pictures = tmp_path / "generated" / "cards", tmp_path / "_static"
    pages.mkdir(parents=True)
    pictures.mkdir()
    (pages / "gone.md").write_text("# a model that ships no more")
    (pictures / "curve-sr-x4-small-v1.png").write_bytes(b"")
    write_cards(pages, pictures)
    cards = {card.stem: card.read_text() for card in (ROOT / "flowsr" / "weights").glob("*.md")}
    written = {page.stem: page.read_text() for page in pages.glob("*.md")}
    assert written.keys() == cards.keys() >= {"sr-x4-small-v1"}
    assert all(written[name].startswith(text) for name, text in cards.items())
    (picture,) = re.findall(r"\]\((.*?)\)", written["sr-x4-small-v1"].removeprefix(cards["sr-x4-small-v1"]))
    assert (pages / picture).resolve() == pictures / "curve-sr-x4-small-v1.png"


def test_prompts_are_left_out_of_what_is_copied():
    prompt = runpy.run_path(str(ROOT / "docs" / "conf.py"))["copybutton_prompt_text"]
    lines = [">>> if x:", "...     f(x)", "...", "$ flowsr info", "...nats", "3.1"]
    copied = [re.sub(f"^({prompt})", "", line) for line in lines if re.match(prompt, line)]
    assert copied == ["if x:", "    f(x)", "", "flowsr info"]


def test_formulas_are_set_as_tex_sets_them():
    brace = to_mathml(r"\underbrace{\log p}_\text{LR}", block=True)
    assert "<msub>" not in brace and re.search(r"⏟</mo>\s*</munder>\s*<mtext>LR</mtext>\s*</munder>", brace)
    assert "mspace" in to_mathml(r"\log p", block=False) and "mspace" not in to_mathml(r"\log(p)", block=False)
    assert "…" in to_mathml(r"z_L, \dots, z_1", block=False)
    with pytest.raises(MathError, match="nonsense"):
        to_mathml(r"\nonsense", block=False)
    assert FONT.read_bytes()[:4] == bytes([0, 1, 0, 0])  # TrueType


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_builds_without_a_warning(tmp_path):
    # A copy, as the build writes generated pages beside its sources.
    shutil.copytree(
        ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "auto_examples", "generated")
    )
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    schemas = Path("flowsr", "workflows", "schemas")  # which a page includes
    shutil.copytree(ROOT / schemas, tmp_path / schemas)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "html"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    assert (html / "auto_examples" / "plot_01_change_of_variables.html").exists()
    check_pages(html)
    if CHROMIUM:
        check_in_a_browser(html, tmp_path)


def check_pages(folder):
    """What holds of all pages, here as the build takes minutes and would be done anew for every test of it."""
    pages = read_pages(folder)
    faults = {check.__name__: check(pages, folder) for check in CHECKS}
    assert not any(faults.values()), json.dumps(faults, indent=1, ensure_ascii=False)
    documented = {Path(name).stem for name in pages if name.startswith("api/generated/")}
    for module in {name for name in flowsr.__all__ if isinstance(getattr(flowsr, name), types.ModuleType)}:
        assert f"flowsr.{module}" in documented, "every public module has a page"
        assert getattr(flowsr, module).__name__ == "flowsr.workflows" or any(
            name.startswith(f"flowsr.{module}.") for name in documented
        ), "and so has what it offers"
    assert "Examples that use it" in pages["api/generated/flowsr.models.HCFlow.html"]
    assert (
        'href="https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"'
        in pages["api/generated/flowsr.likelihood.decompose.html"]
    )
    for name in typer.main.get_command(app).commands:
        assert f'id="flowsr-{name}"' in pages["command_line.html"]
    for entry in cited():
        assert re.search(r"url\s*=\s*\{(.*?)\}", entry)[1] in pages["bibliography.html"], entry
    linked = set(re.findall(r'href="https://[^"#]*#([\w.]+)"', "".join(pages.values())))
    assert set(Outside(ROOT / "docs" / "inventories").names) <= linked, (
        "inventories have what is linked to, and no more"
    )
    for link in re.findall(r"readthedocs\.io/en/latest/([^)#\s]+)", (ROOT / "README.md").read_text()):
        assert link in pages, f"README.md leads to {link}, which is not there"
    assert all("copybutton.js" in page for name, page in pages.items() if 'class="highlight' in page), "no copy buttons"


def check_in_a_browser(folder, scratch):
    """Formulas take room, in their font; no code is cut on a desktop; nothing is missing or wider than the window."""
    names = hand_written(read_pages(folder))
    seen = look_at(names, folder, scratch, widths=[1280, 390])
    assert len(seen) == 2 * len(names) and sum(page["formulas"] for page in seen) > 100
    faults = [
        page
        for page in seen
        if page["flat"]
        or page["broken"]
        or page["over"] > 0
        or (page["formulas"] and not page["font"])
        or (page["width"] > 1000 and page["cut"])
    ]
    assert not faults, json.dumps(faults, indent=1, ensure_ascii=False)


def cited():
    """The BibTeX of every class of the package that comes from a paper."""
    rooms = [importlib.import_module(name) for name in MODULES]
    classes = {thing for room in rooms for thing in vars(room).values() if isinstance(thing, type)}
    return {
        entry for thing in classes if thing.__module__.startswith("flowsr") for entry in getattr(thing, "citations", ())
    }


def test_every_paper_has_an_address():
    assert len(cited()) >= 12
    for entry in cited():
        assert re.search(r"url\s*=\s*\{https://\S+\}", entry), entry


@pytest.mark.parametrize(
    ("check", "page"),
    [
        (dead_links, '<a class="x" href="gone.html">'),
        (dead_links, '<a href="#gone">'),
        (dead_links, '<a href="http://example.org/plain">'),
        (dead_links, '<img src="gone.png">'),
        (from_elsewhere, '<script defer src="https://cdn.example.org/a.js"></script>'),
        (from_elsewhere, '<link rel="stylesheet" type="text/css" href="https://cdn.example.org/a.css"/>'),
        (raw_formulas, '<span class="math">\\(x^2\\)</span>'),
        (raw_formulas, "<math><mi>\\alpha</mi></math>" * 101),
        (raw_formulas, "no formula"),
        (words_for_types, '<dt class="f">Type<span class="colon">:</span></dt>\n<dd><p>What it is</p></dd>'),
        (long_lines, f'<div class="highlight-text notranslate"><div><pre>{"x" * 101}</pre></div></div>'),
        (hidden_modules, ""),
    ],
)
def test_a_fault_of_a_page_is_found(check, page, tmp_path):
    sound = '<article id="here"><a href="#here"></a><a href="https://example.org/"></a>' + "<math>x</math>" * 101
    names = {"index.html": sound, "api/generated/flowsr._private.html": page}
    for name, text in names.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert check({"index.html": sound}, tmp_path) == []
    pages = read_pages(tmp_path)
    assert check(pages if check is not raw_formulas else {"page.html": page}, tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "inventories").glob("*.inv")), ids=lambda path: path.stem)
def test_names_of_other_projects_are_there(path):
    lines = path.read_text().splitlines()[3:]
    assert lines == sorted(lines)
    for name in (line.split()[0] for line in lines):
        assert pkgutil.resolve_name(name if "." in name else f"builtins.{name}") is not None
