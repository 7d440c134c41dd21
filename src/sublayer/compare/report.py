"""The report: tables and pictures of what was measured, with sentences that are made of the figures.

Nothing is said of a figure that is not computed from it; what the figures cannot show is said once for each part.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sublayer.compare import pictures
from sublayer.compare.contenders import TITLES
from sublayer.compare.ledger import read_ledger
from sublayer.compare.plan import PARTS
from sublayer.compare.recall import CHANCE, TASKS
from sublayer.errors import DataError
from sublayer.files import write_text

Entries = dict[str, dict[str, Any]]
LIMITS: Mapping[str, str] = {
    "parallel": """
        What this does not show: equal parameters are not equal operations (both tables are needed). The recurrent
        kernels are torch's; hand-written ones can be faster. Recurrences that are linear in their state, and so can
        be computed for all positions at once, are not among the contenders. Attention's share grows with the length,
        and beyond the lengths measured it goes on growing. A step is timed by itself, without data and optimizer.
    """,
    "recall": """
        What this does not show: an accuracy below the others' is one within this budget of steps, and at the learning
        rates tried; the last losses say whether it was still going up. The tasks are made up, small, and of a kind
        that attention is made for; with a state of fixed size, more pairs would tell more. A gradient's size is not
        its use: noise, too, has a gradient, and a large one may come of an unstable network.
    """,
    "translation": """
        What this does not show: which is better after a longer time, on longer sentences than these, or on another
        machine: on a CPU with few cores a recurrent network loses little by working one step after another. One seed
        each; differences of a BLEU point or so may be chance. The long sentences are few.
    """,
    "positions": """
        What this does not show: how the kinds compare in larger models or after more training, which here is short
        for a language model; nor whether what is far back is used, or only does no harm. Learned positions beyond
        those of training have never been trained: that is their definition, not a measurement. One seed each.
    """,
}
"""What the figures of each part cannot show."""
LEARNED = 0.9
"""Accuracy from which a distance counts as bridged."""


def write_report(out: Path) -> Path:
    """report.md of the ledgers in out/figures, with its pictures in out/pictures; the path of the report.

    Raises:
        DataError: nothing has been measured there, or the figures are damaged.
    """
    sections: list[str] = []
    for part in PARTS:
        ledger = read_ledger(out / "figures" / f"{part}.json")
        if ledger is not None and ledger["entries"]:
            sections.append(_SECTIONS[part](ledger["entries"], ledger["settings"], out / "pictures"))
            sections.append(_machine(ledger["machine"]))
    if not sections:
        raise DataError(f"there are no figures in {out / 'figures'}", "Measure first: sublayer compare.")
    head = """# The Transformer against recurrent networks, measured

