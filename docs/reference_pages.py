"""The reference: a page per module with a table of what it offers, and a page for each object that it offers.

What is public is what ``flowsr/__init__.pyi`` lists, and of each module in it what its ``__all__`` does. The pages of
objects stand in no navigation, where hundreds of names would hide everything else: tables, text and search lead there.
"""

import ast
import contextlib
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import flowsr
from flowsr.models import ImageModel

FOLDER = "api/generated"
GROUPS = {"module": "Modules", "class": "Classes", "exception": "Exceptions", "function": "Functions"}
_INHERITED = "Module, TransformModule, Transform, Distribution, object"
"""Where the methods that a page shows end: torch's and Pyro's own are on their pages."""


def public_modules() -> dict[str, ModuleType]:
    """The modules that ``flowsr`` offers, and those that they offer, by name."""
    found = {}
    waiting = [getattr(flowsr, name) for name in flowsr.__all__]
    while waiting:
        if inspect.ismodule(module := waiting.pop(0)):
            found[module.__name__] = module
            waiting += [getattr(module, name) for name in public_names(module)]
    return found


def public_names(module: ModuleType) -> list[str]:
    """What a module offers: its ``__all__``, else functions and classes it defines and constants it explains."""
    if listed := getattr(module, "__all__", None):
        return list(listed)
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    defined = [name for name in own if kind_of(getattr(module, name)) != "data"]
    explained = [name for scope, name in ModuleAnalyzer.for_module(module.__name__).find_attr_docs() if not scope]
    return [name for name in dict.fromkeys([*defined, *explained]) if name[0] != "_"]


def kind_of(thing: Any) -> str:
    """What a directive for the object is called after."""
    if inspect.ismodule(thing):
        return "module"
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if callable(thing) else "data"


def public_objects() -> dict[str, Any]:
    """Every public object by its full name; one that two modules offer stands with the first of them."""
    found: dict[str, Any] = {}
    taken = set()
    for name, module in public_modules().items():
        for own in public_names(module):
            thing = getattr(module, own)
            if not inspect.ismodule(thing) and (kind_of(thing) == "data" or id(thing) not in taken):
                found[f"{name}.{own}"] = thing
                taken.add(id(thing))
    return found


