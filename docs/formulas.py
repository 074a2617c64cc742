"""Formulas as MathML, made when the documentation is built: browsers show them without a script and without a network.

Docutils converts, which names what it does not know where other converters print something else, and ziamath brings a
font for mathematics: without one bars, brackets and braces do not grow with what is between them.
"""

import functools
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

FONT = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
_APPLY = "\N{FUNCTION APPLICATION}"
_SPACE = {"width": "0.17em"}


def to_mathml(tex: str, *, block: bool) -> str:
    """MathML of a formula, with what TeX does and the converter leaves.

    Raises:
        MathError: for what the converter does not know.
    """
    text = tex2mathml(tex.replace(r"\dots", r"\ldots"), as_block=block).replace("&ApplyFunction;", _APPLY)
    ElementTree.register_namespace("", "http://www.w3.org/1998/Math/MathML")
    tree = ElementTree.fromstring(text)
    for element in list(tree.iter()):
        _put_below_its_brace(element)
        _space_functions(element)
    return ElementTree.tostring(tree, encoding="unicode")


def _put_below_its_brace(element: ElementTree.Element) -> None:
    """What is said of a brace stands below it, not beside."""
    base = element[0] if len(element) == 2 else None
    if base is not None and base.tag.endswith("munder") and base[1].text == "⏟":
        element.tag = base.tag


def _space_functions(element: ElementTree.Element) -> None:
    """A thin space after log and det, but before a parenthesis, as TeX has it."""
    for place in range(len(element) - 2, -1, -1):
        if element[place].text == _APPLY and (element[place + 1].text or "").strip() != "(":
            element.insert(place + 1, ElementTree.Element(element.tag.split("}")[0] + "}mspace", _SPACE))


def write(translator, node, *, block: bool) -> None:
    """Write a formula into a page; a wrong one is a warning, which the build takes for an error."""
    try:
        mathml = to_mathml(node.astext(), block=block)
    except MathError as error:
        logging.getLogger(__name__).warning(f"formula: {error}", location=node)
        mathml = f"<code>{translator.encode(node.astext())}</code>"
    translator.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    """An extension of Sphinx."""
    inline, block = ((functools.partial(write, block=kind), None) for kind in (False, True))
    app.add_html_math_renderer("mathml", inline, block)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
