"""What must hold of the built documentation, each a function from the pages to the faults in them."""

import html
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

WIDEST = 100
_HAND_WRITTEN = re.compile(r"^(?!_modules/|api/|auto_examples/|genindex|py-modindex|search|sg_execution)")


def read_pages(folder):
    """The text of every page by its path below the folder."""
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in sorted(Path(folder).rglob("*.html"))}


def text_of(markup):
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def links(page):
    """What a page leads to or loads, each once."""
    return [html.unescape(found) for found in dict.fromkeys(re.findall(r'\s(?:href|src)="([^"]*)"', page))]


def dead_links(pages, folder):
    """Links to pages, files and places in pages that are not there; other sites' addresses are read for their form."""
    there = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
    places = {name: {"", "top", *map(html.unescape, re.findall(r'\sid="([^"]*)"', p))} for name, p in pages.items()}
    return [f"{n}: {link}" for n, page in pages.items() for link in links(page) if not _alive(n, link, there, places)]


def _alive(name, link, there, places):
    address = urlparse(link)
    if address.scheme in ("http", "https"):
        return address.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", address.netloc)
    if address.scheme:
        return address.scheme in ("data", "mailto")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(address.path))) if address.path else name
    # Sphinx takes one public module for each file of source, so that some ways back lead to the top of the right page.
    anywhere = path not in places or name.startswith("_modules/")
    return path in there and (anywhere or unquote(address.fragment) in places[path])


def from_elsewhere(pages, _folder):
    """Scripts, styles and pictures that a page could not show without a network."""
    loads = re.compile(
        r'<(?:script|img|source|iframe)[^>]*\ssrc="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="http'
    )
    return [name for name, page in pages.items() if loads.search(page)]


def raw_formulas(pages, _folder):
    """Formulas that stand as TeX, for a script to set; there must be formulas for this to say anything."""
    formulas = [
        (name, found) for name, page in pages.items() for found in re.findall(r"<math.*?</math>", page, re.DOTALL)
    ]
    faults = [f"{name}: {text_of(found)}" for name, found in formulas if "\\" in text_of(found)]
    faults += [name for name, page in pages.items() if re.search(r'class="math[^>]*>\s*(\\|<code)|MathJax', page)]
    return faults if len(formulas) > 100 else [*faults, f"{len(formulas)} formulas"]


def words_for_types(pages, _folder):
    """Entries whose description stands where a type should."""
    field = re.compile(r"<dt[^>]*>Type<span.*?</dt>\s*<dd[^>]*>(.*?)</dd>", re.DOTALL)
    return [f"{name}: {text_of(found)}" for name, page in pages.items() for found in field.findall(page)]


def long_lines(pages, _folder):
    """Lines of tables and pictures in text that a desktop's screen cuts; all other blocks of code go on below."""
    block = re.compile(r'<div class="highlight-text.*?<pre>(.*?)</pre>', re.DOTALL)
    lines = (
        (n, line) for n, page in pages.items() for code in block.findall(page) for line in text_of(code).splitlines()
    )
    return [f"{name}: {line}" for name, line in lines if len(line) > WIDEST]


def hidden_modules(pages, _folder):
    """Private modules in the navigation or among the pages, and pages of the reference that nothing leads to."""
    reference = {name for name in pages if name.startswith("api/generated/")}
    private = [name for name in reference if re.search(r"\._", name)]
    led_to = {Path(link).name for name, page in pages.items() for link in links(page.partition("<article")[2]) if link}
    return private + sorted(name for name in reference if Path(name).name not in {n.split("#")[0] for n in led_to})


CHECKS = (dead_links, from_elsewhere, raw_formulas, words_for_types, long_lines, hidden_modules)


def hand_written(pages):
    """The pages that people write, and the command line's."""
    return [name for name in pages if _HAND_WRITTEN.match(name)]
