"""Figures are kept as they are measured, are never mixed with those of another plan, and outlive a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sublayer.compare import parallel, running
from sublayer.compare.ledger import Ledger, read_ledger
from sublayer.compare.plan import Parallel, Plan, Rates, Recall
from sublayer.errors import ConfigError, DataError
from telling import Told

SMALL = Parallel(lengths=(4, 8), tokens=16, dim=16, layers=1, vocab_size=20, warm_up=0.0, repeats=2)
CPU = torch.device("cpu")


def test_every_entry_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "part.json"
    ledger = Ledger(path, {"lengths": (1, 2)})
    ledger["one"] = {"values": (1.5, 2.5)}
    assert json.loads(path.read_text())["entries"] == {"one": {"values": [1.5, 2.5]}}
    again = Ledger(path, {"lengths": (1, 2)})
    assert "one" in again
    assert again["one"] == {"values": [1.5, 2.5]}


def test_figures_of_other_settings_are_refused_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    Ledger(path, {"steps": 1})["one"] = {"value": 1}
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="measured under other settings"):
        Ledger(path, {"steps": 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["{", "[]", '{"settings": {}}'])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "part.json"
    path.write_text(damage)
    with pytest.raises(DataError, match=r"part\.json"):
        read_ledger(path)


def test_every_length_has_the_same_number_of_tokens(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "parallel.json", {})
    told = Told()
    parallel.measure(SMALL, ledger, CPU, lambda: told)
    assert len(ledger.entries) == 4 * 2
    assert {one["tokens"] for one in ledger.entries.values()} == {16}
    assert all(len(one[what]) == 2 for one in ledger.entries.values() for what in ("forward", "both"))
    # Every model predicts tokens that mean nothing: its loss is that of knowing nothing, about ln 20.
    assert all(2.0 < one["loss"] < 5.0 for one in ledger.entries.values())
    kept = dict(ledger.entries)
    parallel.measure(SMALL, ledger, CPU, Told)
    assert ledger.entries == kept


def test_a_stopped_comparison_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        parallel=SMALL,
        recall=Recall((4, 8), steps=2, rows=2, dim=16, layers=1, rates=Rates((1e-3,), (1e-3,)), tested=2),
    )
    timed = parallel._timed
    count = 0

    def stopping(*given: object) -> object:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return timed(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(parallel, "_timed", stopping)
    with pytest.raises(KeyboardInterrupt):
        running.compare(plan, ["parallel"], tmp_path, CPU, Told)
    kept = read_ledger(tmp_path / "figures" / "parallel.json")
    assert kept is not None
    assert len(kept["entries"]) == 3
    report = running.compare(plan, ["recall", "parallel"], tmp_path, CPU, Told)
    assert count == 4 + 8 - 3
    found = read_ledger(tmp_path / "figures" / "parallel.json")
    assert found is not None
    assert {name: found["entries"][name] for name in kept["entries"]} == kept["entries"]
    text = report.read_text()
    assert "## 1." in text
    assert "## 2." in text
    assert "## 3." not in text
    # Another plan in the same folder is refused; with overwrite it begins anew.
    other = Plan(parallel=Parallel(lengths=(4,), tokens=8, dim=16, layers=1, vocab_size=20, warm_up=0.0, repeats=1))
    with pytest.raises(ConfigError, match="other settings"):
        running.compare(other, ["parallel"], tmp_path, CPU, Told)
    running.compare(other, ["parallel"], tmp_path, CPU, Told, overwrite=True)
    found = read_ledger(tmp_path / "figures" / "parallel.json")
    assert found is not None
    assert len(found["entries"]) == 4
