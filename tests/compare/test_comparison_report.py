"""The report says what stands in the figures: each number is looked for where a reader would look for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sublayer.compare.ledger import Ledger
from sublayer.compare.report import write_report
from sublayer.errors import DataError


def write(out: Path, part: str, settings: dict[str, Any], entries: dict[str, dict[str, Any]]) -> str:
    """A ledger of made-up figures, and the report of it."""
    ledger = Ledger(out / "figures" / f"{part}.json", settings)
    for name, figures in entries.items():
        ledger[name] = figures
    return write_report(out).read_text()


def row(text: str, title: str) -> list[str]:
    """The cells of the one row of a table that begins so."""
    [line] = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def timed(tokens: int, seconds: float, chain: int) -> dict[str, Any]:
    return {
        "parameters": 1000,
        "tokens": tokens,
        # A disturbed one among them, which the median leaves out.
        "both": [seconds, seconds, 100 * seconds],
        "forward": [seconds / 3] * 3,
        "loss": 3.0,
        "flops": 2_500_000,
        "chain": chain,
        "path": 1,
    }


def test_parallel(tmp_path: Path) -> None:
    entries = {
        "cpu/transformer/16": timed(4096, 1.0, 13),
        "cpu/transformer/64": timed(4096, 2.0, 13),
        "cpu/lstm/16": timed(4096, 0.5, 18),
        "cpu/lstm/64": timed(4096, 4.0, 66),
    }
    text = write(tmp_path, "parallel", {"repeats": 3}, entries)
    assert "| 16 | 4,096 (1,000) | 8,192 (500) |" in text
    assert "| 64 | 2,048 (2,000) | 1,024 (4,000) |" in text
    # Forward alone in a third of the time.
    assert "| 16 | 12,288 (333) | 24,576 (167) |" in text
    assert "| 64 | 13 · 2.5 MFLOP | 66 · 2.5 MFLOP |" in text
    assert "relative to the speed at 16: Transformer 0.50 times, LSTM 0.12 times" in text
    assert "At 16 tokens the Transformer's speed is 0.50 times the LSTM's" in text
    assert "At 64 tokens the Transformer's speed is 2.00 times the LSTM's" in text
    with Image.open(tmp_path / "pictures" / "compare-parallel.png") as picture:
        assert picture.width > 800


def remembered(right: dict[str, float], losses: list[float]) -> dict[str, Any]:
    reach = {"0": 1.0, "1": 0.5, "2": 0.25, "4": 0.5}
    return {
        "parameters": 2000,
        "width": 8,
        "tokens": 10,
        "accuracy": right,
        "loss": losses,
        "path": {"8": 8, "32": 32},
        "reach_fresh": reach,
        "reach_trained": {n: value / 1000 for n, value in reach.items()},
    }


def test_recall_shows_each_ones_best_rate_and_how_far_it_came(tmp_path: Path) -> None:
    level, falling = [0.5] * 20, [20.0 - n for n in range(20)]
    entries = {
        "recall/transformer/0.001": remembered({"8": 1.0, "32": 0.95}, level),
        "recall/transformer/0.003": remembered({"8": 1.0, "32": 0.2}, level),
        "recall/lstm/0.003": remembered({"8": 0.3, "32": 0.3}, level),
        "recall/lstm/0.01": remembered({"8": 0.91, "32": 0.4}, falling),
        "copy/transformer/0.001": remembered({"8": 0.2, "32": 0.1}, level),
    }
    text = write(tmp_path, "recall", {"steps": 20, "rows": 2}, entries)
    recall, copy = text.split("Accuracy of copy")
    assert row(recall, "Transformer") == ["Transformer", "0.001", "2,000", "100%", "95%", "8 to 32"]
    assert row(recall, "LSTM") == ["LSTM", "0.01", "2,000", "91%", "40%", "8 to 32"]
    assert "Transformer up to 32; LSTM up to 8 (its loss still falling)." in recall
    assert "Transformer at no distance." in copy
    assert "At n = 4, before and after training: Transformer 5.0e-01, then 5.0e-04" in text
    for name in ("recall", "gradient"):
        assert (tmp_path / "pictures" / f"compare-{name}.png").is_file()


def translated(bleu: float, short: float, long: float) -> dict[str, Any]:
    return {
        "parameters": 3000,
        "width": 8,
        "chosen": "muon 0.002",
        "checks": [
            {"step": 10, "seconds": 30.0, "loss": 3.0, "bleu": 1.0},
            {"step": 20, "seconds": 60.0, "loss": 2.0, "bleu": bleu},
        ],
        "bleu": bleu,
        "chrf": 50.0,
        "signature": "nrefs:1",
        "by_length": {"1-5": {"bleu": short, "sentences": 7}, "6 and more": {"bleu": long, "sentences": 3}},
    }


def test_translation(tmp_path: Path) -> None:
    entries: dict[str, dict[str, Any]] = {
        "transformer/adamw 0.001": {"step": 5, "seconds": 6.0, "loss": 4.25, "bleu": 0.0},
        "transformer/muon 0.002": {"step": 5, "seconds": 6.0, "loss": 3.75, "bleu": 0.0},
        "transformer": translated(20.0, 25.0, 15.0),
        "lstm-plain": translated(30.0, 40.0, 10.0),
    }
    text = write(tmp_path, "translation", {"recipe": "demo", "minutes": 1.0, "trial": 0.1}, entries)
    assert "| Transformer | 3,000 | muon 0.002 | 20 | 1.0 | 20.0 | 50.0 |" in text
    assert "1-5 (7)" in text
    assert "| LSTM without attention | 40.0 | 10.0 |" in text
    assert "From best to worst: LSTM without attention 30.0, Transformer 20.0." in text
    assert "Transformer +10.0, LSTM without attention +30.0" in text
    assert "Transformer adamw 0.001: 4.25, muon 0.002: 3.75" in text


def test_translation_of_which_nothing_is_finished(tmp_path: Path) -> None:
    trial = {"transformer/adamw 0.001": {"step": 5, "seconds": 6.0, "loss": 4.25, "bleu": 0.0}}
    text = write(tmp_path, "translation", {"recipe": "demo", "minutes": 1.0, "trial": 0.1}, trial)
    assert "Not finished yet" in text


def test_positions(tmp_path: Path) -> None:
    def read(short: float, long: float) -> dict[str, Any]:
        return {
            "parameters": 10,
            "tokens": 2048,
            "nats": {"128": math.log(short), "1024": math.log(long)},
            "stretches": {"0-128": math.log(short), "128-1024": math.log(long)},
            "trained_tokens": 4000,
        }

    entries = {"rotary": read(20.0, 60.0), "alibi": read(21.0, 18.9), "none": read(25.0, 25.0)}
    text = write(tmp_path, "positions", {"trained": 128, "layers": 1, "dim": 8}, entries)
    assert "| rotary | 10 | 20.0 | 60.0 |" in text
    assert "alibi 0.90, none 1.00, rotary 3.00" in text
    assert "Below 1, so better with longer rows than in training: alibi." in text


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no figures"):
        write_report(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "recall.json").write_text(json.dumps({"settings": {}, "machine": {}, "entries": {}}))
    with pytest.raises(DataError, match="there are no figures"):
        write_report(tmp_path)


def test_the_machine_stands_under_its_figures(tmp_path: Path) -> None:
    text = write(tmp_path, "parallel", {"repeats": 3}, {"cpu/transformer/16": timed(16, 1.0, 7)})
    machine = json.loads((tmp_path / "figures" / "parallel.json").read_text())["machine"]
    assert f"Measured on {machine['processor']}, {machine['threads']} of {machine['cores']} cores" in text
