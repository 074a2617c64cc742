"""Configuration of the documentation; ``make docs`` builds it, with warnings as errors."""

import doctest
import os
import shutil
from pathlib import Path

import flowsr

project = "flowsr"
author = "the flowsr authors"
copyright = "the flowsr authors, Apache-2.0"
version = release = flowsr.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "flowsr"
html_static_path = ["_static"]

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes of dataclasses and named tuples are fields already; a second description of each would be a duplicate.
napoleon_use_ivar = True

# Intersphinx downloads an inventory from each site at every build. The documentation must build without a network, and
# a failed download is a warning, that is an error. So links to torch and Pyro are made only where they are asked for.
if os.environ.get("FLOWSR_DOCS_INTERSPHINX") == "1":
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "pyro": ("https://docs.pyro.ai/en/stable", None),
    }


WEIGHTS = Path(flowsr.__file__).parent / "weights" / "sr-x4-small.safetensors"


def _arguments(_gallery_conf: dict, script: dict) -> list[str]:
    """The third example trains for minutes where no weights are shipped; a build then takes its short cut.

    So do the fourth, the ninth and the tenth, which train, and the eighth, which samples for minutes: with
    FLOWSR_DOCS_TRAIN=1 their pages are of the whole run.
    """
    long = any(f"plot_{number}" in script["src_file"] for number in ("04", "08", "09", "10"))
    short = ("plot_03" in script["src_file"] and not WEIGHTS.exists()) or (
        long and os.environ.get("FLOWSR_DOCS_TRAIN") != "1"
    )
    return ["--smoke"] if short else []


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
    "image_scrapers": ("matplotlib",),
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


def setup(app) -> None:
    """Make the figures that pages include."""
    source = Path(app.srcdir)
    draw_graph(source / "flows_in_programs.rst", source / "generated", name="camera")
