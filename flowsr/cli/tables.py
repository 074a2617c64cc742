"""Results as rich tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flowsr.cards import MetricCard


def card_table(card: MetricCard) -> Table:
    """A metric card with its conventions under the names, one column per image."""
    from flowsr.cards.card import format_value

    table = Table(title=card.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for column in card.columns:
        table.add_column(column, justify="right")
    missing = []
    for metric in card.metrics:
        name = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
        values = [format_value(metric.values.get(column)) for column in card.columns]
        table.add_row(Text.assemble((name, "bold"), "\n", (metric.convention, "dim")), *values)
        if metric.reason:
            missing.append(f"{metric.name}: unavailable: {metric.reason}")
    if missing:
        table.caption = "\n".join(missing)
        table.caption_justify = "left"
    return table


def facts_table(title: str, facts: Mapping[str, object]) -> Table:
    """Names and values below each other."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False, pad_edge=False
    )
    table.add_column("name", style="dim")
    table.add_column("value")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table
