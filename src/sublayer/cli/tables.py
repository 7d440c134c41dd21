"""Tables on the terminal, each under a title."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sublayer.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table


def table_of(*columns: str, words: int = 1) -> Table:
    """A table whose first columns are words; those after them are numbers, which stand on the right."""
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right")
    return table


def show(title: str, table: Table) -> None:
    """Print a table under its title, which would be wrapped to the table's width as the table's own."""
    console = terminal.console()
    console.print(f"\n[bold]{title}[/]", highlight=False)
    console.print(table)
