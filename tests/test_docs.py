"""What the documentation says is run: docstrings, pages, the README, and the lines of their consoles."""

import contextlib
import doctest
import importlib
import importlib.util
import pkgutil
import re
import runpy
import shlex
import sys
import textwrap
import types
from pathlib import Path

import pyro
import pytest
import torch
import typer

import flowsr
from flowsr.cli.app import app
from flowsr.cli.guard import EXAMPLE

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.rst"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(flowsr.__path__, "flowsr.") if not module.name.endswith("__main__")
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(tests):
    report = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    for test in tests:
        torch.manual_seed(0)
        pyro.clear_param_store()
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


NEEDS = {
    "deepinv_samplers": ["deepinv"],
    "flowsr.interop.deepinv_chains": ["deepinv"],
    "flowsr.interop.deepinv_diffusion": ["deepinv"],
    "flowsr.interop.with_deepinv": ["deepinv"],
    "flowsr.interop.with_nflows": ["nflows"],
    "flowsr.interop.with_sbi": ["sbi"],
    "flowsr.interop.with_zuko": ["zuko"],
    "other_libraries": ["deepinv", "nflows", "onnx", "onnxruntime", "onnxscript", "sbi", "zuko"],
}
"""What examples import that need not be installed."""


def skip_without_libraries(name):
    if missing := [needed for needed in NEEDS.get(name, []) if importlib.util.find_spec(needed) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'flowsr[interop]'")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    skip_without_libraries(name)
    module = importlib.import_module(name)
    # Names a reader of the API pages takes for granted; the module's own come on top.
    namespace = {"torch": torch, "pyro": pyro, "flowsr": flowsr, **vars(module)}
    run(doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=namespace))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages(path, monkeypatch):
    skip_without_libraries(path.stem)
    text = path.read_text()
    # Classes defined on a page must be found again by pickle, so the page is a module while it runs.
    page = types.ModuleType(f"page_{path.stem}")
    monkeypatch.setitem(sys.modules, page.__name__, page)
    test = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    test.globs = vars(page)
    assert not re.search(r"code(-block)?::\s*(python|pycon)", text), "Python on a page is a doctest, so that it runs"
    run([test])


