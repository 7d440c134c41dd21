"""Regression against its definitions: the squared error, and the two correlations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from readers import encoder, word_tokenizer
from small_run import sublayer
from small_task import plain, write_task
from sublayer import config
from sublayer.config.task import RegressionTask
from sublayer.data.loader import validation
from sublayer.data.report import Report
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import Rows
from sublayer.errors import ConfigError, DataError
from sublayer.hub.folder import ModelBundle, ModelCard, load, write
from sublayer.tasks import task_of
from sublayer.tasks.regression import Estimating, pearson, ranks
from sublayer.tasks.task import Encoding

ROWS = [("the cat sat", "2.5"), ("a dog", "-1"), ("the cat sat on a mat", "0"), ("mat", "4"), ("on the mat", "4")]
HEAD = config.Classification(labels=("stars",), pooling="mean", problem="regression")
BATCHING = config.Batching(tokens=24)


def table(rows: list[tuple[str, str]]) -> Rows[Any]:
    found = [Labelled(text, label) for text, label in rows]
    return Rows(found, Report(len(found), len(found), noun="texts"), list(range(1, len(found) + 1)))


def test_loss_and_measures_are_those_of_single_texts() -> None:
    model, tokenizer = encoder(HEAD), word_tokenizer()
    examples: Any = task_of(RegressionTask()).examples(table(ROWS), Encoding(tokenizer, 12))
    with torch.no_grad():
        scores = [model(torch.tensor(tokenizer.encode_with_special_tokens([text]))).item() for text, _ in ROWS]
    numbers = [float(label) for _, label in ROWS]
    squares = [(one - other) ** 2 for one, other in zip(scores, numbers)]
    objective = Estimating(examples, config.Training(steps=1, batches=BATCHING))
    batches = list(validation(examples, BATCHING))
    assert len(batches) > 1
    loss = sum(objective.loss(model, batch, 7).item() for batch in batches)
    assert loss == pytest.approx(sum(squares) / 7, rel=1e-5)
    found = objective.evaluate(model)
    assert found["loss"] == pytest.approx(sum(squares) / len(ROWS), rel=1e-5)
    assert found["pearson"] == pytest.approx(np.corrcoef(scores, numbers)[0, 1], rel=1e-5)
    places = [[sum(b < a for b in series) + series.count(a) / 2 for a in series] for series in (scores, numbers)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*places)[0, 1], rel=1e-9)


@given(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=20))
def test_ranks_are_counted(values: list[float]) -> None:
    expected = [sum(b < a for b in values) + (values.count(a) - 1) / 2 for a in values]
    assert ranks(np.array(values)).tolist() == expected


def test_what_is_constant_goes_with_nothing() -> None:
    assert pearson(np.array([1.0, 1.0]), np.array([0.0, 3.0])) == 0.0


@pytest.mark.parametrize("label", ["five", "nan", "inf"])
def test_a_label_that_is_no_number_is_named(label: str) -> None:
    with pytest.raises(DataError, match=rf"the label '{label}' \(line 2\) is not a number"):
        task_of(RegressionTask()).examples(table([("a", "1"), ("the", label)]), Encoding(word_tokenizer(), 12))


def test_it_learns_and_says_its_number(tmp_path: Path) -> None:
    """By the commands: what a text is worth is how often a letter stands in it."""
    training = {"steps": 150, "optimizer": {"type": "adamw", "learning_rate": 1e-2}, "validate_every": 150}
    outcome = sublayer("train", write_task(tmp_path, "regression", training=training), "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    scored = sublayer("evaluate", tmp_path / "run", "--out", tmp_path / "found.jsonl")
    assert scored.code == 0, scored.err
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    correlation = np.corrcoef([float(line["label"]) for line in lines], [line["found"] for line in lines])[0, 1]
    assert f"Pearson's r     {correlation:.4f}" in scored.out
    assert correlation > 0.8
    said = sublayer("classify", tmp_path / "run", lines[0]["text"])
    assert said.out == f"score\t{lines[0]['found']:.4f}\t{lines[0]['text']}\n"
    assert "Gives a text a number: score." in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_model_from_elsewhere_that_says_numbers_is_judged_by_them(tmp_path: Path) -> None:
    write(tmp_path / "model", ModelBundle(encoder(HEAD).float(), word_tokenizer()), ModelCard("", ""))
    (tmp_path / "rows.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in ROWS))
    scored = sublayer("evaluate", tmp_path / "model", "--data", tmp_path / "rows.tsv")
    assert scored.code == 0, scored.err
    found: Any = load(tmp_path / "model")
    numbers = [one.probability for one in found.classify([text for text, _ in ROWS])]
    assert f"Pearson's r     {np.corrcoef(numbers, [float(label) for _, label in ROWS])[0, 1]:.4f}" in scored.out


def test_the_head_must_mean_a_number() -> None:
    for head in ({"problem": "single-label"}, {"labels": ["x", "y"]}):
        with pytest.raises(ConfigError, match=r"needs model\.head\.problem = 'regression', and one label at most"):
            config.Recipe.parse(plain("regression", model={"head": head}), "r")
