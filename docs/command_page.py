"""The page of the command line, written from the commands themselves: what their ``--help`` says, with links."""

import re
from pathlib import Path

import typer

from flowsr.cli.app import app
from flowsr.cli.guard import EXAMPLE


def plain(text: str) -> str:
    """Text that reStructuredText takes as it stands."""
    return re.sub(r"([*`|_\\])", r"\\\1", " ".join(text.split()))


def entry(directive: str, name: str, words: str) -> list[str]:
    """The entry of an option, or of an argument."""
    return [f".. {directive}:: {name}", "", f"   {plain(words)}", ""]


def parameters(command, context) -> list[str]:
    """Arguments and options in the groups and the order of the help, each with its default."""
    lines, group = [], None
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            is_option = parameter.param_type_name == "option"
            own = getattr(parameter, "rich_help_panel", None) or ("Options" if is_option else "Arguments")
            lines += [f".. rubric:: {own}", ""] if own != group else []
            group = own
            words = re.sub(r"\[default: \((.*?)\)", r"[default: \1", record[1])
            lines += entry("option", record[0], words) if is_option else entry("describe", _name(record[0]), words)
    return lines


def _name(record: str) -> str:
    """An argument's name, without its type."""
    return record.split(" <")[0]


def command_lines(name: str, command, parent) -> list[str]:
    """The section of one command."""
    title = f"flowsr {name}"
    context = typer.Context(command, info_name=title)
    usage = re.sub("[{}]", "", " ".join([title, *command.collect_usage_pieces(context)]))
    lines = [f".. _command-{name}:", "", title, "-" * len(title), "", f".. program:: {title}", ""]
    lines += [line for paragraph in command.help.split("\n\n") for line in (plain(paragraph), "")]
    example = (command.epilog or "").removeprefix(EXAMPLE)
    lines += [".. code-block:: console", "", f"   $ {example}", ""] if example else []
    return [*lines, "Usage: ``" + usage + "``", "", *parameters(command, context)]


def write_commands(path: Path) -> None:
    """Write the sections of all commands, for the page to include."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="flowsr")
    lines = ["Of every command", "----------------", "", ".. program:: flowsr", "", *parameters(group, context)]
    for name, command in group.commands.items():
        lines += command_lines(name, command, context)
    path.write_text("\n".join(lines), encoding="utf-8")
