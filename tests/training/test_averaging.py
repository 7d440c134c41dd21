"""Averages of the weights, by hand, and that trying them on leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sublayer import config
from sublayer.training.averaging import Average, build_average


class Tied(nn.Module):
    """Two parameters, one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 2, bias=False)
        self.vector = nn.Parameter(torch.randn(4))
        self.other = nn.Linear(3, 2, bias=False)
        self.other.weight = self.one.weight


def moved(model: nn.Module, steps: int, average: Average) -> list[dict[str, torch.Tensor]]:
    """Random walks of the weights; what they were after each step."""
    history: list[dict[str, torch.Tensor]] = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(step)
        history.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    return history


def test_the_moving_average_is_its_formula() -> None:
    model = Tied()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    average = build_average(model, config.Ema(decay=0.6))
    history = moved(model, 12, average)
    for name, expected in start.items():
        for step, weights in enumerate(history, start=1):
            decay = min(0.6, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weights[name]
        torch.testing.assert_close(average.weights()[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("steps", "taken"), [(2, [2]), (4, [3]), (9, [6, 9]), (11, [6, 9]), (13, [9, 12])])
def test_the_mean_of_the_last_snapshots(steps: int, taken: list[int]) -> None:
    model = Tied()
    average = build_average(model, config.LastCheckpoints(count=2, every=3))
    history = moved(model, steps, average)
    for name, found in average.weights().items():
        expected = torch.stack([history[step - 1][name] for step in taken]).mean(dim=0)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_no_averaging_means_the_last_weights() -> None:
    model = Tied()
    average = build_average(model, config.NoAveraging())
    [*_, last] = moved(model, 3, average)
    assert all(torch.equal(found, last[name]) for name, found in average.weights().items())
    assert average.state() == {}


KINDS = [config.NoAveraging(), config.Ema(decay=0.6), config.LastCheckpoints(count=2, every=2)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
@pytest.mark.parametrize("failing", [False, True])
def test_applied_inside_and_the_models_own_afterwards_to_the_bit(kind: config.Averaging, failing: bool) -> None:
    model = Tied()
    average = build_average(model, kind)
    before = moved(model, 5, average)[-1]
    wanted = {name: tensor.clone() for name, tensor in average.weights().items()}

    def inside() -> None:
        with average.applied():
            assert all(torch.equal(p, wanted[name]) for name, p in model.named_parameters())
            assert model.one.weight is model.other.weight
            if failing:
                raise KeyboardInterrupt

    run: Callable[[], None] = inside
    if failing:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        run()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in average.weights().items())
    if kind.type != "none":
        assert not all(torch.equal(wanted[name], before[name]) for name in wanted)


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.type)
def test_state_put_back_goes_on_to_the_bit(kind: config.Averaging) -> None:
    model = Tied()
    first = build_average(model, kind)
    moved(model, 5, first)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = build_average(model, kind)
    second.load_state(state)
    with torch.no_grad():
        model.vector.add_(1.0)
    for step in (6, 7, 8):
        first.update(step)
        second.update(step)
    assert all(torch.equal(tensor, second.weights()[name]) for name, tensor in first.weights().items())
