"""The section on long-range dependencies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.contenders import TITLES
from sublayer.compare.recall import CHANCE, TASKS
from sublayer.compare.report.markdown import Entries, paragraph, section, table

LIMITS = """
    What this does not show: an accuracy below the others' is one within this budget of steps, and at the learning
    rates tried; the last losses say whether it was still going up. The tasks are made up, small, and of a kind
    that attention is made for; with a state of fixed size, more pairs would tell more. A gradient's size is not
    its use: noise, too, has a gradient, and a large one may come of an unstable network.
"""
"""What the figures cannot show."""
LEARNED = 0.9
"""Accuracy from which a distance counts as bridged."""


def recall(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    """Accuracy by task, contender and distance, each at its best learning rate; and how far gradients reach."""
    best = _best(entries)
    pictures.draw_recall(best, folder / "compare-recall.png")
    text = [
        "## 2. Long-range dependencies",
        "![accuracy](pictures/compare-recall.png)",
        "*Recall*: four keys, each with a value, then noise, then keys again: what stood behind each? *Copy*: four "
        "letters, then noise, then a mark: which letters? One model of each kind is trained on all distances (near "
        f"ones first), {settings['steps']:,} steps of {settings['rows']} texts, and tested at each distance.",
    ]
    for task in TASKS:
        found = best.get(task, {})
        if not found:
            continue
        distances = sorted(int(n) for n in next(iter(found.values()))["accuracy"])
        rows = [
            [
                TITLES[name],
                f"{one['rate']:g}",
                f"{one['parameters']:,}",
                *(f"{one['accuracy'][str(n)]:.0%}" for n in distances),
                _path(one, distances),
            ]
            for name, one in found.items()
        ]
        header = ["contender", "learning rate", "parameters", *(f"{n:,}" for n in distances), "path length"]
        text += [f"Accuracy of {task} by distance (chance: {CHANCE[task]:.0%}):", table(header, rows)]
        text += [_bridged(found, distances)]
        if task == "recall":
            text += [
                "Whoever knows which values have been said, but not behind which keys, is right about half of the "
                "time: that is a plateau on the way, and not chance.",
            ]
    reach = best.get("recall") or best.get("copy") or {}
    pictures.draw_reach(reach, folder / "compare-gradient.png")
    steps = sorted(int(n) for n in next(iter(reach.values()))["reach_fresh"] if int(n))
    shown = [n for n in steps if math.log2(n) % 2 == 0] or steps
    rows = [
        [TITLES[name], when, *(_norm(one[f"reach_{when}"][str(n)]) for n in shown)]
        for name, one in reach.items()
        for when in ("fresh", "trained")
    ]
    text += [
        "The norm of the gradient that reaches the embedding of a token n steps back, from the loss at the last place "
        "of a random text, relative to n = 0 (geometric mean of 8 texts):",
        "![gradient](pictures/compare-gradient.png)",
        table(["contender", "when", *(f"n = {n:,}" for n in shown)], rows),
        _farthest(reach, steps[-1]),
        paragraph(LIMITS),
    ]
    return section(*text)


def _best(entries: Entries) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and contender, the learning rate with the highest mean accuracy."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, one in entries.items():
        task, name, rate = key.split("/")
        mean = statistics.mean(one["accuracy"].values())
        held = found.setdefault(task, {}).get(name)
        if held is None or mean > held["mean"]:
            found[task][name] = {**one, "rate": float(rate), "mean": mean}
    return found


def _path(one: Mapping[str, Any], distances: Sequence[int]) -> str:
    first, last = one["path"][str(distances[0])], one["path"][str(distances[-1])]
    return f"{first}" if first == last else f"{first:,} to {last:,}"


def _bridged(found: Mapping[str, Mapping[str, Any]], distances: Sequence[int]) -> str:
    """The farthest distance up to which each is right, and whether the loss was still falling."""
    said: list[str] = []
    for name, one in found.items():
        up_to = 0
        for distance in distances:
            if one["accuracy"][str(distance)] < LEARNED:
                break
            up_to = distance
        losses = one["loss"]
        tail = max(1, len(losses) // 10)
        end, before = statistics.mean(losses[-tail:]), statistics.mean(losses[-2 * tail : -tail] or losses)
        falling = end < 0.97 * before and end > 0.02
        reached = f"up to {up_to:,}" if up_to else "at no distance"
        said.append(f"{TITLES[name]} {reached}" + (" (its loss still falling)" if falling else ""))
    return f"Right at least {LEARNED:.0%} of the time: {'; '.join(said)}."


def _farthest(reach: Mapping[str, Mapping[str, Any]], n: int) -> str:
    said = [
        f"{TITLES[name]} {_norm(one['reach_fresh'][str(n)])}, then {_norm(one['reach_trained'][str(n)])}"
        for name, one in reach.items()
    ]
    return f"At n = {n:,}, before and after training: {'; '.join(said)}."


def _norm(value: float) -> str:
    """A relative norm; what single precision cannot hold is nothing."""
    return f"{value:.1e}" if value > 1e-38 else "0"
