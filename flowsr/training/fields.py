"""Fields of a recipe from texts such as ``steps=100``, as a command line gives them."""

from typing import Any

from flowsr.models import ImageModel
from flowsr.training.recipes import RECIPES, Recipe, check_recipe, default_recipe, recipe

Value = float | int | bool | str | tuple[float, ...] | None


def parse_fields(texts: list[str]) -> dict[str, Any]:
    """Fields of a recipe from texts such as ``steps=100``.

    Raises:
        ValueError: for a text without ``=``, or nothing on one side of it.

    Example:
        >>> parse_fields(["steps=100", "cosine_to=1e-5"])
        {'steps': 100, 'cosine_to': 1e-05}
    """
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise ValueError(f"expected NAME=VALUE, without blanks around =; got {text!r}")
    return {name: parse_field(value) for name, value in (text.split("=", 1) for text in texts)}


def parse_field(text: str) -> Value:
    """A field's value from the command line: a number, true, false, none, a comma-separated tuple, or text.

    Example:
        >>> parse_field("1e-5"), parse_field("none"), parse_field("0.5,0.9")
        (1e-05, None, (0.5, 0.9))
    """
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    if "," in text or text == "()":
        return tuple(float(part) for part in text.strip("()").split(",") if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def recipe_from_texts(name: str | None, texts: list[str], *, flow: ImageModel, before: Recipe | None = None) -> Recipe:
    """The recipe of a name, or the first of the model's task, with fields changed by texts.

    Args:
        name: of a published recipe; by default that of ``before``, or the first for the model.
        texts: the changes, such as ``steps=100``.
        flow: the model.
        before: the recipe of a run to go on with, whose own changes to its published recipe are kept.

    Raises:
        ValueError: for an unknown recipe or field, one that is not for the model, or a value of the wrong kind.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> recipe_from_texts(None, ["steps=1e3", "halve_at=0.5"], flow=flow).halve_at
        (0.5,)
        >>> before = flowsr.training.recipe("nll", steps=30, batch_size=4)
        >>> again = recipe_from_texts(None, ["batch_size=8"], flow=flow, before=before)
        >>> again.steps, again.batch_size
        (30, 8)
    """
    start = _start(name, flow=flow, before=before)
    # Not the kind of what ``start`` has, which may be 1 for 1.0.
    kinds = RECIPES["nll"]
    changes = {
        field: _fitting(field, value, getattr(kinds, field, value)) for field, value in parse_fields(texts).items()
    }
    found = start.with_changes(**changes)
    check_recipe(found, flow)
    return found


def _start(name: str | None, *, flow: ImageModel, before: Recipe | None) -> Recipe:
    """What the texts change: a published recipe, or the one before, whose changes another published one inherits."""
    if before is None:
        return recipe(name or default_recipe(flow), flow=flow)
    if name in (None, before.name):
        return before
    published = recipe(before.name, flow=flow).to_dict() if before.name in RECIPES else {}
    changed = {field: value for field, value in before.to_dict().items() if published.get(field, value) != value}
    return recipe(name, flow=flow, **changed)


def _fitting(field: str, value: Value, published: Value) -> Value:
    """The value as the kind of the published one: whole numbers from ``1e3``, tuples from single numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(published, bool | str):
        kind, good = ("true or false", isinstance(value, bool))
        if isinstance(published, str):
            kind, good = "a word", isinstance(value, str)
    elif isinstance(published, tuple):
        kind, good = "numbers with commas between", isinstance(value, tuple) or number
        value = (float(value),) if number else value  # type: ignore[arg-type]
    elif isinstance(published, int):
        kind, good = "a whole number", number and float(value) == int(value)  # type: ignore[arg-type]
        value = int(value) if good else value  # type: ignore[arg-type]
    else:
        kind, good = "a number", number or (value is None and field in _MAY_BE_NONE)
    if not good:
        raise ValueError(f"expected {kind} for {field}; got {value!r}")
    return value


_MAY_BE_NONE = ("cosine_to", "clip_value", "clip_norm", "lr_log_scale_start")
