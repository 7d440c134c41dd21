"""Laws of search: the same texts by other ways.

Searched is as `Translator` and `Generator` do: through a `Runner`, where one can step for the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sublayer.generation.batching import padded
from sublayer.generation.beam import beam_search
from sublayer.generation.constraints import NoRepeatNGram
from sublayer.generation.greedy import greedy
from sublayer.generation.runner import runner_for
from sublayer.generation.step import Hypothesis, Limits, Stepper
from sublayer.laws.feeding import Decodes, Feeding
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Apart, law
from sublayer.laws.measure import relative_error, tolerance
from sublayer.models import DecoderState

Results = list[list[Hypothesis]]
BEAM = 4


@law("batched greedy = single greedy", Decodes)
def batched_greedy_is_single(fed: Decodes, inputs: Inputs) -> Apart:
    """Greedy search on a ragged batch, whose texts end at different times, says token for token what it says alone.

    No token twice, where the vocabulary allows it: many a model falls into saying one for ever, whatever it is given.
    """
    fed = _exact(fed)
    stepper = runner_for(fed.model)
    constraints = [NoRepeatNGram(1)] if inputs.vocab_size > inputs.target.shape[1] + 1 else []

    def say(inputs: Inputs, limits: Limits) -> Results:
        return greedy(stepper, inputs.source, inputs.source_lengths, limits, constraints=constraints)

    limits = _limits(inputs, say)
    alone = [found for row in range(inputs.rows) for found in say(inputs.alone(row), limits.of(row))]
    return _same(fed, say(inputs, limits), alone, ties=False)


@law("beam of one = greedy", Decodes)
def beam_of_one_is_greedy(fed: Decodes, inputs: Inputs) -> Apart:
    """Beam search with one hypothesis finds what greedy search finds."""
    fed = _exact(fed)
    stepper = runner_for(fed.model)
    limits = _limits(inputs, partial(_greedy, stepper))
    one = beam_search(stepper, inputs.source, inputs.source_lengths, limits, beam=1, length_penalty=0.0)
    return _same(fed, one, _greedy(stepper, inputs, limits))


@law("batched beam = single beam", Decodes)
def batched_beam_is_single(fed: Decodes, inputs: Inputs) -> Apart:
    """Beam search on a ragged batch, whose texts end at different times, finds what it finds on each alone."""
    fed = _exact(fed)
    stepper = runner_for(fed.model)
    limits = _limits(inputs, partial(_greedy, stepper))
    batch = _beams(stepper, inputs, limits)
    alone = [found for row in range(inputs.rows) for found in _beams(stepper, inputs.alone(row), limits.of(row))]
    return _same(fed, batch, alone)


@law("found = scored", Decodes)
def found_is_scored(fed: Decodes, inputs: Inputs) -> Apart:
    """The log-probability that beam search reports is what one forward pass gives for those tokens, and so is the score
    by which it chose them."""
    fed = _exact(fed)
    stepper = runner_for(fed.model)
    limits = _limits(inputs, partial(_greedy, stepper))
    found = _beams(stepper, inputs, limits)
    error = 0.0
    for row, hypotheses in enumerate(found):
        outs = [hypothesis.tokens + [*limits.end_ids] * hypothesis.complete for hypothesis in hypotheses]
        target, _ = padded([[limits.first[row], *out[:-1]] for out in outs], 0, inputs.target.device)
        logits = fed.answer(replace(inputs.alone(row).repeated(len(outs)), target=target))
        for hypothesis, out, logs in zip(hypotheses, outs, logits.double().log_softmax(-1), strict=True):
            total = logs[torch.arange(len(out)), torch.tensor(out)].sum().item()
            # In units of the sum, or of 1 nat where the model is sure: the search adds up in float32.
            for claimed in (hypothesis.log_probability, hypothesis.score * len(out)):
                error = max(error, abs(claimed - total) / max(1.0, abs(total)))
    return Apart(error, f"log-probabilities of {sum(map(len, found))} hypotheses", tolerance=_coarse(fed))


def _greedy(stepper: Stepper[DecoderState], inputs: Inputs, limits: Limits) -> Results:
    return greedy(stepper, inputs.source, inputs.source_lengths, limits)


def _beams(stepper: Stepper[DecoderState], inputs: Inputs, limits: Limits) -> Results:
    return beam_search(stepper, inputs.source, inputs.source_lengths, limits, beam=BEAM, length_penalty=1.0)


def _exact(fed: Decodes) -> Decodes:
    """The model in float32 at least: in half precision tokens tie, and either of them is right."""
    half = next(fed.model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return replace(fed, model=copy.deepcopy(fed.model).float()) if half else fed


def _coarse(fed: Feeding) -> float:
    """Search adds up log-probabilities in float32, whatever the model computes in."""
    return max(tolerance(fed.model), 1e-5)


def _limits(inputs: Inputs, say: Callable[[Inputs, Limits], Results]) -> Limits:
    """Ragged limits, and as the end a token that comes up: the law holds for any, and shows more where some end early.

    Which token is the model's own end is not asked, because an untrained model may never say it.

    Args:
        say: a search.
    """
    size = inputs.target.shape[1]
    # The first end first, so that those that stay move up in the batch.
    steps = [max(1, size - row) for row in reversed(range(inputs.rows))]
    endless = Limits(first=[0] * inputs.rows, end_ids=frozenset(), steps=steps)
    said = say(inputs.alone(0), endless.of(0))[0][0].tokens
    return replace(endless, end_ids=frozenset({said[len(said) // 2]}))


def _same(fed: Decodes, found: Results, expected: Results, *, ties: bool = True) -> Apart:
    """Equal tokens, and log-probabilities that agree.

    Args:
        ties: let other tokens of the same probability pass: of a tie either may come first (a model without positions
            has many: all permutations); that they do have this probability is what `found_is_scored` says.
    """
    pairs = [(a, b) for left, right in zip(found, expected, strict=True) for a, b in zip(left, right, strict=False)]
    different = sum(len(left) != len(right) for left, right in zip(found, expected, strict=True))
    different += sum((a.tokens, a.complete) != (b.tokens, b.complete) and not (ties and _tie(a, b)) for a, b in pairs)
    error = relative_error(_log_probabilities([a for a, _ in pairs]), _log_probabilities([b for _, b in pairs]))
    fault = f"{different} of {len(pairs)} texts differ" if different else ""
    return Apart(error, f"tokens of {len(pairs)} texts", fault, tolerance=_coarse(fed))


def _tie(a: Hypothesis, b: Hypothesis) -> bool:
    return abs(a.log_probability - b.log_probability) <= 1e-6 * abs(b.log_probability)


def _log_probabilities(hypotheses: list[Hypothesis]) -> Tensor:
    return torch.tensor([hypothesis.log_probability for hypothesis in hypotheses], dtype=torch.float64)
