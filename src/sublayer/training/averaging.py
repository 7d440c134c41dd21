"""Averages of the weights over the training, which translate better than the last weights do (section 6.1)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.training.trainable import trainable_parameters


class Average:
    """The weights that are validated, kept and used. This base keeps none of its own: the last weights count.

    `update` is called after every optimizer step. Parameters that are tied are held once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._live = trainable_parameters(model)

    def update(self, step: int) -> None:
        """Take the weights after `step` (from 1) into account."""

    def weights(self) -> Mapping[str, Tensor]:
        """The averaged weights, by parameter name."""
        return {name: parameter.detach() for name, parameter in self._live.items()}

    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on averaging."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""

    @contextmanager
    def applied(self) -> Generator[None]:
        """Inside the block the model has the averaged weights; afterwards its own, to the bit."""
        averaged = self.weights()
        kept = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        self._assign(averaged)
        try:
            yield
        finally:
            self._assign(kept)

    def _assign(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._live.items():
                parameter.copy_(values[name])


class ExponentialMovingAverage(Average):
    """average += (1 - decay) (weights - average), with decay rising from 0 to its value as steps go by."""

    def __init__(self, model: nn.Module, c: config.Ema) -> None:
        super().__init__(model)
        self._decay = c.decay
        self._average = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        live = [parameter.detach() for parameter in self._live.values()]
        for average, weights in zip(self._average.values(), live, strict=True):
            average.lerp_(weights, 1 - decay)

    def weights(self) -> Mapping[str, Tensor]:
        return self._average

    def state(self) -> dict[str, Tensor]:
        return dict(self._average)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        for name, average in self._average.items():
            average.copy_(tensors[name])


class LastSnapshots(Average):
    """The plain mean of the last snapshots, one every so many steps; the live weights until there is one."""

    def __init__(self, model: nn.Module, c: config.LastCheckpoints) -> None:
        super().__init__(model)
        self._count, self._every = c.count, c.every
        self._snapshots: dict[int, dict[str, Tensor]] = {}

    def update(self, step: int) -> None:
        if step % self._every == 0:
            self._snapshots[step] = {name: parameter.detach().clone() for name, parameter in self._live.items()}
            for old in sorted(self._snapshots)[: -self._count]:
                del self._snapshots[old]

    def weights(self) -> Mapping[str, Tensor]:
        if not self._snapshots:
            return super().weights()
        # Summed in the order of the steps: floating-point sums depend on the order, and a resumed run must agree.
        held = [self._snapshots[step] for step in sorted(self._snapshots)]
        return {name: torch.stack([one[name] for one in held]).mean(dim=0) for name in self._live}

    def state(self) -> dict[str, Tensor]:
        return {f"{step}/{name}": t for step, one in self._snapshots.items() for name, t in one.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._snapshots = {}
        for key, tensor in tensors.items():
            step, _, name = key.partition("/")
            self._snapshots.setdefault(int(step), {})[name] = tensor.to(self._live[name].device)


def build_average(model: nn.Module, c: config.Averaging) -> Average:
    """The average that the recipe asks for."""
    match c:
        case config.NoAveraging():
            return Average(model)
        case config.Ema():
            return ExponentialMovingAverage(model, c)
        case config.LastCheckpoints():
            return LastSnapshots(model, c)
