"""The texts of part 2 have the answers that they are said to have, and what is measured of models is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sublayer import config
from sublayer.compare import recall
from sublayer.compare.contenders import recurrent_lm, transformer_lm
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Rates, Recall
from sublayer.compare.recall import COPIED, KEYS, MARK, QUESTIONS, VOCABULARY, Task, draw, reach
from sublayer.data.batch import IGNORE
from sublayer.models import build_model
from telling import Told

SMALL = Recall(
    distances=(4, 16),
    steps=12,
    rows=4,
    dim=16,
    layers=2,
    rates=Rates((1e-3, 3e-3), (3e-3,)),
    tested=8,
    contenders=("transformer", "lstm"),
)


def solved(task: Task, tokens: list[int], at: int) -> int:
    """What is to be said at a place of a text, read off the text as a person would."""
    if task == "copy":
        return tokens[at - tokens.index(MARK)]
    pairs = dict(zip(tokens[: 2 * KEYS : 2], tokens[1 : 2 * KEYS : 2], strict=True))
    return pairs[tokens[at]]


@given(task=st.sampled_from(recall.TASKS), distance=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_every_answer_stands_in_the_text(task: Task, distance: int, seed: int) -> None:
    texts = draw(task, 3, distance, torch.Generator().manual_seed(seed))
    assert texts.tokens.shape == texts.target.shape
    assert int(texts.tokens.max()) < VOCABULARY
    for tokens, target in zip(texts.tokens.tolist(), texts.target.tolist(), strict=True):
        asked = [place for place, wanted in enumerate(target) if wanted != IGNORE]
        assert len(asked) == (COPIED if task == "copy" else QUESTIONS)
        assert [target[place] for place in asked] == [solved(task, tokens, place) for place in asked]


@pytest.mark.parametrize("task", recall.TASKS)
def test_the_distance_is_the_noise_between(task: Task) -> None:
    near, far = (draw(task, 2, distance, torch.Generator().manual_seed(1)) for distance in (3, 30))
    assert far.tokens.shape[1] - near.tokens.shape[1] == 27
    said = COPIED if task == "copy" else 2 * KEYS
    assert bool((far.tokens[:, said : said + 30] >= recall._NOISE).all())
    assert not bool((far.tokens[:, said : said + 30] == MARK).any())


class Knowing(nn.Module):
    """Says what is right, or one more than that for every second answer."""

    def __init__(self, task: Task, wrong: bool) -> None:
        super().__init__()
        self.task, self.wrong, self.asked = task, wrong, 0

    def hidden(self, tokens: Tensor) -> Tensor:
        found = torch.zeros(*tokens.shape, VOCABULARY)
        for row, text in enumerate(tokens.tolist()):
            for place in range(len(text)):
                try:
                    answer = solved(self.task, text, place)
                except (KeyError, IndexError, ValueError):
                    continue
                self.asked += 1
                found[row, place, (answer + (self.wrong and self.asked % 2)) % VOCABULARY] = 1.0
        return found

    def project(self, hidden: Tensor) -> Tensor:
        return hidden


@pytest.mark.parametrize("task", recall.TASKS)
def test_accuracy_is_the_part_that_is_right(task: Task) -> None:
    def accuracy(model: nn.Module) -> float:
        return recall._accuracy(model, SMALL, task, 16, torch.device("cpu"))

    assert accuracy(Knowing(task, wrong=False)) == 1.0
    assert 0.0 < accuracy(Knowing(task, wrong=True)) < 1.0


def test_distances_grow_from_near_to_far_and_stay_in_bounds() -> None:
    c = Recall(distances=(8, 512), steps=1000)
    random = torch.Generator().manual_seed(0)
    found = [recall._distance(c, step, random) for step in range(1, 1001)]
    assert min(found) >= 8
    assert max(found) <= 512
    assert max(found[:50]) < 16
    # Evenly on a logarithmic scale: half of the later ones lie below the geometric mean, 64.
    assert 0.4 < sum(distance < 64 for distance in found[500:]) / 500 < 0.6


@pytest.mark.parametrize(("window", "layers"), [(2, 1), (3, 2)])
def test_no_gradient_comes_from_beyond_a_models_reach(window: int, layers: int) -> None:
    """Each layer of windowed attention reaches `window` - 1 tokens back, and not one further."""
    tree = transformer_lm(16, layers, VOCABULARY, 64)
    attention = tree.decoder.block.attention.model_copy(update={"window": window})
    block = tree.decoder.block.model_copy(update={"attention": attention})
    tree = tree.model_copy(update={"decoder": tree.decoder.model_copy(update={"block": block})})
    torch.manual_seed(0)
    found = reach(build_model(tree), SMALL, torch.device("cpu"))
    farthest = (window - 1) * layers
    for n, norm in found.items():
        assert (norm > 1e-9) == (int(n) <= farthest), (n, norm)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    model: Any = build_model(recurrent_lm("gru", transformer_lm(16, 1, VOCABULARY, 64))).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    found = reach(model, SMALL, torch.device("cpu"), rows=1)
    random = torch.Generator().manual_seed(3)
    size = max(SMALL.distances) + 1
    tokens = torch.randint(VOCABULARY, (1, size), generator=random)
    wanted = torch.randint(VOCABULARY, (1,), generator=random)

    def loss(moved: Tensor) -> Tensor:
        hook = model.decoder.embedding.register_forward_hook(lambda module, inputs, value: value + moved)
        try:
            return nn.functional.cross_entropy(model.project(model.hidden(tokens)[:, -1]), wanted)
        finally:
            hook.remove()

    width = model.config.dim

    @torch.no_grad()
    def norm(n: int) -> float:
        slopes: list[float] = []
        for dimension in range(width):
            moved = torch.zeros(1, size, width, dtype=torch.float64)
            moved[0, size - 1 - n, dimension] = 1e-5
            slopes.append(float(loss(moved) - loss(-moved)) / 2e-5)
        return float(torch.tensor(slopes, dtype=torch.float64).norm())

    for n in (1, 4, 16):
        assert found[str(n)] == pytest.approx(norm(n) / norm(0), rel=1e-4)


def test_what_is_in_the_ledger_is_not_measured_again(tmp_path: Path) -> None:
    told = Told()
    ledger = Ledger(tmp_path / "recall.json", {})
    recall.measure(SMALL, ledger, torch.device("cpu"), lambda: told)
    assert set(ledger.entries) == {
        f"{task}/{name}" for task in recall.TASKS for name in ("transformer/0.001", "transformer/0.003", "lstm/0.003")
    }
    one = ledger["recall/lstm/0.003"]
    assert set(one["accuracy"]) == {"4", "16"}
    assert one["path"] == {"4": 4, "16": 16}
    assert len(told.losses) == 6 * SMALL.steps
    again = Told()
    recall.measure(SMALL, Ledger(tmp_path / "recall.json", {}), torch.device("cpu"), lambda: again)
    assert again.losses == []


@pytest.mark.slow
def test_two_layers_of_attention_learn_to_recall_and_one_does_not() -> None:
    """At a distance at which both are quickly trained; see the module's docstring for why."""
    c = Recall(
        distances=(4, 8),
        steps=600,
        rows=32,
        rates=Rates((3e-3,), (3e-3,)),
        tested=64,
        contenders=("transformer", "transformer-1"),
    )
    accuracy = {
        name: recall._trained(c, "recall", tree, 3e-3, torch.device("cpu"), Told())["accuracy"]["8"]
        for name, tree in recall.contenders(c).items()
    }
    assert accuracy["transformer"] > 0.9
    assert accuracy["transformer-1"] < 0.75


def test_settings_have_the_rates_of_both_kinds() -> None:
    rates = Rates((1.0,), (2.0,))
    assert [rates.of(name) for name in ("transformer", "transformer-1", "lstm-plain", "rnn")] == [
        (1.0,),
        (1.0,),
        (2.0,),
        (2.0,),
    ]
    assert isinstance(recall.contenders(SMALL)["lstm"], config.RecurrentDecoderOnly)
