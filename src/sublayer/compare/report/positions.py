"""The section on kinds of positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.report.markdown import Entries, paragraph, section, table

LIMITS = """
    What this does not show: how the kinds compare in larger models or after more training, which here is short
    for a language model: a kind with a high perplexity at the length of training has not learned as much yet, and
    another learning rate might suit it better. Nor whether what is far back is used, or only does no harm. Learned
    positions beyond those of training have never been trained: that is their definition, not a measurement. One seed
    each.
"""
"""What the figures cannot show."""


def positions(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    """Perplexity by kind of positions and length, and within the longest rows by place."""
    trained = int(settings["trained"])
    pictures.draw_positions(entries, trained, folder / "compare-positions.png")
    lengths = sorted(int(n) for n in next(iter(entries.values()))["nats"])
    stretches = list(next(iter(entries.values()))["stretches"])
    rows = [
        [name, f"{found['parameters']:,}", *(f"{math.exp(found['nats'][str(n)]):,.1f}" for n in lengths)]
        for name, found in entries.items()
    ]
    inside = [
        [name, *(f"{math.exp(found['stretches'][stretch]):,.1f}" for stretch in stretches)]
        for name, found in entries.items()
    ]
    one = next(iter(entries.values()))
    return section(
        "## 4. Positions",
        "![positions](pictures/compare-positions.png)",
        f"One language model of WikiText-2 ({settings['layers']} layers, {settings['dim']} wide) with each kind of "
        f"positions, trained on {one['trained_tokens']:,} tokens in rows of {trained}. Perplexity of a token on "
        f"the same {one['tokens']:,} tokens of the test text, in rows of each length:",
        table(["positions", "parameters", *(f"{n:,}" for n in lengths)], rows),
        f"In the rows of {lengths[-1]:,}, by where a token stands:",
        table(["positions", *stretches], inside),
        _beyond(entries, trained, lengths[-1]),
        paragraph(LIMITS),
    )


def _beyond(entries: Entries, trained: int, longest: int) -> str:
    change = {
        name: math.exp(found["nats"][str(longest)] - found["nats"][str(trained)]) for name, found in entries.items()
    }
    ranked = sorted(change, key=lambda name: change[name])
    better = [name for name in ranked if change[name] < 1]
    listed = ", ".join(f"{name} {change[name]:.2f}" for name in ranked)
    said = ", ".join(better) if better else "none"
    return (
        f"Perplexity in rows of {longest:,} relative to rows of {trained}: {listed}. Below 1, so better with longer "
        f"rows than in training: {said}."
    )
