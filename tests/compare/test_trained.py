"""Parts 3 and 4 on a corpus of made-up words: everything but the size is as on the real ones."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from small_run import pairs, tree
from sublayer import config
from sublayer.compare import positions, translation
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Positions, Translation, Tried
from sublayer.compare.report import write_report
from sublayer.config.load import LoadedRecipe, load_recipe
from sublayer.data import corpora
from sublayer.hub import folder
from telling import Told

CPU = torch.device("cpu")
TRANSFORMER = tree(300).model_copy(update={"max_length": 64})
TREES = {"transformer": TRANSFORMER, "lstm-plain": translation.contenders(TRANSFORMER)["lstm-plain"]}


def articles(count: int, seed: int) -> str:
    """Text in WikiText's form."""
    draw = random.Random(seed)
    words = ["ba", "co", "di", "fu", "ge", "ha"]
    return "".join(f" = Title {n} = \n \n {' '.join(draw.choices(words, k=60))} . \n \n" for n in range(count))


@pytest.fixture
def wiki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: dict[str | None, Path] = {}
    for seed, (part, count) in enumerate({"train": 30, "validation": 4, "test": 8}.items()):
        paths[part] = tmp_path / f"wiki-{part}.txt"
        paths[part].write_text(articles(count, seed))
    monkeypatch.setattr(corpora, "fetch_parts", lambda name, part, progress=None: [paths[part]])


SMALL = Positions(steps=2, tokens=64, dim=16, layers=1, vocab_size=300, trained=8, tested=(8, 16, 32), test_tokens=200)


def test_positions_read_the_same_tokens_at_every_length(wiki: None, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out" / "figures" / "positions.json", {"trained": 8, "layers": 1, "dim": 16})
    positions.measure(SMALL, ledger, CPU, Told, tmp_path / "runs")
    assert list(ledger.entries) == ["sinusoidal", "learned", "rotary", "alibi", "relative", "none"]
    for name, found in ledger.entries.items():
        assert found["tokens"] == 6 * 32
        bundle = folder.read(tmp_path / "runs" / name)
        assert bundle.model.config.plain()["decoder"]["position"]["type"] == name
        # What each stretch of the longest rows has, weighted by its length, is what those rows have.
        parts = {tuple(map(int, key.split("-"))): nats for key, nats in found["stretches"].items()}
        whole = sum((end - begin) * nats for (begin, end), nats in parts.items()) / 32
        assert whole == pytest.approx(found["nats"]["32"], rel=1e-6)
    # The oracle: the first tokens of the text, read row by row.
    model: Any = folder.read(tmp_path / "runs" / "alibi").model
    text = (tmp_path / "wiki-test.txt").read_text()
    tokenizer = folder.read(tmp_path / "runs" / "alibi").tokenizer
    ids = [token for one in _articles(text) for token in tokenizer.encode([one])[0]]
    nats = 0.0
    with torch.no_grad():
        for begin in range(0, 192, 16):
            row = torch.tensor([ids[begin : begin + 16]])
            wanted = torch.tensor(ids[begin + 1 : begin + 17])
            nats += float(F.cross_entropy(model(row)[0].double(), wanted, reduction="sum"))
    assert ledger["alibi"]["nats"]["16"] == pytest.approx(nats / 192, rel=1e-5)
    report = write_report(tmp_path / "out").read_text()
    assert f"{math.exp(ledger['alibi']['nats']['16']):,.1f}" in report


def _articles(text: str) -> list[str]:
    return [f" = Title {part}" for part in text.split(" = Title ")[1:]]


def test_translation_tries_its_rates_and_takes_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("".join(f"{source}\t{target}\n" for source, target in pairs(90, 8)))
    monkeypatch.setattr(corpora, "fetch", lambda name, progress=None: corpus)
    whole = load_recipe("tatoeba-en-es-demo")
    c = whole.recipe
    small = {
        "data": c.data.model_copy(update={"split": c.data.split.model_copy(update={"validation": 6, "test": 10})}),
        "tokenizer": c.tokenizer.model_copy(update={"vocab_size": 300}),
        "training": c.training.model_copy(
            update={
                "batches": c.training.batches.model_copy(update={"tokens": 200}),
                "schedule": c.training.schedule.model_copy(update={"warmup": 2}),
            }
        ),
    }
    monkeypatch.setattr(translation, "load_recipe", lambda name: LoadedRecipe(c.model_copy(update=small), whole.folder))
    by_clock = translation.recipe_for

    def by_steps(*given: Any) -> config.Recipe:
        """A few steps in the place of minutes, of which a busy machine makes any number."""
        found = by_clock(*given)
        return found.model_copy(update={"training": found.training.model_copy(update={"minutes": None, "steps": 6})})

    monkeypatch.setattr(translation, "recipe_for", by_steps)
    plan = Translation(minutes=0.02, trial=0.01, tried=(Tried("adamw", 1e-3), Tried("muon", 5e-3)), points=1)
    ledger = Ledger(tmp_path / "out" / "figures" / "translation.json", {"recipe": "x", "minutes": 0.02, "trial": 0.01})
    monkeypatch.setattr(translation, "contenders", lambda reference: TREES)
    told = Told()
    translation.measure(plan, ledger, CPU, lambda: told, tmp_path / "runs")
    assert set(ledger.entries) == {
        *(f"{name}/{tried}" for name in TREES for tried in ("adamw 0.001", "muon 0.005")),
        *TREES,
    }
    trials = {one.name: ledger[f"transformer/{one.name}"]["loss"] for one in plan.tried}
    assert ledger["transformer"]["chosen"] == min(trials, key=lambda tried: trials[tried])
    used = folder.read(tmp_path / "runs" / "transformer")
    assert used.model.config == TRANSFORMER.model_copy(update={"vocab_size": used.tokenizer.vocab_size})
    recipe = load_recipe(str(tmp_path / "runs" / "transformer" / "recipe.toml")).recipe
    assert ledger["transformer"]["chosen"].startswith(recipe.training.optimizer.type)
    for name in ("transformer", "lstm-plain"):
        found = ledger[name]
        assert sum(one["sentences"] for one in found["by_length"].values()) == 10
        assert found["checks"][-1]["step"] == 6
    # What has come to its end is neither trained nor measured again.
    before, again = dict(ledger.entries), Told()
    translation.measure(plan, ledger, CPU, lambda: again, tmp_path / "runs")
    assert ledger.entries == before
    assert again.losses == []
    assert "LSTM without attention" in write_report(tmp_path / "out").read_text()
