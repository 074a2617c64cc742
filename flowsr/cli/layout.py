"""How the help of a command is laid out: what options take in the field's words, and options in groups with a name."""

from enum import StrEnum
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

DATA = "Images"
"""Options that say which images there are beside the arguments, and what is done to them first."""
COMPUTATION = "Computation"
"""Options that say where, how precisely and from which seed it is computed."""
RECORD = "Record of the run"
"""Options that say how often a long run writes down where it is."""
DRY_RUN = "Dry run"
"""Options of a run that is planned and not done."""
OUTPUT = "Output"
"""Options that say where results go and what is printed."""
_ORDER = ("", DATA, COMPUTATION, RECORD, DRY_RUN, OUTPUT)


def one_of(choices: type[StrEnum]) -> str:
    """The values of an option in a sentence.

    Example:
        >>> one_of(StrEnum("Solver", ["svi", "nuts", "hmc"]))
        'svi, nuts or hmc'
    """
    *others, last = (choice.value for choice in choices)
    return f"{', '.join(others)} or {last}"


def _lay_out(params: list[Any]) -> list[Any]:
    """Parameters in the order of the help: arguments, then options group by group; flags take nothing."""
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""  # else it is <bool>
        if isinstance(param, TyperArgument):
            # Beside an argument's name stands Python's type, for which Typer takes no other word.
            shown: Any = param
            shown.display_type_rich = lambda *_unused, **_ctx: ""
    return sorted(params, key=lambda param: _ORDER.index(getattr(param, "rich_help_panel", None) or ""))


class LaidOut:
    """What a command and a group of commands have in common: their help, laid out."""

    params: list[Any]

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = _lay_out(self.params)

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, laid out again: Typer adds those of completion once the command is made."""
        return _lay_out(super().get_params(ctx))  # type: ignore[misc]

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help, which is printed last: it stands where what is printed is decided."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.metavar, option.help = "", "Show this help and leave."
            option.rich_help_panel = OUTPUT if any(_panel(param) == OUTPUT for param in self.params) else None
        return option


def _panel(param: Any) -> str | None:
    return getattr(param, "rich_help_panel", None)


class LaidOutCommand(LaidOut, TyperCommand):
    """A command whose help is laid out."""


class LaidOutGroup(LaidOut, TyperGroup):
    """A group of commands whose help is laid out."""