NAMED = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`(?:[^`<]*<)?[~!]?(flowsr[\w.]*)>?`")


def test_names_on_pages_are_there():
    """Sphinx prints a name that it finds nowhere as plain text, without a word."""
    named = {name for page in PAGES for name in NAMED.findall(page.read_text())}
    assert len(named) > 80
    for name in sorted(named):
        pkgutil.resolve_name(name)


def test_what_can_be_trusted_is_tested():
    """The page of promises names the test of each, and it is there."""
    named = set(re.findall(r"``(tests/[\w/]+\.py)(?:::(\w+))?``", (ROOT / "docs/trust.rst").read_text()))
    assert len(named) > 40
    for file, test in sorted(named):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"\ndef {test}(" in text, f"{file} has no {test}"


def test_readme(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) <= 22, "twenty lines of use"
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {"__name__": "readme"})


HOME, SITE = "https://github.com/flowsr/flowsr/", "https://flowsr.readthedocs.io/en/latest/"
RAW = "https://raw.githubusercontent.com/flowsr/flowsr/main/"
FRONT = ["README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md"]


def source_of(link):
    """What of the repository stands behind a link to it or to its documentation; None for links elsewhere."""
    place = link.partition("#")[0]
    for start in (f"{HOME}blob/main/", f"{HOME}tree/main/", RAW):
        if place.startswith(start):
            return place.removeprefix(start)
    if place.startswith(SITE):
        page = place.removeprefix(SITE) or "index.html"
        return "examples" if page.startswith("auto_examples/") else f"docs/{page.removesuffix('.html')}.rst"
    return None


@pytest.mark.parametrize("source", FRONT)
def test_links_are_absolute_and_lead_somewhere(source):
    """An index and a clone show the same page, so a link says the whole address."""
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / source).read_text())
    assert links
    for link in links:
        assert link.startswith("https://"), f"{source} links to {link}, which an index cannot follow"
        own = source_of(link)
        assert own is None or (ROOT / own).exists(), f"{source} links to {link}, which is not there"
    assert not (ROOT / source_of(f"{HOME}blob/main/NOWHERE.md")).exists()


SOURCES = [*FRONT, "Makefile", *(str(p.relative_to(ROOT)) for p in [*PAGES, *ROOT.glob("flowsr/weights/*.md")])]
CODE = sorted(
    str(p.relative_to(ROOT)) for room in ("flowsr", "examples", "benchmarks") for p in (ROOT / room).rglob("*.py")
)


def command_lines(text):
    """The lines of code blocks, fenced or indented, that call flowsr, as a shell splits them."""
    text = re.sub(r"```\w*\n(.*?)```", lambda block: textwrap.indent(block[1], "    "), text, flags=re.DOTALL)
    text = re.sub(r"\\\n\s*", " ", text)
    called = re.compile(r"^(?:\t| {3,})(?:\$ )?(?:torchrun .*-m |\$\(BIN\)/)?flowsr ([a-z-].*)$", re.MULTILINE)
    return [shlex.split(found[1].split(" #")[0]) for found in called.finditer(text)]


def mentions(text):
    """What running text says of commands, between backticks; … stands for what was left out."""
    spans = re.findall(r"(?<!`)`{1,2}(?:torchrun [^`]*-m )?flowsr ([a-z][^`]*)`{1,2}", text)
    return [shlex.split(span.replace("IMAGE…", "IMAGE")) for span in spans]


def parse(words):
    """The command line through the real parser, without running the command."""
    group = typer.main.get_command(app)
    top = group.make_context("flowsr", [], resilient_parsing=True)
    name, command, rest = group.resolve_command(top, list(words))
    with contextlib.suppress(typer.Exit):  # --help
        command.make_context(name, rest, parent=top)


@pytest.mark.parametrize("source", SOURCES)
def test_command_lines_are_those_of_the_parser(source):
    text = (ROOT / source).read_text()
    for words in command_lines(text):
        parse(words)
    for words in mentions(text):
        check_mention(words)


def check_mention(words):
    """A command that is only named must be there, and so must the options named with it."""
    if len(words) > 1 and "…" not in words:
        return parse(words)
    command = typer.main.get_command(app).commands[words[0]]
    options = {text for param in command.params for text in param.opts}
    assert {word for word in words if word.startswith("-")} <= options, words
    return None


@pytest.mark.parametrize("source", [name for name in CODE if "flowsr " in (ROOT / name).read_text()])
def test_commands_that_code_speaks_of_are_there(source):
    for words in mentions((ROOT / source).read_text()):
        check_mention(words)


def test_a_stale_command_line_is_found():
    indented = "Train::\n\n    $ flowsr train sr-x4-small photos \\\n       --out runs\n"
    stale = indented + "```\nflowsr score a.png --models x  # bits\n```"
    old, unknown = command_lines(stale)
    assert old == ["train", "sr-x4-small", "photos", "--out", "runs"] and unknown[-1] == "x"
    with pytest.raises(ValueError, match="type flowsr train photos --out runs --model sr-x4-small"):
        parse(old)
    with pytest.raises(Exception, match="No such option: --models"):
        parse(unknown)
    for gone in ("see `flowsr paint`", "``flowsr score … --colour``"):
        with pytest.raises((KeyError, AssertionError)):
            check_mention(*mentions(gone))
    assert sum(len(command_lines((ROOT / name).read_text())) for name in SOURCES) > 12


def test_examples_of_the_help_are_those_of_the_parser():
    for name, command in typer.main.get_command(app).commands.items():
        (words,) = command_lines("    " + command.epilog.removeprefix(EXAMPLE))
        assert words[0] == name
        parse(words)


@pytest.mark.parametrize("dot", [False, True])
def test_the_graph_of_a_program_is_a_picture_or_words(dot, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    if dot:
        (tmp_path / "dot").write_text("#!/bin/sh\nwhile read line; do :; done\necho '<svg/>'\n")
        (tmp_path / "dot").chmod(0o755)
    draw_graph = runpy.run_path(str(ROOT / "docs" / "conf.py"))["draw_graph"]
    draw_graph(ROOT / "docs" / "flows_in_programs.rst", tmp_path / "generated", name="camera")
    text = (tmp_path / "generated" / "camera.inc").read_text()
    if dot:
        assert ".. image:: generated/camera.svg" in text
        assert (tmp_path / "generated" / "camera.svg").read_text() == "<svg/>\n"
    else:
        assert "   gain -> photo\n" in text


@pytest.mark.parametrize("source", [*(str(p.relative_to(ROOT)) for p in PAGES), "README.md", "examples/README.rst"])
def test_every_block_of_code_is_run_or_known(source):
    """Doctests and the README's Python run; lines of a console are commands that are there; the rest is named text."""
    for language, block in blocks_of((ROOT / source).read_text()):
        lines = [line for line in re.sub(r"\\\n\s*", " ", block).splitlines() if line.strip()]
        if language == "console":
            for line in (line.removeprefix("$ ") for line in lines if line.startswith("$ ") or "README" in source):
                check_console(line.split(" #")[0].strip())
        else:
            assert language in ("text", "python", "bibtex", "doctest"), f"{language}: {block}"
            assert ">>>" not in block or language == "doctest"


def blocks_of(text):
    """The language and the text of every block of code: fenced, or of a directive, or after two colons."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        yield found[1] or "console", found[2]
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    directive = r"^( *)(?:\.\. code-block:: *(\w*)|(?!\.\. )\S.*::)\n\n((?:\1 +.*\n|\n)+)"
    for found in re.finditer(directive, text, flags=re.MULTILINE):
        block = textwrap.dedent(found[3])
        yield found[2] or ("doctest" if block.startswith(">>>") else "text"), block


MADE = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def check_console(line):
    """A command of a console: a target of the Makefile, a module that is there, or flowsr, with its options."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        assert set(words[1:]) <= MADE, line
    elif "-m" in words:
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module), line
    else:
        assert words[0] in {"flowsr", "pip", "git", "cd", "python", "export"}, line
    if "flowsr" in words and words[0] in ("flowsr", "torchrun", "python"):
        parse(words[words.index("flowsr") + 1 :])


def test_a_stale_line_of_a_console_is_found():
    text = "Do::\n\n    $ rm -r x\n\n.. code-block:: console\n\n   $ make nothing\n   $ python -m flowsr paint\n\nEnd\n"
    (_, _), (language, block) = blocks_of(text)
    assert language == "console" and len(block.strip().splitlines()) == 2
    for line in [*(line.strip("$ ") for line in block.strip().splitlines()), "flowsr score --colour x.png", "rm -r x"]:
        with pytest.raises(Exception, match=r"nothing|make_context|--colour|rm -r x"):
            check_console(line)
