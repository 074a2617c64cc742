"""Sizes in words: width before height, as image programs say it, printed and read by one function each."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flowsr
from flowsr.images import bicubic_down, parse_size, size_text

sides = st.integers(1, 999_999)


@given(sides, sides)
def test_what_is_printed_can_be_typed(height, width):
    assert size_text((height, width)).startswith(f"{width} × {height}")
    for text in (size_text((height, width)), f"{width}x{height}", f" {width} X {height} "):
        assert parse_size(text) == (height, width)


@pytest.mark.parametrize(
    "text",
    ["", "640", "640x", "x480", "0x480", "640x0", "-1x5", "640x480x3", "1e3x9", "٣x٣", "9999999x1", None, (480, 640)],
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="expected a size as WIDTHxHEIGHT, such as 640x480; got"):
        parse_size(text)


def test_messages_say_width_first():
    with pytest.raises(ValueError, match="got 13 × 10 pixels"):
        bicubic_down(torch.rand(3, 10, 13), 4)


def test_no_message_is_written_with_the_height_first():
    """The file format of `downscale` alone has the height first, as files that were made with it do."""
    first = re.compile(r"\{[^{}]*(height|shape\[-2\]|rows)[^{}]*\} ?[x×] ?\{|\{size\[0\]\} ?[x×]")
    root = Path(flowsr.__file__).parent
    found = [
        f"{path.name}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if first.search(line) and "SIZE_KEY" not in line
    ]
    assert first.search('f"{height}x{width}"') and not found
