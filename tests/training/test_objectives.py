"""Losses and measures of every task against their definitions, written out in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch.nn import functional as F

from small_task import TASKS, parsed, write_text
from sublayer import config
from sublayer.data.batch import IGNORE
from sublayer.data.loader import validation
from sublayer.models import build_model
from sublayer.tasks.causal import likelihood
from sublayer.tasks.classification import confused, label_weights
from sublayer.tasks.confusion import Confusion, draw_confusion
from sublayer.tasks.embedding import matching_loss
from sublayer.tasks.losses import CrossEntropy, projected
from sublayer.training import task_data
from sublayer.training.progress import Lines

BATCHING = config.Batching(tokens=160)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_text(folder)
    return folder


def made(name: str, folder: Path, **over: Any) -> tuple[Any, Any, Any]:
    """TaskData, objective and a model with large random weights, in float64."""
    prepared = task_data.prepare(parsed(name, **over), folder, None, Lines(Console(quiet=True)))
    model = build_model(prepared.recipe.model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return prepared, task_data.objective(prepared), model


def batches(prepared: Any) -> list[Any]:
    return list(validation(prepared.training, BATCHING))[:4]


@pytest.mark.parametrize("name", [name for name in TASKS if name != "embedding"])
def test_cut_into_batches_a_step_has_the_same_loss_and_gradient(text: Path, name: str) -> None:
    """Whatever rows share a batch, however they are padded: the sum over rows alone, by the targets of all."""
    prepared, objective, model = made(name, text)
    several = batches(prepared)
    total = sum(batch.targets for batch in several)
    for batch in several:
        objective.loss(model, batch, total).backward()
    together = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    fixed = prepared.training.fixed()
    for batch in several:
        for row in batch.rows:
            objective.loss(model, fixed.collate(np.array([row])), total).backward()
    # As one: rounding grows with the size of the gradient, which for some parameters (a bias before a softmax) is 0.
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert ((parameter.grad - together[key]).norm() / whole).item() < 1e-9, key


def explicit(logits: torch.Tensor, target: torch.Tensor, smoothing: float) -> float:
    """Label smoothing as the paper has it: a part of the target's weight on all."""
    flat, wanted = logits.flatten(0, -2).double(), target.flatten()
    asked = wanted != IGNORE
    logp = flat[asked].log_softmax(dim=-1)
    chosen = logp.gather(1, wanted[asked].unsqueeze(1)).squeeze(1)
    return -((1 - smoothing) * chosen + smoothing * logp.mean(dim=-1)).sum().item()


@pytest.mark.parametrize("name", ["causal", "instructions", "masked", "tagging"])
def test_the_loss_of_tokens(text: Path, name: str) -> None:
    prepared, objective, model = made(name, text, training={"label_smoothing": 0.2})
    for batch in batches(prepared):
        with torch.no_grad():
            if name in ("masked", "tagging"):
                logits = model(batch.tokens, batch.lengths)
            else:
                logits = model(batch.tokens, None, batch.segments)
        expected = explicit(logits, batch.target, 0.2) / 7
        assert objective.loss(model, batch, 7).item() == pytest.approx(expected, rel=1e-5)


def test_a_bent_projection_is_not_taken_for_a_straight_one(text: Path) -> None:
    prepared, objective, model = made("causal", text, model={"logit_softcap": 2.0})
    batch = batches(prepared)[0]
    with torch.no_grad():
        logits = model(batch.tokens, None, batch.segments)
    assert logits.abs().max() < 2.0
    expected = explicit(logits, batch.target, prepared.recipe.training.label_smoothing)
    assert objective.loss(model, batch, 1).item() == pytest.approx(expected, rel=1e-9)
    hidden = model.hidden(batch.tokens, None, batch.segments)
    straight = CrossEntropy(0.1)(model.output, hidden, batch.target, 1)
    bent = projected(model, CrossEntropy(0.1), hidden, batch.target, 1)
    assert abs(straight.item() - bent.item()) > 0.01 * bent.item()


