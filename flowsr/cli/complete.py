"""What a shell completes after an option: names of models, studies, recipes and devices.

A shell asks at every press of a key, and importing torch takes seconds. So the names are read off the package's own
source, where they stand as literals, and nothing of it is imported.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import shorten

Found = list[tuple[str, str]]

_WEIGHTS = (".safetensors", ".pth", ".pt")


@cache
def _source(*path: str) -> ast.Module:
    return ast.parse(files("flowsr").joinpath(*path).read_text(encoding="utf-8"))


def preset_names() -> dict[str, str]:
    """The presets of all models, and what their weights are: shipped, released or random.

    Example:
        >>> preset_names()["sr-x4-small"], preset_names()["irn-x2"]
        ('shipped weights', 'random weights')
    """
    files_there = {path.name.removesuffix(".safetensors") for path in files("flowsr").joinpath("weights").iterdir()}
    # A name without a version is that of the newest.
    shipped = files_there | {re.sub(r"-v\d+$", "", name) for name in files_there}
    released = _keys(_source("models", "weights.py"), "RELEASES")
    known = {**dict.fromkeys(released, "released weights"), **dict.fromkeys(shipped, "shipped weights")}
    return {name: known.get(name, "random weights") for name in _presets()}


def _presets() -> Iterator[str]:
    """The strings in ``…Preset = Literal[…]`` of the modules of models."""
    for path in sorted(files("flowsr").joinpath("models").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".py"):
            for name, value in _assigned(_source("models", path.name)):
                if name.endswith("Preset"):
                    yield from (str(node.value) for node in ast.walk(value) if isinstance(node, ast.Constant))


def study_names() -> dict[str, str]:
    """The studies, and the question that each answers.

    Example:
        >>> study_names()["uncertainty"]
        'Does the spread of the draws say where their mean is wrong?'
    """
    folder = files("flowsr").joinpath("workflows", "studies")
    sources = sorted(path.name for path in folder.iterdir() if path.name.endswith(".py"))
    nodes = (node for name in sources for node in _source("workflows", "studies", name).body)
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {
        function.name: ast.literal_eval(call.args[0])
        for function in functions
        for call in function.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register"
    }


def problem_names() -> list[str]:
    """The known posteriors that samplers are compared on, hyphens in place of blanks.

    Example:
        >>> problem_names()[:2]
        ['linear-deblurring', 'linear-inpainting']
    """
    kept = files("flowsr").joinpath("known_posteriors", "references")
    stored = sorted(path.name.removesuffix(".npz") for path in kept.iterdir() if path.name.endswith(".npz"))
    made = _keys(_source("known_posteriors", "problems.py"), "PROBLEMS")
    return [*(name.replace(" ", "-") for name in made), *stored]


def sampler_names() -> list[str]:
    """The samplers that are compared.

    Example:
        >>> sampler_names()[:2]
        ['exact', 'hmc']
    """
    theirs = _keys(_source("interop", "deepinv_diffusion.py"), "DEEPINV_SAMPLERS")
    return [*_keys(_source("known_posteriors", "contenders.py"), "SAMPLERS"), *theirs]


def recipe_names() -> list[str]:
    """The published recipes.

    Example:
        >>> recipe_names()[0]
        'nll'
    """
    value = dict(_assigned(_source("training", "recipes.py")))
    called = [call for name in ("_PLUS", "RECIPES") for call in ast.walk(value[name]) if isinstance(call, ast.Call)]
    names = [ast.literal_eval(kept.value) for call in called for kept in call.keywords if kept.arg == "name"]
    return sorted(names, key=len)


def recipe_fields() -> list[str]:
    """The fields of a recipe, which ``--set`` changes.

    Example:
        >>> "steps" in recipe_fields()
        True
    """
    classes = (node for node in _source("training", "recipes.py").body if isinstance(node, ast.ClassDef))
    recipe = next(node for node in classes if node.name == "Recipe")
    targets = (node.target for node in recipe.body if isinstance(node, ast.AnnAssign))
    return [target.id for target in targets if isinstance(target, ast.Name)]


def convention_names() -> dict[str, str]:
    """The conventions in which codes report likelihoods, and whose each is.

    Example:
        >>> convention_names()["srflow"]
        "the authors' SRFlow, in training and validation"
    """
    value = dict(_assigned(_source("likelihood", "conventions.py")))["CONVENTIONS"]
    calls = (call for call in ast.walk(value) if isinstance(call, ast.Call))
    fields = ({kept.arg: kept.value for kept in call.keywords} for call in calls)
    return {ast.literal_eval(f["name"]): ast.literal_eval(f["code"]) for f in fields if "name" in f}


def complete_model(incomplete: str) -> Found:
    """Presets, and files of weights that are there."""
    folder, _, start = incomplete.rpartition("/")
    there = Path(folder or ("/" if incomplete.startswith("/") else "."))
    paths = sorted(path for path in there.iterdir() if path.name.startswith(start)) if there.is_dir() else []
    before = f"{folder}/" if "/" in incomplete else ""
    kept = [(f"{before}{path.name}", "a file") for path in paths if path.suffix in _WEIGHTS]
    folders = [(f"{before}{path.name}/", "a folder") for path in paths if path.is_dir() and start]
    return [*_starting(preset_names(), incomplete), *kept, *folders]


def complete_study(incomplete: str) -> Found:
    """Studies with their questions."""
    return _starting(study_names(), incomplete)


def complete_problem(incomplete: str) -> Found:
    """Known posteriors."""
    return _starting(dict.fromkeys(problem_names(), ""), incomplete)


def complete_sampler(incomplete: str) -> Found:
    """Samplers of them."""
    return _starting(dict.fromkeys(sampler_names(), ""), incomplete)


def complete_recipe(incomplete: str) -> Found:
    """Published recipes."""
    return _starting(dict.fromkeys(recipe_names(), ""), incomplete)


def complete_convention(incomplete: str) -> Found:
    """Conventions, and whose they are."""
    return _starting(convention_names(), incomplete)


def complete_field(incomplete: str) -> Found:
    """Fields of a recipe with the sign behind which their value goes."""
    return _starting({f"{name}=": "" for name in recipe_fields()}, incomplete)


def complete_device(incomplete: str) -> Found:
    """Devices of this machine, as far as the system tells without asking torch."""
    cards = sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))
    names = ["auto", "cpu", *(["cuda"] if cards else []), *(f"cuda:{i}" for i in range(cards))]
    return _starting(dict.fromkeys(names, ""), incomplete)


def complete_accelerator(incomplete: str) -> Found:
    """What training takes for a device."""
    return _starting(dict.fromkeys(("auto", "cpu", "gpu", "cuda"), ""), incomplete)


def _starting(names: dict[str, str], start: str) -> Found:
    # Typer breaks what is told at 80 columns, which shells take for another name.
    return [(name, shorten(told, 60, placeholder=" …")) for name, told in names.items() if name.startswith(start)]


def _assigned(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The names that a module assigns to at its top, with the values."""
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield target.id, node.value


def _keys(module: ast.Module, name: str) -> list[str]:
    """The keys of a dictionary that a module defines."""
    value = dict(_assigned(module))[name]
    assert isinstance(value, ast.Dict)
    return [ast.literal_eval(key) for key in value.keys if key is not None]
