"""The section on speed against length."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.contenders import TITLES
from sublayer.compare.report.markdown import Entries, paragraph, section, table

LIMITS = """
    What this does not show: equal parameters are not equal operations (both tables are needed). The recurrent
    kernels are torch's; hand-written ones can be faster. Recurrences that are linear in their state, and so can
    be computed for all positions at once, are not among the contenders. Attention's share grows with the length,
    and beyond the lengths measured it goes on growing. A step is timed by itself, without data and optimizer.
"""
"""What the figures cannot show."""


def parallel(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    """Tokens a second by length and contender, the chain of products, and how the contenders stand to one another."""
    pictures.draw_parallel(entries, folder / "compare-parallel.png")
    text = ["## 1. Parallelisation: speed against length", "![speed](pictures/compare-parallel.png)"]
    devices = list(dict.fromkeys(key.split("/")[0] for key in entries))
    for device in devices:
        own = {key.split("/", 1)[1]: found for key, found in entries.items() if key.startswith(f"{device}/")}
        names = list(dict.fromkeys(key.split("/")[0] for key in own))
        lengths = sorted({int(key.split("/")[1]) for key in own})
        tokens = next(iter(own.values()))["tokens"]
        seconds = {
            what: {key: statistics.median(found[what]) for key, found in own.items()} for what in ("both", "forward")
        }
        text += [
            f"On {_device(device)}, about {tokens:,} tokens a step. Tokens a second of training (forward and backward; "
            f"in brackets milliseconds a step), medians of {settings['repeats']}:",
            _speeds(names, lengths, own, seconds["both"]),
            "The same of a forward pass alone:",
            _speeds(names, lengths, own, seconds["forward"]),
        ]
        text += ["Products that wait for one another in a forward pass, and operations of training a token:"]
        rows = [
            [
                f"{length:,}",
                *(
                    f"{own[key]['chain']:,} · {own[key]['flops'] / 1e6:.1f} MFLOP" if key in own else ""
                    for key in (f"{name}/{length}" for name in names)
                ),
            ]
            for length in lengths
        ]
        text += [table(["length", *(TITLES[name] for name in names)], rows)]
        text += [_from_to(names, lengths, own, seconds["both"])]
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


def _speeds(names: Sequence[str], lengths: Sequence[int], own: Entries, seconds: Mapping[str, float]) -> str:
    rows = [
        [f"{length:,}", *(_speed(own.get(key), seconds.get(key)) for key in (f"{name}/{length}" for name in names))]
        for length in lengths
    ]
    return table(["length", *(TITLES[name] for name in names)], rows)


def _speed(found: Mapping[str, Any] | None, seconds: float | None) -> str:
    return "" if found is None or seconds is None else f"{found['tokens'] / seconds:,.0f} ({seconds * 1e3:,.0f})"


def _from_to(names: Sequence[str], lengths: Sequence[int], own: Entries, whole: Mapping[str, float]) -> str:
    """How each one's speed changes from the shortest to the longest texts, and how the first stands to the others."""
    said: list[str] = []
    for name in names:
        known = [length for length in lengths if f"{name}/{length}" in whole]
        if len(known) > 1:
            first, last = (own[f"{name}/{n}"]["tokens"] / whole[f"{name}/{n}"] for n in (known[0], known[-1]))
            said.append(f"{TITLES[name]} {last / first:.2f} times")
    sentence = (
        f"The speed at {lengths[-1]:,} tokens, relative to the speed at {lengths[0]:,}: {', '.join(said)}."
        if said
        else ""
    )
    reference = names[0]
    for length in (lengths[0], lengths[-1]):
        if f"{reference}/{length}" not in whole:
            continue
        ratios = {
            name: (own[f"{reference}/{length}"]["tokens"] / whole[f"{reference}/{length}"])
            / (own[f"{name}/{length}"]["tokens"] / whole[f"{name}/{length}"])
            for name in names[1:]
            if f"{name}/{length}" in whole
        }
        if ratios:
            listed = ", ".join(f"{value:.2f} times the {TITLES[name]}'s" for name, value in ratios.items())
            sentence += f" At {length:,} tokens the {TITLES[reference]}'s speed is {listed}."
    return sentence


def _device(device: str) -> str:
    return "the CPU, in float32" if device == "cpu" else "the GPU, with bfloat16 autocast"
