"""What the sections are written with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Entries = dict[str, dict[str, Any]]
"""The figures of a ledger, by the name of what was measured."""


def section(*blocks: str) -> str:
    """Blocks of text with an empty line after each; those that are empty are left out."""
    return "".join(f"{block}\n\n" for block in blocks if block).removesuffix("\n")


def paragraph(text: str) -> str:
    """One line of a text that is broken and indented."""
    return " ".join(text.split())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Names to the left, numbers to the right."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
