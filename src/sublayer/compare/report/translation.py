"""The section on quality against time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.contenders import TITLES
from sublayer.compare.report.markdown import Entries, paragraph, section, table

LIMITS = """
    What this does not show: which is better after a longer time, on longer sentences than these, or on another
    machine: on a CPU with few cores a recurrent network loses little by working one step after another. One seed
    each; differences of a BLEU point or so may be chance. The long sentences are few.
"""
"""What the figures cannot show."""


def translation(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    """Scores, scores by length, and what was tried. Until one contender has finished, only that none has."""
    finals = {name: found for name, found in entries.items() if "checks" in found}
    if not finals:
        return "## 3. Translation\n\nNot finished yet.\n"
    pictures.draw_translation(finals, folder / "compare-translation.png")
    rows = [
        [
            TITLES[name],
            f"{found['parameters']:,}",
            found["chosen"],
            f"{found['checks'][-1]['step']:,}",
            f"{found['checks'][-1]['seconds'] / 60:.1f}",
            f"{found['bleu']:.1f}",
            f"{found['chrf']:.1f}",
        ]
        for name, found in finals.items()
    ]
    header = ["contender", "parameters", "optimizer, rate", "steps", "minutes", "BLEU", "chrF"]
    stretches = list(next(iter(finals.values()))["by_length"].items())
    by_length = [
        [TITLES[name], *(f"{found['by_length'][stretch]['bleu']:.1f}" for stretch, _ in stretches)]
        for name, found in finals.items()
    ]
    trials = [
        (key.split("/")[0], f"{key.split('/')[1]}: {one['loss']:.2f}") for key, one in entries.items() if "/" in key
    ]
    tried = "; ".join(f"{TITLES[name]} {', '.join(said for of, said in trials if of == name)}" for name in finals)
    signature = next(iter(finals.values()))["signature"]
    return section(
        "## 3. Translation",
        "![quality](pictures/compare-translation.png)",
        f"The recipe `{settings['recipe']}` but for the model, the optimizer and its learning rate, "
        f"{settings['minutes']:g} minutes each. Greedy translations of the held-out sentences (`{signature}`):",
        table(header, rows),
        "BLEU by words of the source sentence (sentences in brackets):",
        table(["contender", *(f"{stretch} ({one['sentences']})" for stretch, one in stretches)], by_length),
        _order(finals),
        f"Tried for {settings['trial']:g} minutes each (validation loss): {tried}.",
        paragraph(LIMITS),
    )


def _order(finals: Mapping[str, Mapping[str, Any]]) -> str:
    ranked = sorted(finals, key=lambda name: -finals[name]["bleu"])
    whole = ", ".join(f"{TITLES[name]} {finals[name]['bleu']:.1f}" for name in ranked)
    stretches = list(next(iter(finals.values()))["by_length"])
    loss = {
        name: found["by_length"][stretches[0]]["bleu"] - found["by_length"][stretches[-1]]["bleu"]
        for name, found in finals.items()
    }
    falls = ", ".join(f"{TITLES[name]} {value:+.1f}" for name, value in loss.items())
    return (
        f"From best to worst: {whole}. BLEU of sentences of {stretches[0]} words above that of {stretches[-1]} words: "
        f"{falls}."
    )
