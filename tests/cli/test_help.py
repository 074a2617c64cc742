"""What --help shows at 80 columns: lines that fit, whole words, the field's words for what options take, groups."""

import re

import pytest
import typer
from commands import run
from typer.testing import CliRunner

from flowsr.cli.app import app
from flowsr.cli.layout import COMPUTATION, DATA, DRY_RUN, OUTPUT, RECORD

COMMANDS = typer.main.get_command(app).commands
ORDER = ["Options", DATA, COMPUTATION, RECORD, DRY_RUN, OUTPUT]
SEVERAL_MEANINGS = {
    "--num-samples": "of draws, of noises, of chains",
    "--temperature": "repeatable or one; positive in studies",
    "--out": "a page in report",
    "--size": "to look at or to crop to",
    "--device": "training takes kinds of accelerators",
}


def shown(command, columns):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: "-".join(command))
def test_help_fits_80_columns_in_whole_words(command):
    narrow, wide = shown(command, 80), shown(command, 400)
    assert max(map(len, narrow.splitlines())) <= 80
    assert not re.search(r"<\w+|\d{6}|(?<!WIDTHx)HEIGHT", narrow)
    words = [set(re.sub("[│╭╮╰╯─]", " ", text).split()) for text in (narrow, wide)]
    assert words[0] == words[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_in_groups_in_one_order(name):
    """What is computed comes before what is printed, each option in the same group in all commands."""
    panels = [
        getattr(param, "rich_help_panel", None) or "Options"
        for param in COMMANDS[name].params
        if param.param_type_name == "option"
    ]
    assert panels == sorted(panels, key=ORDER.index) and (panels[-1] == OUTPUT or set(panels) == {"Options"})
    assert shown((name,), 80).count("─ Output ─") == (panels[-1] == OUTPUT)


def test_an_option_has_one_text_and_one_group_everywhere():
    texts, panels = {}, {}
    for command in COMMANDS.values():
        for param in command.params:
            if param.param_type_name == "option":
                texts.setdefault(param.opts[0], set()).add((param.help, param.metavar))
                panels.setdefault(param.opts[0], set()).add(getattr(param, "rich_help_panel", None))
    assert {name for name, found in texts.items() if len(found) > 1} <= SEVERAL_MEANINGS.keys()
    assert not [name for name, found in panels.items() if len(found) > 1]


def test_every_option_that_takes_a_value_says_which_in_capitals():
    for name, command in COMMANDS.items():
        for param in command.params:
            expected = r"$" if getattr(param, "is_flag", False) else r"[A-Z]+[A-Z=.a-z]*$"
            assert re.match(expected, param.metavar), (name, param.name)


def test_a_seed_beyond_what_a_generator_takes_is_refused(tmp_path):
    result = run("demo", "--seed", 2**63, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "expected a seed below 2^63" in " ".join(result.stderr.split())
