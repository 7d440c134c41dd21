"""The law of the runner: its steps are the modules' steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from sublayer.fast.decoding.runner import Decodes as Model
from sublayer.fast.decoding.runner import Runner
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, law
from sublayer.laws.measure import TOLERANCES, relative_error
from sublayer.laws.model_adapter import Decodes
from sublayer.models.backend import DecoderBackend

ROWS = 3


@law("runner = modules", Decodes)
def runner_is_modules(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """A decode through the runner gives the logits of the same decode through the modules.

    One sentence alone, then a batch, ragged and not, with several hypotheses a sentence, which take one another's
    place, go back some tokens, of which some are dropped, and which others join. In float32 on a CPU, the only place
    where there is a runner.
    """
    model, inputs = _at_home(adapter.model, inputs)
    runner = Runner(model)
    if not runner.prepare():
        return Discrepancy(0.0, "this model has no runner: its modules step", tolerance=TOLERANCES[torch.float32])
    even = replace(inputs, source_lengths=None)
    alone = _Both(model, runner, inputs.alone(-1)).feed(inputs.target.shape[1])
    errors = [*alone, *_together(model, runner, inputs), *_together(model, runner, even)]
    return Discrepancy(max(errors), f"logits of {len(errors)} steps", tolerance=TOLERANCES[torch.float32])


LAWS = (runner_is_modules,)


def _at_home(model: Model, inputs: Inputs) -> tuple[Model, Inputs]:
    """Model and inputs where a runner runs, as a copy where they are elsewhere."""
    if model.device.type != "cpu" or model.output.weight.dtype != torch.float32:
        model = copy.deepcopy(model).cpu().float()
    here = {name: value.cpu() for name, value in vars(inputs).items() if isinstance(value, Tensor)}
    return model, replace(inputs, **here)


class _Both:
    """A decode by both ways at once: one state each, which must stay alike."""

    def __init__(self, model: Model, runner: Runner, inputs: Inputs, rows: int = 1) -> None:
        self.backends: tuple[DecoderBackend[Any], ...] = (cast("DecoderBackend[Any]", model), runner)
        self.states = [
            one.start(inputs.source, inputs.source_lengths, num_beams=rows, capacity=inputs.target.shape[1])
            for one in self.backends
        ]
        self.tokens = (inputs.target.repeat_interleave(rows, 0) + torch.arange(inputs.rows * rows).unsqueeze(1)) % (
            inputs.vocab_size
        )
        self.done = 0

    def feed(self, count: int) -> Iterator[float]:
        """How far apart the logits of each of the next tokens are, as long as there are any."""
        for at in range(self.done, min(self.done + count, self.tokens.shape[1])):
            self.done = at + 1
            expected, found = (
                one.step(self.tokens[:, at : at + 1], state)
                for one, state in zip(self.backends, self.states, strict=True)
            )
            yield relative_error(found, expected)

    def reorder(self, rows: Tensor) -> None:
        for state in self.states:
            state.reorder(rows)

    def back(self, count: int) -> None:
        count = min(count, self.done)
        self.done -= count
        for state in self.states:
            state.truncate(state.length - count)

    def keep(self, sentences: Tensor, rows: int) -> None:
        for state in self.states:
            state.keep(sentences)
        self.tokens = self.tokens[(sentences.unsqueeze(1) * rows + torch.arange(rows)).flatten()]

    def join(self, other: _Both) -> None:
        for state, more in zip(self.states, other.states, strict=True):
            state.join(more)
        mine, theirs = self.tokens[:, self.done :], other.tokens[:, other.done :]
        width = min(mine.shape[1], theirs.shape[1])
        self.tokens, self.done = torch.cat((mine[:, :width], theirs[:, :width])), 0


def _together(model: Model, runner: Runner, inputs: Inputs) -> Iterator[float]:
    """Three tokens, reorder, two tokens, back by one, two tokens, keep, a token, others join, two tokens."""
    both = _Both(model, runner, inputs, ROWS)
    yield from both.feed(3)
    # Some rows stay, one is copied over another.
    both.reorder((torch.arange(inputs.rows).unsqueeze(1) * ROWS + torch.tensor([0, 2, 2])).flatten())
    yield from both.feed(2)
    both.back(1)
    yield from both.feed(2)
    both.keep(torch.arange(inputs.rows - 1, -1, -2), ROWS)
    yield from both.feed(1)
    later = _Both(model, runner, inputs, ROWS)
    yield from later.feed(2)
    both.join(later)
    yield from both.feed(2)
