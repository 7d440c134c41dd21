"""The section on speed against length."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.contenders import TITLES
from sublayer.compare.parallel import by_device
from sublayer.compare.report.markdown import Entries, paragraph, section, table

LIMITS = """
    What this does not show: equal parameters are not equal operations (both tables are needed). The recurrent
    kernels are torch's; hand-written ones can be faster. Recurrences that are linear in their state, and so can
    be computed for all positions at once, are not among the contenders. Attention's share grows with the length,
    and beyond the lengths measured it goes on growing. A step is timed by itself, without data and optimizer.
"""
"""What the figures cannot show."""
Measured = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Of a device, by contender and length."""


def parallel(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    """Tokens a second by length and contender, the chain of products, and how the contenders stand to one another."""
    pictures.draw_parallel(entries, folder / "compare-parallel.png")
    text = ["## 1. Parallelisation: speed against length", "![speed](pictures/compare-parallel.png)"]
    for device, own in by_device(entries).items():
        where = "the CPU, in float32" if device == "cpu" else "the GPU, with bfloat16 autocast"
        lengths = sorted({length for measured in own.values() for length in measured})
        tokens = next(one["tokens"] for measured in own.values() for one in measured.values())
        text += [
            f"On {where}, about {tokens:,} tokens a step. Tokens a second of training (forward and backward; "
            f"in brackets milliseconds a step), medians of {settings['repeats']}:",
            _cells(own, lengths, lambda one: _speed(one, "both")),
            "The same of a forward pass alone:",
            _cells(own, lengths, lambda one: _speed(one, "forward")),
            "Products that wait for one another in a forward pass, and operations of training a token:",
            _cells(own, lengths, lambda one: f"{one['chain']:,} · {one['flops'] / 1e6:.1f} MFLOP"),
            _from_to(own, lengths),
        ]
    parameters = {key.split("/")[1]: found["parameters"] for key, found in entries.items()}
    text += [
        f"Parameters: {', '.join(f'{TITLES[name]} {count:,}' for name, count in parameters.items())}. "
        + paragraph(
            """The number of products that wait for one another is the constant and the n of the column "sequential
            operations" in the paper's table 1; the same table's "maximum path length" is 1 for attention and n for
            recurrence."""
        ),
        paragraph(LIMITS),
    ]
    return section(*text)


def _cells(own: Measured, lengths: Sequence[int], cell: Callable[[Mapping[str, Any]], str]) -> str:
    """A row a length, a column a contender."""
    rows = [
        [f"{length:,}", *(cell(measured[length]) if length in measured else "" for measured in own.values())]
        for length in lengths
    ]
    return table(["length", *(TITLES[name] for name in own)], rows)


def _speed(one: Mapping[str, Any], what: str) -> str:
    seconds = statistics.median(one[what])
    return f"{one['tokens'] / seconds:,.0f} ({seconds * 1e3:,.0f})"


def _from_to(own: Measured, lengths: Sequence[int]) -> str:
    """How each one's speed changes from the shortest to the longest texts, and how the first stands to the others."""
    speeds = {
        name: {length: one["tokens"] / statistics.median(one["both"]) for length, one in measured.items()}
        for name, measured in own.items()
    }
    said = [
        f"{TITLES[name]} {each[max(each)] / each[min(each)]:.2f} times"
        for name, each in speeds.items()
        if len(each) > 1
    ]
    sentence = (
        f"The speed at {lengths[-1]:,} tokens, relative to the speed at {lengths[0]:,}: {', '.join(said)}."
        if said
        else ""
    )
    reference, *others = speeds
    for length in (lengths[0], lengths[-1]):
        listed = ", ".join(
            f"{speeds[reference][length] / speeds[name][length]:.2f} times the {TITLES[name]}'s"
            for name in others
            if length in speeds[reference] and length in speeds[name]
        )
        if listed:
            sentence += f" At {length:,} tokens the {TITLES[reference]}'s speed is {listed}."
    return sentence
