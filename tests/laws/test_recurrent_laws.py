"""The laws on recurrent models: all but those that speak of layers of attention, with large random weights."""

from __future__ import annotations

import pytest
import torch

from recurrent_models import PAIRS, TEXTS, build, name
from sublayer import config, laws
from sublayer.laws.model_adapter import adapt
from sublayer.models import RecurrentState

TREES = [*PAIRS, *TEXTS]
OF_LAYERS = {"each layer's window", "fixed shapes = growing"}
STEPPED = {law.name for law in laws.LAWS if law.__module__.endswith(("search", "runner"))}


@pytest.mark.parametrize("tree", TREES, ids=name)
@pytest.mark.parametrize("seed", [1, 2])
def test_laws(tree: config.Recurrent, seed: int) -> None:
    """In float64 to ten digits; those of search in float32, which is what is searched in."""
    model = build(tree, seed)
    inputs = laws.Inputs.draw(model, seed=seed)
    findings = [law(model, inputs) for law in laws.laws_of(model) if law.name not in STEPPED]
    single = model.float()
    findings += [law(single, inputs) for law in laws.laws_of(single) if law.name in STEPPED]
    assert not [finding for finding in findings if not finding.passed]
    assert len(findings) >= 14


@pytest.mark.parametrize("tree", TREES, ids=name)
def test_the_weights_would_show_an_error(tree: config.Recurrent) -> None:
    model = build(tree)
    inputs = laws.Inputs.draw(model, seed=1)
    adapter = adapt(model)
    with torch.no_grad():
        answers = adapter.answer(inputs)[adapter.real(inputs)]
    assert 0.3 < answers.abs().max() < 1e3
    assert answers.std(0).mean() > 0.1, "positions look alike"


def test_which_laws_they_are_silent_on() -> None:
    pair, text = build(PAIRS[1]), build(TEXTS[0])
    assert set(laws.not_applicable(pair)) == {"packed = separate", "left-padded = unpadded", *OF_LAYERS}
    assert set(laws.not_applicable(text)) == {"the encoder's view", "padding is unseen", *OF_LAYERS}
    assert all([*laws.not_applicable(pair).values(), *laws.not_applicable(text).values()])


def mixed(state: RecurrentState) -> torch.Tensor:
    return torch.arange(state.states[0].shape[1]).flip(0)


@pytest.mark.parametrize("tree", [PAIRS[1], PAIRS[2], TEXTS[0]], ids=name)
def test_what_is_broken_is_found(tree: config.Recurrent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is not reordered, not cut back, or of which too much is kept; lengths that nobody looks at."""
    from sublayer.nn.recurrence import Recurrence

    model = build(tree)
    inputs = laws.Inputs.draw(model, seed=1)

    def fails(name: str) -> bool:
        [law] = [law for law in laws.LAWS if law.name == name]
        return not law(model, inputs).passed

    assert not any(
        map(fails, ("reordered = recomputed", "joined = recomputed", "truncated = straight", "padding = other padding"))
    )
    with monkeypatch.context() as broken:
        broken.setattr(RecurrentState, "reorder", lambda self, rows: None)
        assert fails("reordered = recomputed")
    with monkeypatch.context() as broken:
        join = RecurrentState.join
        broken.setattr(RecurrentState, "join", lambda self, other: (join(self, other), self.reorder(mixed(self)))[0])
        assert fails("joined = recomputed")
    with monkeypatch.context() as broken:
        broken.setattr(RecurrentState, "truncate", lambda self, length: setattr(self, "_length", length))
        assert fails("truncated = straight")
    with monkeypatch.context() as broken:
        read = Recurrence.forward
        broken.setattr(Recurrence, "forward", lambda self, x, states=None, lengths=None: read(self, x, states))
        assert fails("padding = other padding")