class Reference:
    """The names of the reference, and its pages as reStructuredText."""

    def __init__(self) -> None:
        self.modules = public_modules()
        self.objects = public_objects()
        self.names = {id(thing): name for name, thing in self.objects.items() if kind_of(thing) != "data"}
        short = [name.rpartition(".")[2] for name in self.objects]
        self.short = {s: name for s, name in zip(short, self.objects, strict=True) if short.count(s) == 1}

    def write(self, source: Path) -> None:
        """Write all pages below the folder of the sources; those of objects that are gone go too."""
        pages = {self.page(name): self.module_text(name) for name in self.modules}
        pages |= {self.page(n): self.object_text(n) for n, thing in self.objects.items() if kind_of(thing) != "data"}
        folder = source / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.rst"):
            if path.stem not in pages:
                path.unlink()
        for stem, text in pages.items():  # one that is as before is not built again
            path = folder / f"{stem}.rst"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")

    def write_table(self, path: Path) -> None:
        """Write the table of modules, for the page that leads to theirs; those inside others stand on the others'."""
        names = [name for name in self.modules if name.count(".") == 1]
        lines = [".. autosummary::", "   :nosignatures:", f"   :toctree: {FOLDER}", "", *(f"   {n}" for n in names)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def page(self, name: str) -> str:
        """The file of a name; some disks take ``Plan`` and ``plan`` for one."""
        twins = [other for other in (*self.objects, *self.modules) if other.lower() == name.lower()]
        return name if len(twins) == 1 or inspect.isclass(self.objects.get(name)) else f"{name}_{len(name)}"

    def module_text(self, name: str) -> str:
        """A module's page: what it says of itself, tables of what it offers, and its constants."""
        module = self.modules[name]
        lines = [":orphan:", ""] if name.count(".") > 1 else []
        lines += [*heading(name), f".. automodule:: {name}", ""]
        own = {f"{name}.{member}": getattr(module, member) for member in public_names(module)}
        for kind, title in GROUPS.items():
            if members := [self.names.get(id(thing), n) for n, thing in own.items() if kind_of(thing) == kind]:
                lines += [f".. rubric:: {title}", "", ".. autosummary::", "   :nosignatures:", ""]
                lines += [*(f"   {short(member, name)}" for member in members), ""]
        constants = [n for n, thing in own.items() if kind_of(thing) == "data"]
        lines += [".. rubric:: Constants", ""] if constants else []
        return "\n".join([*lines, *(line for n in constants for line in constant(n))])

    def object_text(self, name: str) -> str:
        """An object's page: where it belongs, its documentation, and the examples that use it."""
        module, _, own = name.rpartition(".")
        aliases = f" flowsr.{own}" if getattr(flowsr, own, None) is self.objects[name] else ""
        lines = [":orphan:", "", *heading(name), f"Of :mod:`{module}`.", "", f".. currentmodule:: {module}", ""]
        lines += [f".. auto{kind_of(self.objects[name])}:: {own}"]
        if inspect.isclass(self.objects[name]):
            lines += ["   :members:", "   :show-inheritance:"]
            lines += [f"   :inherited-members: {_INHERITED}"] if issubclass(self.objects[name], ImageModel) else []
        lines += ["", f".. minigallery:: {name}{aliases}", "   :add-heading: Examples that use it", ""]
        return "\n".join(lines)

    def resolve(self, target: str) -> str | None:
        """The documented name of what a text calls otherwise: ``flowsr.HCFlow``, or a name in the defining module."""
        head, _, rest = target.partition(".")
        if head in self.short:
            return self.short[head] + target[len(head) :]
        if head != "flowsr" or not rest:
            return None
        with contextlib.suppress(ImportError, AttributeError):
            thing = pkgutil.resolve_name(target)
            owner, _, member = target.rpartition(".")
            return self.names.get(id(thing)) or self._member(pkgutil.resolve_name(owner), member)
        return None

    def _member(self, owner: Any, member: str) -> str | None:
        """The documented name of a member of a class, which may be documented with its base."""
        bases = inspect.getmro(owner) if inspect.isclass(owner) else ()
        return next((f"{self.names[id(b)]}.{member}" for b in bases if id(b) in self.names and member in vars(b)), None)


class Outside:
    """The names of other projects that the inventories have, found by whatever path leads to the same object."""

    def __init__(self, folder: Path) -> None:
        lines = [line for path in folder.glob("*.inv") for line in path.read_text(encoding="utf-8").splitlines()]
        self.names = [line.split()[0] for line in lines if not line.startswith("#")]
        self.paths = {id(pkgutil.resolve_name(name)): name for name in self.names if "." in name}

    def find(self, target: str) -> str:
        """The name in an inventory, or the target itself."""
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            return self.paths.get(id(pkgutil.resolve_name(target if "." in target else f"torch.{target}")), target)
        return target


def short(name: str, module: str) -> str:
    """How a module's table calls an object: by its own name, which another module's has with that module's."""
    return name.removeprefix(f"{module}.") if name.count(".") == module.count(".") + 1 else f"~{name}"


def heading(text: str) -> list[str]:
    """A title."""
    return [text, "=" * len(text), ""]


def constant(name: str) -> list[str]:
    """The entry of a constant, whose words stand below it in the module that sets it."""
    module, _, own = name.rpartition(".")
    lines = [f".. py:data:: {own}", "   :no-contents-entry:", ""]
    return [*lines, *(f"   {line}" for line in said_of(sys.modules[module], own)), ""]


def said_of(module: ModuleType, name: str) -> list[str]:
    """The words below a constant, where it is set or in the module that this one has it from."""
    analyzer = ModuleAnalyzer.for_module(module.__name__)
    if words := analyzer.find_attr_docs().get(("", name)):
        return words
    imports = (node for node in ast.walk(ast.parse(analyzer.code)) if isinstance(node, ast.ImportFrom))
    home = next(node.module for node in imports if name in {alias.asname or alias.name for alias in node.names})
    return said_of(importlib.import_module(home), name)
