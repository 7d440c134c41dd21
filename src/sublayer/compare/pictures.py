"""The pictures of the report, drawn from the figures alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublayer.compare.contenders import TITLES
from sublayer.compare.recall import CHANCE, TASKS
from sublayer.files import replacing

COLOURS: Mapping[str, str] = {
    "transformer": "tab:blue",
    "transformer-1": "tab:cyan",
    "lstm": "tab:orange",
    "lstm-attention": "tab:orange",
    "lstm-plain": "tab:red",
    "gru": "tab:green",
    "rnn": "tab:purple",
    "sinusoidal": "tab:blue",
    "learned": "tab:orange",
    "rotary": "tab:green",
    "alibi": "tab:red",
    "relative": "tab:purple",
    "none": "tab:gray",
}

Entries = Mapping[str, Mapping[str, Any]]


def draw_parallel(entries: Entries, path: Path) -> None:
    """Tokens a second, forward and backward and forward alone, against the length, a row a device."""
    devices = list(dict.fromkeys(key.split("/")[0] for key in entries))
    figure, axes = _figure(len(devices), 2, "Training: tokens a second against the length of the texts")
    for row, device in enumerate(devices):
        for column, what in enumerate(("both", "forward")):
            own = axes[row][column]
            for name in dict.fromkeys(key.split("/")[1] for key in entries):
                points = sorted(
                    (int(key.split("/")[2]), found["tokens"] / statistics.median(found[what]))
                    for key, found in entries.items()
                    if key.startswith(f"{device}/{name}/")
                )
                _line(own, points, name)
            own.set(xscale="log", yscale="log", xlabel="tokens of a text", ylabel=f"tokens a second ({device})")
            own.set_title("forward and backward" if what == "both" else "forward alone")
            _ticks(own, [int(key.split("/")[2]) for key in entries])
    axes[0][0].legend(frameon=False)
    _save(figure, path)


def draw_recall(best: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Accuracy against distance, a panel a task. best: by task and contender."""
    figure, axes = _figure(1, len(TASKS), "Accuracy against distance")
    for own, task in zip(axes[0], TASKS, strict=True):
        for name, found in best.get(task, {}).items():
            _line(own, sorted((int(n), value) for n, value in found["accuracy"].items()), name)
        own.axhline(CHANCE[task], color="0.6", linestyle=":", label="chance")
        own.set(xscale="log", ylim=(0, 1.03), xlabel="tokens of noise in between", ylabel="accuracy", title=task)
        _ticks(own, [int(n) for found in best.get(task, {}).values() for n in found["accuracy"]])
    axes[0][0].legend(frameon=False)
    _save(figure, path)


def draw_reach(best: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The gradient that reaches a token n steps back, before and after training."""
    figure, axes = _figure(1, 2, "Norm of the gradient that reaches a token n steps back, relative to n = 0")
    for own, when in zip(axes[0], ("fresh", "trained"), strict=True):
        for name, found in best.items():
            points = sorted((int(n), max(value, 1e-30)) for n, value in found[f"reach_{when}"].items() if int(n))
            _line(own, points, name)
        # What is less than rounding leaves the picture.
        own.set(xscale="log", yscale="log", ylim=(1e-16, 10), xlabel="n, tokens back")
        own.set_title("before training" if when == "fresh" else "after training (recall)")
        _ticks(own, [int(n) for found in best.values() for n in found[f"reach_{when}"] if int(n)])
    axes[0][0].legend(frameon=False)
    _save(figure, path)


def draw_translation(entries: Entries, path: Path) -> None:
    """BLEU against the time of training, and by the length of the sentence."""
    figure, axes = _figure(1, 2, "Translation: equal parameters, data and time")
    time, length = axes[0]
    finals = {name: found for name, found in entries.items() if "checks" in found}
    for name, found in finals.items():
        _line(time, [(check["seconds"] / 60, check["bleu"]) for check in found["checks"]], name)
        stretches = list(found["by_length"])
        places = range(len(stretches))
        colour, label = COLOURS[name], TITLES[name]
        length.plot(places, [one["bleu"] for one in found["by_length"].values()], "o-", color=colour, label=label)
        counts = [f"{stretch}\n({one['sentences']})" for stretch, one in found["by_length"].items()]
        length.set_xticks(list(places), counts)
    time.set(xlabel="minutes of training", ylabel="BLEU, validation, greedy", ylim=(0, None))
    length.set(xlabel="words of the source (sentences)", ylabel="BLEU, test, greedy", ylim=(0, None))
    time.legend(frameon=False)
    _save(figure, path)


def draw_positions(entries: Entries, trained: int, path: Path) -> None:
    """Perplexity against the length of the rows, and by where in the longest rows a token stands."""
    figure, axes = _figure(1, 2, f"Kinds of positions, trained on {trained} tokens")
    whole, inside = axes[0]
    for name, found in entries.items():
        _line(whole, sorted((int(n), math.exp(nats)) for n, nats in found["nats"].items()), name)
        ends = [(int(stretch.split("-")[1]), math.exp(nats)) for stretch, nats in found["stretches"].items()]
        _line(inside, ends, name)
    whole.set(xscale="log", yscale="log", xlabel="tokens of a row", ylabel="perplexity of a token")
    inside.set(xscale="log", yscale="log", xlabel="up to this position of the longest rows", ylabel="perplexity")
    for own in (whole, inside):
        _ticks(own, [int(n) for found in entries.values() for n in found["nats"]])
        own.axvline(trained, color="0.6", linestyle=":")
    whole.legend(frameon=False)
    _save(figure, path)


def _figure(rows: int, columns: int, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(5.5 * columns, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for own in axes.flat:
        own.grid(alpha=0.2)
        own.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure, axes


def _line(axes: Any, points: list[tuple[Any, float]], name: str) -> None:
    label = TITLES.get(name, name)
    axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], label=label, markersize=4)


def _ticks(axes: Any, places: list[int]) -> None:
    """The lengths that were measured, and no others."""
    shown = sorted(set(places))
    axes.set_xticks(shown, [f"{place:,}" for place in shown])
    axes.set_xticks([], minor=True)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
