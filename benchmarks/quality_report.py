"""The tables and the picture of `time_to_quality.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from summary import table

SIDES = {"sublayer": "sublayer", "baseline": "torch.nn.Transformer"}


def tables(result: dict[str, Any], every: float) -> str:
    """Both curves at the same times, both scores on the test set, and what the baseline tried."""
    sides = [side for side in SIDES if side in result]
    parts = [_curves(result, sides, every), _scores(result, sides)]
    if len(sides) == 2:
        parts.append(_catches_up(result))
    if "baseline" in result:
        tried = [
            [
                one["setting"],
                f"{one['seconds']:.0f}",
                f"{one['steps']:,}",
                f"{one['loss']:.3f}",
                f"{one['bleu']:.1f}",
            ]
            for one in result["baseline"]["tried"]
        ]
        parts.append(
            f"What the baseline tried, in {result['baseline']['precision']}:\n\n"
            + table(["setting", "seconds", "steps", "validation loss", "validation BLEU"], tried)
        )
    return "\n\n".join(parts)


def reached(curve: list[dict[str, float]], bleu: float) -> float | None:
    """Seconds until the first validation with at least `bleu`; None if there is none."""
    return next((point["seconds"] for point in curve if point["bleu"] >= bleu), None)


def _catches_up(result: dict[str, Any]) -> str:
    end = result["baseline"]["curve"][-1]
    seconds = reached(result["sublayer"]["curve"], end["bleu"])
    last = f"{SIDES['baseline']} ends with {end['bleu']:.1f} BLEU after {end['seconds']:.0f} s;"
    if seconds is None:
        return f"{last} sublayer does not reach that."
    return f"{last} sublayer has that after {seconds:.0f} s, {100 * seconds / end['seconds']:.0f}% of the time."


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