# --- perplexity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "stride"), [(9, 9), (9, 4), (9, 1), (32, None)])
def test_each_token_is_predicted_once_with_the_context_of_a_sliding_window(
    text: Path, length: int, stride: int | None
) -> None:
    """By brute force: documents one by one, a window at a time, without packing."""
    over: dict[str, Any] = {
        "data": {"max_length": length, "source": {"type": "text", "path": "text.txt", "document": "blank-lines"}},
        "task": {"stride": length, **({} if stride is None else {"evaluation_stride": stride})},
        "model": {"max_length": 32},
    }
    prepared, objective, model = made("causal", text, **over)
    tokenizer = prepared.tokenizer
    nats, tokens, words = 0.0, 0, 0
    for document in prepared.splits.validation:
        ids = [tokenizer.start_id, *tokenizer.encode([document.text])[0], tokenizer.end_id]
        words += sum(len(line.split()) + 1 for line in document.text.split("\n"))
        done = 1
        while done < len(ids):
            # The window ends `stride` further than the one before, but the first is full.
            end = min(len(ids), 1 + length if done == 1 else done + (stride or length))
            begin = max(0, end - 1 - length) if end < len(ids) else max(0, done - 1 - (length - (stride or length)))
            with torch.no_grad():
                logp = model(torch.tensor([ids[begin : end - 1]]))[0].log_softmax(dim=-1)
            for place in range(done, end):
                nats -= logp[place - 1 - begin, ids[place]].item()
                tokens += 1
            done = end
    found = likelihood(model, prepared.validation, BATCHING)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(nats, rel=1e-9)
    measured = objective.evaluate(model)
    assert measured["loss"] == pytest.approx(nats / tokens, rel=1e-9)
    assert measured["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-9)
    assert measured["word_perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-9)


def test_what_a_masked_model_finds(text: Path) -> None:
    prepared, objective, model = made("masked", text)
    right = targets = 0
    for batch in validation(prepared.validation, BATCHING):
        with torch.no_grad():
            best = model(batch.tokens, batch.lengths).argmax(dim=-1)
        for row, column in (batch.target != IGNORE).nonzero().tolist():
            targets += 1
            right += int(best[row, column] == batch.target[row, column])
    assert objective.evaluate(model)["accuracy"] == right / targets


# --- classification ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{"type": "equal"}, {"type": "balanced"}, {"type": "given", "values": [3.0, 0.5]}])
def test_the_loss_of_labels_with_their_weights(text: Path, weights: dict[str, Any]) -> None:
    over: dict[str, Any] = {"task": {"weights": weights}, "training": {"label_smoothing": 0.0}}
    if weights["type"] == "given":
        over["model"] = {"head": {"labels": ["little", "much"]}}
    prepared, objective, model = made("classification", text, **over)
    labels = [row.label for row in prepared.splits.train]
    much = labels.count("much") / len(labels)
    weight = {"equal": [1.0, 1.0], "balanced": [0.5 / (1 - much), 0.5 / much], "given": [3.0, 0.5]}[weights["type"]]
    batch = batches(prepared)[0]
    with torch.no_grad():
        logp = model(batch.tokens, batch.lengths).log_softmax(dim=-1)
    expected = -sum(weight[label] * logp[row, label].item() for row, label in enumerate(batch.target.tolist()))
    assert objective.loss(model, batch, 5).item() == pytest.approx(expected / 5, rel=1e-5)


def test_balanced_weights_count_every_label_the_same() -> None:
    found = label_weights(config.BalancedWeights(), np.array([10, 30, 0, 60]))
    assert found is not None
    assert (found.double() * torch.tensor([10, 30, 0, 60])).tolist() == pytest.approx([100 / 3, 100 / 3, 0, 100 / 3])
    assert label_weights(config.EqualWeights(), np.array([1, 2])) is None


MATRICES = st.integers(2, 5).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 9), min_size=size, max_size=size), min_size=size, max_size=size
    ).filter(lambda rows: sum(map(sum, rows)) > 0)
)


@given(rows=MATRICES)
def test_scores_are_counted_text_by_text(rows: list[list[int]]) -> None:
    pairs = [(true, found) for true, row in enumerate(rows) for found, count in enumerate(row) for _ in range(count)]
    confusion = Confusion(np.array(rows))
    assert confusion.accuracy == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    f1s: list[float] = []
    for label in range(len(rows)):
        right = sum(a == b == label for a, b in pairs)
        found, true = sum(b == label for _, b in pairs), sum(a == label for a, _ in pairs)
        precision, recall = right / found if found else 0.0, right / true if true else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert confusion.f1[label] == pytest.approx(f1)
        if found or true:
            f1s.append(f1)
    assert confusion.macro_f1 == pytest.approx(sum(f1s) / len(f1s))


def test_the_confusion_matrix_of_a_model(text: Path, tmp_path: Path) -> None:
    prepared, objective, model = made("classification", text)
    confusion, nats = confused(model, prepared.validation, BATCHING, 2)
    expected, loss = np.zeros((2, 2), dtype=int), 0.0
    for row, label in enumerate(prepared.validation.target.tolist()):
        tokens = torch.tensor([prepared.validation.tokens[row].tolist()])
        with torch.no_grad():
            logits = model(tokens)
        expected[label, int(logits.argmax())] += 1
        loss += F.cross_entropy(logits, torch.tensor([label])).item()
    assert confusion.matrix.tolist() == expected.tolist()
    assert nats == pytest.approx(loss, rel=1e-5)
    objective.plot(tmp_path)
    assert not (tmp_path / "confusion.png").exists()
    objective.evaluate(model)
    objective.plot(tmp_path)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **o: (figures.append(self), real(self, *a, **o)))
    draw_confusion(Confusion(np.array([[7, 1], [2, 30]])), ["left", "right"], tmp_path / "c.png", "a run")
    [axes] = figures[0].axes
    assert sorted(each.get_text() for each in axes.texts) == ["1", "2", "30", "7"]
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == ["left", "right"]


# --- embeddings --------------------------------------------------------------------------------------------------


def test_the_loss_of_pairs_that_must_find_each_other() -> None:
    left, right = (F.normalize(torch.randn(6, 8, dtype=torch.float64), dim=-1) for _ in range(2))
    twins = torch.zeros(6, 6, dtype=torch.bool)
    twins[0, 3] = twins[3, 0] = twins[2, 5] = True
    expected = 0.0
    for i in range(6):
        own = math.exp(5.0 * float(left[i] @ right[i]))
        all_ = sum(math.exp(5.0 * float(left[i] @ right[j])) for j in range(6) if not twins[i, j])
        expected -= math.log(own / all_)
    assert matching_loss(left, right, twins, 5.0).item() == pytest.approx(expected, rel=1e-12)


def test_recall_is_over_all_validation_texts(text: Path) -> None:
    prepared, objective, model = made("embedding", text)
    pairs = prepared.validation

    def vector(ids: Any) -> torch.Tensor:
        with torch.no_grad():
            return F.normalize(model(torch.tensor([ids.tolist()]))[0], dim=-1)

    lefts = [vector(pairs.left[row]) for row in range(len(pairs))]
    rights = [vector(pairs.right[row]) for row in range(len(pairs))]
    found = [max(range(len(rights)), key=lambda j: float(one @ rights[j])) for one in lefts]
    expected = sum(pairs.right[place].tolist() == pairs.right[best].tolist() for place, best in enumerate(found))
    assert objective.evaluate(model)["recall_at_1"] == expected / len(pairs)
