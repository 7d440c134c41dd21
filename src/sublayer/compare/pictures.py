"""The pictures of the report, drawn from the figures alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sublayer.compare.contenders import TITLES
from sublayer.compare.parallel import by_device
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
    devices = by_device(entries)
    with _figure(path, "Training: tokens a second against the length of the texts", len(devices)) as axes:
        for row, (device, contenders) in zip(axes, devices.items(), strict=True):
            for own, what in zip(row, ("both", "forward"), strict=True):
                for name, lengths in contenders.items():
                    points = [(n, found["tokens"] / statistics.median(found[what])) for n, found in lengths.items()]
                    _line(own, sorted(points), name)
                own.set(xscale="log", yscale="log", xlabel="tokens of a text", ylabel=f"tokens a second ({device})")
                own.set_title("forward and backward" if what == "both" else "forward alone")
                _ticks(own, [n for lengths in contenders.values() for n in lengths])


def draw_recall(best: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Accuracy against distance, a panel a task. best: by task and contender."""
    with _figure(path, "Accuracy against distance") as axes:
        for own, task in zip(axes[0], TASKS, strict=True):
            for name, found in best.get(task, {}).items():
                _line(own, sorted((int(n), value) for n, value in found["accuracy"].items()), name)
            own.axhline(CHANCE[task], color="0.6", linestyle=":", label="chance")
            own.set(xscale="log", ylim=(0, 1.03), xlabel="tokens of noise in between", ylabel="accuracy", title=task)
            _ticks(own, [int(n) for found in best.get(task, {}).values() for n in found["accuracy"]])


def draw_reach(best: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The gradient that reaches a token n steps back, before and after training."""
    with _figure(path, "Norm of the gradient that reaches a token n steps back, relative to n = 0") as axes:
        for own, when in zip(axes[0], ("fresh", "trained"), strict=True):
            for name, found in best.items():
                points = sorted((int(n), max(value, 1e-30)) for n, value in found[f"reach_{when}"].items() if int(n))
                _line(own, points, name)
            # What is less than rounding leaves the picture.
            own.set(xscale="log", yscale="log", ylim=(1e-16, 10), xlabel="n, tokens back")
            own.set_title("before training" if when == "fresh" else "after training (recall)")
            _ticks(own, [int(n) for found in best.values() for n in found[f"reach_{when}"] if int(n)])


def draw_translation(finals: Entries, path: Path) -> None:
    """BLEU against the time of training, and by the length of the sentence, of contenders that have finished."""
    with _figure(path, "Translation: equal parameters, data and time") as [[time, length]]:
        for name, found in finals.items():
            _line(time, [(check["seconds"] / 60, check["bleu"]) for check in found["checks"]], name)
            stretches: dict[str, Any] = found["by_length"]
            _line(length, list(enumerate(one["bleu"] for one in stretches.values())), name)
            counts = [f"{stretch}\n({one['sentences']})" for stretch, one in stretches.items()]
            length.set_xticks(range(len(stretches)), counts)
        time.set(xlabel="minutes of training", ylabel="BLEU, validation, greedy", ylim=(0, None))
        length.set(xlabel="words of the source (sentences)", ylabel="BLEU, test, greedy", ylim=(0, None))


def draw_positions(entries: Entries, trained: int, path: Path) -> None:
    """Perplexity against the length of the rows, and by where in the longest rows a token stands."""
    with _figure(path, f"Kinds of positions, trained on {trained} tokens") as [[whole, inside]]:
        for name, found in entries.items():
            _line(whole, sorted((int(n), math.exp(nats)) for n, nats in found["nats"].items()), name)
            ends = [(int(stretch.split("-")[1]), math.exp(nats)) for stretch, nats in found["stretches"].items()]
            _line(inside, ends, name)
        whole.set(xscale="log", yscale="log", xlabel="tokens of a row", ylabel="perplexity of a token")
        inside.set(xscale="log", yscale="log", xlabel="up to this position of the longest rows", ylabel="perplexity")
        for own in (whole, inside):
            _ticks(own, [int(n) for found in entries.values() for n in found["nats"]])
            own.axvline(trained, color="0.6", linestyle=":")


@contextmanager
def _figure(path: Path, title: str, rows: int = 1) -> Generator[Any]:
    """Two panels a row to draw in; then the first gets the legend, and the picture is written."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(11.0, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for own in axes.flat:
        own.grid(alpha=0.2)
        own.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    yield axes
    axes[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        figure.savefig(aside, dpi=110, format="png")


def _line(axes: Any, points: list[tuple[Any, float]], name: str) -> None:
    label = TITLES.get(name, name)
    axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], label=label, markersize=4)


def _ticks(axes: Any, places: list[int]) -> None:
    """The lengths that were measured, and no others."""
    shown = sorted(set(places))
    axes.set_xticks(shown, [f"{place:,}" for place in shown])
    axes.set_xticks([], minor=True)
