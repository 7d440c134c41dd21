"""The law of the runner: its steps are the modules' steps."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from sublayer.generation.runner import Runner
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import TOLERANCES, Finding, evaluating, finding, relative_error
from sublayer.models import DecoderState, EncoderDecoder


@torch.no_grad()
def runner_is_modules(model: EncoderDecoder, inputs: Inputs, rows: int = 3) -> Finding:
    """A decode through the runner gives the logits of the same decode through the modules.

    One sentence alone, then a ragged batch with several hypotheses a sentence, which take one another's place, go back
    some tokens, and of which some are dropped. In float32 on a CPU, the only place where there is a runner.
    """
    model, inputs = _at_home(model, inputs)
    with evaluating(model):
        runner = Runner(model)
        errors = [*_alone(model, runner, inputs), *_together(model, runner, inputs, rows)]
        ran = "" if runner.prepare() else "; this model has no runner, its modules step"
    return finding("runner = modules", max(errors), TOLERANCES[torch.float32], f"logits of {len(errors)} steps{ran}")


def _at_home(model: EncoderDecoder, inputs: Inputs) -> tuple[EncoderDecoder, Inputs]:
    """Model and inputs where a runner runs, as a copy where they are elsewhere."""
    if model.device.type != "cpu" or model.output.weight.dtype != torch.float32:
        model = copy.deepcopy(model).cpu().float()
    here = {name: value.cpu() for name, value in vars(inputs).items() if isinstance(value, Tensor)}
    return model, replace(inputs, **here)


def _alone(model: EncoderDecoder, runner: Runner, inputs: Inputs) -> list[float]:
    size = inputs.target.shape[1]
    states = [stepper.start(inputs.source[-1:], None, capacity=size) for stepper in (model, runner)]
    return [_step(model, runner, inputs.target[-1:, at : at + 1], states) for at in range(size)]


def _together(model: EncoderDecoder, runner: Runner, inputs: Inputs, rows: int) -> list[float]:
    """Three tokens, reorder, two tokens, back by one, two tokens, keep, two tokens."""
    tokens = (inputs.target.repeat_interleave(rows, 0) + torch.arange(inputs.rows * rows).unsqueeze(1)) % (
        inputs.vocab_size
    )
    size = tokens.shape[1]
    states = [
        stepper.start(inputs.source, inputs.source_lengths, rows=rows, capacity=size) for stepper in (model, runner)
    ]
    errors: list[float] = []

    def feed(count: int) -> None:
        for _ in range(count):
            at = states[0].length
            if at < size:
                errors.append(_step(model, runner, tokens[:, at : at + 1], states))

    feed(3)
    # Some rows stay, one is copied over another.
    within = (torch.tensor([0, 2, 2]) % rows).repeat(inputs.rows, 1)[:, :rows]
    places = torch.arange(inputs.rows).unsqueeze(1) * rows + within
    for state in states:
        state.reorder(places.flatten())
    feed(2)
    for state in states:
        state.truncate(state.length - 1)
    feed(2)
    sentences = torch.arange(inputs.rows - 1, -1, -2)
    for state in states:
        state.keep(sentences)
    tokens = tokens.view(inputs.rows, rows, size)[sentences].flatten(0, 1)
    feed(2)
    return errors


def _step(model: EncoderDecoder, runner: Runner, tokens: Tensor, states: list[DecoderState]) -> float:
    expected = model.step(tokens, states[0])
    return relative_error(runner.step(tokens, states[1]), expected)
