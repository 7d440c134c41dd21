"""The tables of `engine_speed.py`, and the floor that stands in them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from engine_contenders import CONTENDERS, LIBRARIES, OURS, PRECISIONS, StepMatrix
from summary import Summary, table

Row = Mapping[str, Any]


def read_bandwidth(threads: int, megabytes: int) -> float:
    """Bytes a second that so many threads read of memory that is in no cache: the best of some tries."""
    one, other = torch.full((2, megabytes * 2**20 // 8), 0.5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        torch.dot(one, other)
        best = max(best, 2 * one.nbytes / (time.perf_counter() - begin))
    torch.set_num_threads(before)
    return best


def step_matrices(folder: Path) -> list[StepMatrix]:
    """The matrices of a language model that a step reads."""
    from safetensors import safe_open

    found: list[StepMatrix] = []
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", framework="np") as held:
        for name in held.keys():  # noqa: SIM118 # it is no mapping
            rows, columns = (*held.get_slice(name).get_shape(), 0)[:2]
            # Of embedding and positions a row is read, but the embedding of these models is the output too.
            if columns and "wpe" not in name:
                # GPT-2's maps are kept the other way round.
                turned = c["model_type"] == "gpt2" and ".h." in f".{name}"
                if turned:
                    rows, columns = columns, rows
                found.append(StepMatrix(rows, columns, rows == c["vocab_size"]))
    return found


def ours_beside(name: str) -> list[str]:
    """Which of sublayer's formats a rival is compared with."""
    one = CONTENDERS[name]
    if one.library == OURS:
        return []
    found = [f"{OURS}, {formats[OURS]}" for formats in PRECISIONS.values() if formats.get(one.library) == one.weights]
    return list(dict.fromkeys(found))


def line(title: str, contenders: Mapping[str, Any]) -> str:
    """What is printed as soon as some contenders have been measured."""
    speeds = [f"{name} {_number(one['tokens_per_second']['median'])}" for name, one in contenders.items()]
    return f"{title}: tokens/s {', '.join(speeds)}"


def tables(rows: Sequence[Row], bandwidth: float) -> str:
    """All tables; bandwidth: bytes a second of the floor."""
    parts = {
        "translation": "Translation, tokens a second (quartiles)",
        "language": "Language models, tokens a second after the first (quartiles)",
        "first token": "Language models, milliseconds to the first token (quartiles)",
    }
    found = [
        f"{title}\n\n{_speeds([row for row in rows if row['part'] == part], part, bandwidth)}"
        for part, title in parts.items()
        if any(row["part"] == part for row in rows)
    ]
    if sums := _sums(rows):
        found.append(f"Over all lines\n\n{sums}")
    return "\n\n".join(found)


def _speeds(rows: Sequence[Row], part: str, bandwidth: float) -> str:
    there = {CONTENDERS[name].library for row in rows for name in row["contenders"]}
    libraries = [library for library in LIBRARIES if library in there]
    rivals = [library for library in libraries if library != OURS]
    decodes = part != "first token"
    lines: list[list[str]] = []
    for row in rows:
        for precision, formats in PRECISIONS.items():
            names = {library: f"{library}, {formats[library]}" for library in libraries if library in formats}
            held = {library: row["contenders"][name] for library, name in names.items() if name in row["contenders"]}
            # Four bits beside nobody else's are shown once.
            if not held or (precision == "int4 and Q4_K" and held.keys() <= {OURS}):
                continue
            ours = names[OURS]
            what = "tokens_per_second" if decodes else "milliseconds"
            cells = [f"{row['title']}, {precision}"]
            cells += [_cell(held[one][what]) if one in held else "–" for one in libraries]
            cells.append(" / ".join(str(held[one]["threads"]) if one in held else "–" for one in libraries))
            for rival in rivals:
                ratio = held[rival]["sublayer_is_faster"].get(ours) if rival in held else None
                cells.append(Summary(**ratio).shown() if ratio else "–")
            if decodes:
                cells += [_floor(held, libraries, bandwidth), _equal(held, libraries)]
            lines.append(cells)
    header = ["model, batch, weights", *libraries, "threads of each", *(f"faster than {rival} by" for rival in rivals)]
    return table([*header, *(["floor, and shares of it", "equal tokens"] if decodes else [])], lines)


def _floor(held: Mapping[str, Any], libraries: Sequence[str], bandwidth: float) -> str:
    """Tokens a second if reading the weights were all: of sublayer's format, else of the first."""

    def floor(one: Mapping[str, Any]) -> float:
        return one["floor_rows"] * bandwidth / one["step_bytes"]

    shares = [
        f"{100 * held[one]['tokens_per_second']['median'] / floor(held[one]):.0f}%" if one in held else "–"
        for one in libraries
    ]
    return f"{_number(floor(next(iter(held.values()))))}: {' / '.join(shares)}"


def _equal(held: Mapping[str, Any], libraries: Sequence[str]) -> str:
    shown: list[str] = []
    for library in libraries:
        found = held[library].get("equal") if library in held else None
        if found is None:
            shown.append("–")
            continue
        ties = f" ({found['near_ties']} of {len(found['score_gaps'])} near ties)" if found.get("score_gaps") else ""
        shown.append(f"{100 * found['equal_tokens']:.0f}%{ties}")
    return " / ".join(shown)


def _sums(rows: Sequence[Row]) -> str:
    """In how many lines sublayer is ahead of each rival, and by how much."""
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for name, found in row["contenders"].items():
            for ours, ratio in found["sublayer_is_faster"].items():
                whole = {"language": "language models", "first token": "first token"}
                ratios.setdefault((whole.get(row["part"], row["shape"]), ours, name), []).append(ratio["median"])
    lines = [
        [
            f"{shape}: {ours} over {name}",
            f"{sum(one > 1 for one in found)} of {len(found)}",
            f"{statistics.median(found):.2f}",
            f"{min(found):.2f}",
            f"{max(found):.2f}",
        ]
        for (shape, ours, name), found in sorted(ratios.items())
    ]
    return table(["", "lines ahead", "median", "least", "most"], lines) if lines else ""


def _cell(summary: Mapping[str, Any]) -> str:
    found = Summary(**summary)
    return f"{_number(found.median)} ({_number(found.lower)} – {_number(found.upper)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
