"""The curves of a run as a picture: loss and learning rate over the steps, validation beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sublayer.config import MEASURES
from sublayer.files import replacing
from sublayer.training.metrics import RunningMean, read_metrics


def draw_curves(metrics: Path, picture: Path, title: str) -> None:
    """Read a metrics.jsonl and draw it as a PNG."""
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    steps: list[dict[str, Any]] = [line for line in lines if "loss" in line]
    checks: list[dict[str, Any]] = [line for line in lines if "valid/loss" in line]
    if not steps:
        return
    figure: Any = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = [line["step"] for line in steps]
    loss = [line["loss"] for line in steps]
    left.plot(x, loss, color="0.8", linewidth=0.6)
    mean = RunningMean()
    left.plot(x, [mean.add(value) for value in loss], color="tab:blue", label="training loss (smoothed)")
    dotted: dict[str, Any] = {"marker": "o", "markersize": 3}
    if checks:
        at, values = ([line[key] for line in checks] for key in ("step", "valid/loss"))
        left.plot(at, values, color="tab:orange", label="validation loss", **dotted)
    left.set(xlabel="optimizer step", ylabel="nats per target")
    left.legend(loc="upper right", frameon=False)
    measured = _best_measure(checks)
    if measured is not None:
        minutes, values = [line["seconds"] / 60 for line in checks], [line[f"valid/{measured}"] for line in checks]
        right.plot(minutes, values, color="tab:green", **dotted)
        if MEASURES[measured].better == "higher":
            right.set_ylim(bottom=0)
        right.set(xlabel="minutes of training", ylabel=f"validation: {MEASURES[measured].title}")
    rate = right.twinx() if measured is None else left.twinx()
    rate.plot(x, [line["learning_rate"] for line in steps], color="0.6", linewidth=0.8, linestyle="--")
    rate.set_ylabel("learning rate (dashed)", color="0.5")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (left, right):
        axes.grid(alpha=0.2)
        axes.spines[["top"]].set_visible(False)
    figure.suptitle(title)
    with replacing(picture) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _best_measure(checks: list[dict[str, Any]]) -> str | None:
    """What is drawn beside the loss: the last of the other things that the validations measured, or nothing."""
    names = [name.removeprefix("valid/") for name in (checks[-1] if checks else {}) if name.startswith("valid/")]
    others = [name for name in names if name != "loss" and name in MEASURES]
    return others[-1] if others else None
