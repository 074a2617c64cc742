"""What is printed in tables arrives whole: no number, name of a file or path is broken, however narrow the terminal."""

import io
import math

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from flowsr.cli import console as printing
from flowsr.cli.tables import Columns, Facts, card_table
from flowsr.results import Card, Figure

LONG = "a_photograph_with_quite_a_long_name_of_a_cup_on_a_table"
VALUES = [3.3247, -102208.7123, 147456.01, math.pi * 1e9, 0.0, -0.5, 12.0]


def shown(renderable, width):
    """What a terminal of a width gets, or, without a width, a file."""
    stream = io.StringIO()
    reporter = printing.Reporter(quiet=False, json_only=False)
    reporter._out = Console(file=stream, width=width, force_terminal=width is not None, color_system=None)
    reporter.result(renderable)
    return stream.getvalue()


def table(names):
    figures = (Text(f"Bits per dimension of the whole {what}, bits/dim\np(hr | lr), upper bound") for what in "ab")
    rows = [(name, [f"{value:.4f}" for value in VALUES]) for name in figures]
    return Columns(f"Title {LONG}.png", ["figure", *names], rows, ["p: unavailable: put https://example.org/" + LONG])


@pytest.mark.parametrize("width", [80, 60, 40, None])
def test_every_value_of_a_table_is_whole_and_under_its_name(width):
    lines = shown(table([f"{LONG}_{i}.png" for i in range(len(VALUES))]), width).splitlines()
    cells = [cell for line in lines for cell in line.split()]
    assert all(cells.count(f"{value:.4f}") == 2 for value in VALUES)
    assert f"https://example.org/{LONG}" in cells and f"{LONG}.png" in " ".join(lines)
    within = [line for line in lines if LONG not in line]
    assert width is None or max(map(cell_len, within)) <= max(width, 45)
    # The names, put together out of their folded pieces, are all there, each once.
    assert sum(line.count("a_photograph") for line in lines if f"{LONG}" not in line) == len(VALUES)


def test_a_row_is_one_line_in_a_file():
    lines = shown(table([f"image_{i}" for i in range(len(VALUES))]), None).splitlines()
    assert sum(all(f"{value:.4f}" in line for value in VALUES) for line in lines) == 2


@pytest.mark.parametrize("width", [80, 60])
def test_facts_wrap_at_spaces_alone(width):
    facts = {
        "trained by": "words that go on and on " * 8,
        "file": f"/home/{LONG}/{LONG}.safetensors",
        "parameters": 1071928,
    }
    text = shown(Facts("sr-x4-small", facts), width)
    assert f"/home/{LONG}/{LONG}.safetensors" in text and "1071928" in text
    assert text.split() == " ".join(["sr-x4-small", *(f"{name} {value}" for name, value in facts.items())]).split()
    assert max(len(line) for line in text.splitlines() if LONG not in line) <= width


def test_a_text_that_is_a_result_is_not_broken():
    line = "latent z_2  " + "  ".join(f"{value:.4f}" for value in VALUES * 2)
    assert line in shown(line, 60).splitlines()


def test_a_card_of_many_images_at_60_columns():
    figure = Figure(key="psnr", name="PSNR", convention="RGB, border 4, rounded to 8 bits", unit="dB", value=-1234.5678)
    card = Card("lr.png", {f"{LONG}_{i}": (figure,) for i in range(5)})
    text = shown(card_table(card), 60)
    assert text.split().count("-1234.57") == 5 and max(map(len, text.splitlines())) <= 60
