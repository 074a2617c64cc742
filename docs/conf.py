"""Configuration of the documentation; ``make docs`` builds it, with warnings as errors."""

import doctest
import inspect
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import literal_emphasis
from sphinx.util.inspect import stringify_signature

import flowsr
from flowsr.models.weights import shipped_path

sys.path.insert(0, str(Path(__file__).parent))
from card_pages import write_cards
from command_page import write_commands
from formulas import FONT
from reference_pages import Outside, Reference

project = "flowsr"
author = "the flowsr authors"
copyright = "the flowsr authors, Apache-2.0"
version = release = flowsr.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "formulas",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py", "generated/*.inc"]
html_theme = "furo"
html_title = "flowsr"
html_static_path = ["_static", str(FONT)]
html_css_files = ["site.css"]
REPOSITORY = "https://github.com/flowsr/flowsr"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": ["view"],
    "footer_icons": [{"name": "Repository", "url": REPOSITORY, "html": "Repository", "class": ""}],
}
html_math_renderer = "mathml"

autosummary_generate = False  # reference_pages.py writes the pages, as public names are those of packages
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes of dataclasses and named tuples are fields already; a second description of each would be a duplicate.
napoleon_use_ivar = True

# What is copied are commands and statements, without prompts and what is printed.
copybutton_prompt_text = r">>> |\.\.\.(?: |$)|\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

# Written from the ``citations`` of the package; references.bib has what no class of it comes from.
bibtex_bibfiles = ["generated/citations.bib", "references.bib"]

# Inventories lie beside this file, as the documentation is built without a network: the few names that it links to.
intersphinx_mapping = {
    name: (address, f"inventories/{name}.inv")
    for name, address in {
        "python": "https://docs.python.org/3",
        "torch": "https://docs.pytorch.org/docs/stable",
        "pyro": "https://docs.pyro.ai/en/stable",
    }.items()
}
# What text names must be there; a signature may have types that are nobody's business.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]


def _arguments(_gallery_conf: dict, script: dict) -> list[str]:
    """The third example trains for minutes where no weights are shipped; a build then takes its short cut."""
    return ["--smoke"] if "plot_03" in script["src_file"] and shipped_path("sr-x4-small") is None else []


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    # Every example is run during the build.
    "reset_argv": _arguments,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "capture_repr": (),
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    # Which examples use what, for the pages of the reference.
    "doc_module": ("flowsr",),
    "backreferences_dir": "generated/backreferences",
    "inspect_global_variables": True,
}
# The function above cannot be pickled into Sphinx's cache of the configuration; it is only read again at each build.
suppress_warnings = ["config.cache"]


def draw_graph(page: Path, folder: Path, *, name: str) -> None:
    """Write NAME.inc, the graph that a page's own code makes under the name ``graph``, for the page to include.

    A picture where Graphviz's program ``dot`` is there; elsewhere the edges in words, so that the page still builds.
    """
    namespace: dict = {}
    for example in doctest.DocTestParser().get_examples(page.read_text()):
        exec(compile(example.source, page.name, "single"), namespace)
        if "graph" in namespace:
            break
    graph = namespace["graph"]
    folder.mkdir(exist_ok=True)
    if shutil.which("dot"):
        (folder / f"{name}.svg").write_bytes(graph.pipe(format="svg"))
        text = f".. image:: {folder.name}/{name}.svg\n   :alt: the graph of the program\n"
    else:
        edges = sorted(line.strip() for line in graph.source.splitlines() if "->" in line)
        text = "::\n\n" + "".join(f"   {edge}\n" for edge in edges)
    (folder / f"{name}.inc").write_text(text)


def write_citations(path: Path, others: Path, classes) -> None:
    """Write the BibTeX that the classes of the package have, each entry once; what is in the other file stays there."""
    known = set(re.findall(r"^@\w+\{([^,]+),", others.read_text(encoding="utf-8"), flags=re.MULTILINE))
    entries = dict.fromkeys(entry for thing in classes for entry in getattr(thing, "citations", ()))
    new = [entry for entry in entries if re.match(r"@\w+\{([^,]+),", entry)[1] not in known]
    path.write_text("\n\n".join(new), encoding="utf-8")


def keep_first_colon(_app, what: str, _name, _thing, _options, lines: list[str]) -> None:
    """Put an empty comment before the words of an attribute: what a colon in their first line ends is no type."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


def own_signature(_app, what: str, _name, thing, _options, signature: str | None, returns: str | None):
    """The arguments of a transform are those of its ``__init__``; its base's ``__new__`` takes anything."""
    if what == "class" and signature and signature.startswith("(*_args"):
        plain = inspect.signature(thing).replace(return_annotation=inspect.Signature.empty)
        return stringify_signature(plain, unqualified_typehints=True), returns
    return None


def public_bases(app, _name, _thing, _options, bases: list) -> None:
    """In place of a private base stands the public class that it comes from."""
    known = app.reference.names
    for place, base in enumerate(bases):
        line = inspect.getmro(base) if inspect.isclass(base) else ()
        bases[place] = next((c for c in line if id(c) in known or not c.__module__.startswith("flowsr")), base)


def link_by_other_name(app, env, node, content):
    """Link what is named by another path than the page's: ``flowsr.HCFlow``, ``torch._C.Generator`` in a signature."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if isinstance(content, literal_emphasis) and content.astext() == target:  # the type of a field, with its whole path
        content[:] = [nodes.Text(target.rpartition(".")[2])]
    if (name := app.reference.resolve(target)) is None:
        node["reftarget"] = app.outside.find(target)  # which intersphinx looks up next
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


def no_source_of_written_pages(_app, page: str, _template, context: dict, _tree) -> None:
    """Pages that the build writes have no source in the repository to view."""
    if page.startswith(("api/generated", "auto_examples")):
        context["page_source_suffix"] = ""


def setup(app) -> None:
    """Make what pages include, and the pages that are written from the package."""
    source = Path(app.srcdir)
    draw_graph(source / "flows_in_programs.rst", source / "generated", name="camera")
    write_cards(source / "generated" / "cards", source / "_static")
    app.reference = Reference()
    app.reference.write(source)
    app.reference.write_table(source / "generated" / "modules.inc")
    write_commands(source / "generated" / "commands.inc")
    write_citations(source / "generated/citations.bib", source / "references.bib", app.reference.objects.values())
    app.outside = Outside(source / "inventories")
    app.connect("autodoc-process-docstring", keep_first_colon, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", own_signature)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("missing-reference", link_by_other_name, priority=400)
    app.connect("html-page-context", no_source_of_written_pages)
