"""The tables and the picture of `time_to_quality.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from summary import table

SIDES = {"sublayer": "sublayer", "baseline": "torch.nn.Transformer"}


def tables(result: dict[str, Any], every: float) -> str:
    """Both curves at the same times, and both scores on the test set."""
    sides = [side for side in SIDES if side in result]
    parts = [_curves(result, sides, every), _scores(result, sides)]
    if "baseline" in result:
        b = result["baseline"]
        tried = ", ".join(f"{t['peak']:g} after {t['warmup']} steps: {t['valid_bleu']:.1f}" for t in b["tried"])
        parts.append(
            f"The baseline's settings, the best of (peak learning rate after warm-up: BLEU) {tried}; "
            f"{b['steps']:,} steps in {b['precision']}."
        )
    return "\n\n".join(parts)


def draw(result: dict[str, Any], path: Path, title: str) -> Path:
    """Both curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), constrained_layout=True)
    for side, color in (("sublayer", "tab:blue"), ("baseline", "tab:orange")):
        if side in result:
            curve = result[side]["curve"]
            minutes = [0.0, *(point["seconds"] / 60 for point in curve)]
            last = f"{curve[-1]['bleu']:.1f}"
            axes.plot(minutes, [0.0, *(point["bleu"] for point in curve)], color=color, marker=".", label=SIDES[side])
            axes.annotate(
                last, (minutes[-1], curve[-1]["bleu"]), xytext=(4, 0), textcoords="offset points", color=color
            )
    axes.set(
        xlabel="minutes of training", ylabel="BLEU, greedy, validation", title=title, xlim=(0, None), ylim=(0, None)
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def at(curve: list[dict[str, float]], seconds: float) -> float | None:
    """BLEU of the last validation up to then; nothing is read off the future."""
    # A baseline validates at the first step past its mark, so a step's length of lateness is allowed to both.
    before = [point["bleu"] for point in curve if point["seconds"] <= seconds + 3]
    return before[-1] if before else None


def _curves(result: dict[str, Any], sides: list[str], every: float) -> str:
    longest = max(result[side]["curve"][-1]["seconds"] for side in sides)
    times = [every * number for number in range(1, int(longest / every) + 1)]
    if not times or longest - times[-1] > 3:
        times.append(longest)
    rows = []
    for seconds in times:
        values = [at(result[side]["curve"], seconds) for side in sides]
        cells = ["–" if value is None else f"{value:.1f}" for value in values]
        known = len(values) == 2 and None not in values
        rows.append([f"{seconds / 60:.1f}", *cells, f"{values[0] - values[1]:+.1f}" if known else ""])
    return table(["minutes of training: BLEU on validation", *(SIDES[side] for side in sides), "difference"], rows)


def _scores(result: dict[str, Any], sides: list[str]) -> str:
    rows = [
        [
            f"{SIDES[side]}, {search}",
            f"{scores['bleu']:.2f}",
            f"{scores['chrf']:.2f}",
            f"{scores['sentences']:,}",
            f"{result[side]['steps']:,}",
            f"{result[side]['seconds']:.0f}",
            f"{result[side]['parameters']:,}",
        ]
        for side in sides
        for search, scores in result[side]["test"].items()
    ]
    header = ["test set", "BLEU", "chrF", "sentences", "steps", "seconds of training", "parameters"]
    scores = next(iter(result[sides[0]]["test"].values()))
    return f"{table(header, rows)}\n\nBLEU {scores['bleu_signature']}; chrF {scores['chrf_signature']}"