Written by `sublayer compare` from the figures in `figures/*.json`; run it again and it measures what is missing, or
`sublayer compare --redraw` to draw only. In every comparison the contenders have as many parameters as their widths
allow to match and see the same texts in the same order. Where several optimizers or learning rates were tried, each
contender has its own best, and it is shown; otherwise it is AdamW for all.
"""
    write_text(out / "report.md", "\n".join([head, *sections]))
    return out / "report.md"


# --- 1: parallelisation ------------------------------------------------------------------------------------------


def _parallel(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    pictures.draw_parallel(entries, folder / "compare-parallel.png")
    text = ["## 1. Parallelisation: speed against length", "", "![speed](pictures/compare-parallel.png)", ""]
    devices = list(dict.fromkeys(key.split("/")[0] for key in entries))
    for device in devices:
        own = {key.split("/", 1)[1]: found for key, found in entries.items() if key.startswith(f"{device}/")}
        names = list(dict.fromkeys(key.split("/")[0] for key in own))
        lengths = sorted({int(key.split("/")[1]) for key in own})
        whole = {key: statistics.median(found["both"]) for key, found in own.items()}
        tokens = next(iter(own.values()))["tokens"]
        text += [
            f"On {_device(device)}, about {tokens:,} tokens a step. Tokens a second of training (forward and backward; "
            f"in brackets milliseconds a step), medians of {settings['repeats']}:",
            "",
        ]
        rows = [
            [f"{length:,}", *(_speed(own.get(f"{name}/{length}"), whole.get(f"{name}/{length}")) for name in names)]
            for length in lengths
        ]
        text += [_table(["length", *(TITLES[name] for name in names)], rows), ""]
        text += ["Products that wait for one another in a forward pass, and operations of training a token:", ""]
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
        text += [_table(["length", *(TITLES[name] for name in names)], rows), ""]
        text += [_from_to(names, lengths, own, whole), ""]
    parameters = {key.split("/")[1]: found["parameters"] for key, found in entries.items()}
    text += [
        f"Parameters: {_listed(parameters)}. "
        + _paragraph(
            """The number of products that wait for one another is the constant and the n of the column "sequential
            operations" in the paper's table 1; the same table's "maximum path length" is 1 for attention and n for
            recurrence."""
        ),
        "",
        _paragraph(LIMITS["parallel"]),
        "",
    ]
    return "\n".join(text)


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


# --- 2: long-range dependencies ----------------------------------------------------------------------------------


def _recall(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
    best = _best(entries)
    pictures.draw_recall(best, folder / "compare-recall.png")
    text = [
        "## 2. Long-range dependencies",
        "",
        "![accuracy](pictures/compare-recall.png)",
        "",
        "*Recall*: four keys, each with a value, then noise, then keys again: what stood behind each? *Copy*: four "
        "letters, then noise, then a mark: which letters? One model of each kind is trained on all distances (near "
        f"ones first), {settings['steps']:,} steps of {settings['rows']} texts, and tested at each distance.",
        "",
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
        text += [f"Accuracy of {task} by distance (chance: {CHANCE[task]:.0%}):", "", _table(header, rows), ""]
        text += [_bridged(found, distances), ""]
        if task == "recall":
            text += [
                "Whoever knows which values have been said, but not behind which keys, is right about half of the "
                "time: that is a plateau on the way, and not chance.",
                "",
            ]
    reach = best.get("recall") or best.get("copy") or {}
    pictures.draw_reach(reach, folder / "compare-gradient.png")
    steps = sorted(int(n) for n in next(iter(reach.values()))["reach_fresh"] if int(n))
    shown = [n for n in steps if math.log2(n) % 2 == 0] or steps
    rows = [
        [TITLES[name], when, *(f"{one[f'reach_{when}'][str(n)]:.1e}" for n in shown)]
        for name, one in reach.items()
        for when in ("fresh", "trained")
    ]
    text += [
        "The norm of the gradient that reaches the embedding of a token n steps back, from the loss at the last place "
        "of a random text, relative to n = 0 (geometric mean of 8 texts):",
        "",
        "![gradient](pictures/compare-gradient.png)",
        "",
        _table(["contender", "when", *(f"n = {n:,}" for n in shown)], rows),
        "",
        _farthest(reach, steps[-1]),
        "",
        _paragraph(LIMITS["recall"]),
        "",
    ]
    return "\n".join(text)


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
        f"{TITLES[name]} {one['reach_fresh'][str(n)]:.1e}, then {one['reach_trained'][str(n)]:.1e}"
        for name, one in reach.items()
    ]
    return f"At n = {n:,}, before and after training: {'; '.join(said)}."


# --- 3: translation ----------------------------------------------------------------------------------------------


def _translation(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
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
    trials = {key: found for key, found in entries.items() if "/" in key}
    tried = "; ".join(
        f"{TITLES[name]} {', '.join(_trial(key, one) for key, one in trials.items() if key.startswith(f'{name}/'))}"
        for name in finals
    )
    signature = next(iter(finals.values()))["signature"]
    return "\n".join(
        [
            "## 3. Translation",
            "",
            "![quality](pictures/compare-translation.png)",
            "",
            f"The recipe `{settings['recipe']}` but for the model, the optimizer and its learning rate, "
            f"{settings['minutes']:g} minutes each. Greedy translations of the held-out sentences (`{signature}`):",
            "",
            _table(header, rows),
            "",
            "BLEU by words of the source sentence (sentences in brackets):",
            "",
            _table(["contender", *(f"{stretch} ({one['sentences']})" for stretch, one in stretches)], by_length),
            "",
            _order(finals),
            "",
            f"Tried for {settings['trial']:g} minutes each (validation loss): {tried}.",
            "",
            _paragraph(LIMITS["translation"]),
            "",
        ]
    )


def _trial(key: str, one: Mapping[str, Any]) -> str:
    return f"{key.split('/')[1]}: {one['loss']:.2f}"


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


# --- 4: positions ------------------------------------------------------------------------------------------------


def _positions(entries: Entries, settings: Mapping[str, Any], folder: Path) -> str:
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
    return "\n".join(
        [
            "## 4. Positions",
            "",
            "![positions](pictures/compare-positions.png)",
            "",
            f"One language model of WikiText-2 ({settings['layers']} layers, {settings['dim']} wide) with each kind of "
            f"positions, trained on {one['trained_tokens']:,} tokens in rows of {trained}. Perplexity of a token on "
            f"the same {one['tokens']:,} tokens of the test text, in rows of each length:",
            "",
            _table(["positions", "parameters", *(f"{n:,}" for n in lengths)], rows),
            "",
            f"In the rows of {lengths[-1]:,}, by where a token stands:",
            "",
            _table(["positions", *stretches], inside),
            "",
            _beyond(entries, trained, lengths[-1]),
            "",
            _paragraph(LIMITS["positions"]),
            "",
        ]
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


# --- what they share ---------------------------------------------------------------------------------------------


_SECTIONS = {"parallel": _parallel, "recall": _recall, "translation": _translation, "positions": _positions}


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"Measured on {machine['processor']}, {machine['threads']} of {machine['cores']} cores{gpu}; "
        f"torch {machine['torch']}.\n"
    )


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{TITLES[name]} {count:,}" for name, count in numbers.items())


def _paragraph(text: str) -> str:
    return " ".join(text.split())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
