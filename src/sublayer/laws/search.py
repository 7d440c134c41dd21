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

from sublayer.fast.decoding.runner import runner_for
from sublayer.generation.beam import beam_search
from sublayer.generation.constraints import NoRepeatNGram
from sublayer.generation.greedy import greedy
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, allowed, law
from sublayer.laws.measure import tolerance
from sublayer.laws.model_adapter import Decodes, ModelAdapter
from sublayer.models import DecoderState
from sublayer.models.backend import DecoderBackend
from sublayer.models.batching import padded

Results = list[list[Hypothesis]]
Tie = Callable[[Hypothesis, Hypothesis, float], bool]
BEAM = 4


@law("batched greedy = single greedy", Decodes)
def batched_greedy_is_single(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Greedy search on a ragged batch, whose texts end at different times, says token for token what it says alone.

    Where rounding alone decides between two tokens, and there only, either will do; the finding then speaks of a tie.
    No token twice, where the vocabulary allows it: many a model falls into saying one for ever, whatever it is given.
    """
    adapter = _exact(adapter)
    backend = runner_for(adapter.model)
    constraints = [NoRepeatNGram(1)] if inputs.vocab_size > inputs.target.shape[1] + 1 else []

    def search(inputs: Inputs, request: DecodeRequest) -> Results:
        return greedy(backend, inputs.source, inputs.source_lengths, request, constraints=constraints)

    request = _request(inputs, search)
    alone = [found for row in range(inputs.rows) for found in search(inputs.alone(row), request.of(row))]
    return _same(adapter, inputs, search(inputs, request), alone, _at_the_first_difference)


@law("beam of one = greedy", Decodes)
def beam_of_one_is_greedy(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Beam search with one hypothesis finds what greedy search finds."""
    adapter = _exact(adapter)
    backend = runner_for(adapter.model)
    request = _request(inputs, partial(_greedy, backend))
    one = beam_search(backend, inputs.source, inputs.source_lengths, request, beam=1, length_penalty=0.0)
    return _same(adapter, inputs, one, _greedy(backend, inputs, request), _at_the_first_difference)


@law("batched beam = single beam", Decodes)
def batched_beam_is_single(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Beam search on a ragged batch, whose texts end at different times, finds what it finds on each alone."""
    adapter = _exact(adapter)
    backend = runner_for(adapter.model)
    request = _request(inputs, partial(_greedy, backend))
    batch = _beams(backend, inputs, request)
    alone = [found for row in range(inputs.rows) for found in _beams(backend, inputs.alone(row), request.of(row))]
    return _same(adapter, inputs, batch, alone, _in_all)


@law("found = scored", Decodes)
def found_is_scored(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """The log-probability that beam search reports is what one forward pass gives for those tokens, and so is the score
    by which it chose them."""
    adapter = _exact(adapter)
    backend = runner_for(adapter.model)
    request = _request(inputs, partial(_greedy, backend))
    found = _beams(backend, inputs, request)
    error = 0.0
    for row, hypotheses in enumerate(found):
        outs = [hypothesis.tokens + [*request.end_ids] * hypothesis.complete for hypothesis in hypotheses]
        target, _ = padded([[request.first[row], *out[:-1]] for out in outs], 0, inputs.target.device)
        logits = adapter.answer(replace(inputs.alone(row).repeated(len(outs)), target=target))
        for hypothesis, out, logs in zip(hypotheses, outs, logits.double().log_softmax(-1), strict=True):
            total = logs[torch.arange(len(out)), torch.tensor(out)].sum().item()
            for claimed in (hypothesis.log_probability, hypothesis.score * len(out)):
                error = max(error, abs(claimed - total) / len(out) / _size(logits))
    return Discrepancy(error, f"log-probabilities of {sum(map(len, found))} hypotheses", tolerance=_coarse(adapter))


LAWS = (batched_greedy_is_single, beam_of_one_is_greedy, batched_beam_is_single, found_is_scored)


def _greedy(backend: DecoderBackend[DecoderState], inputs: Inputs, request: DecodeRequest) -> Results:
    return greedy(backend, inputs.source, inputs.source_lengths, request)


def _beams(backend: DecoderBackend[DecoderState], inputs: Inputs, request: DecodeRequest) -> Results:
    return beam_search(backend, inputs.source, inputs.source_lengths, request, beam=BEAM, length_penalty=1.0)


def _exact(adapter: Decodes) -> Decodes:
    """The model in float32 at least: in half precision tokens tie, and either of them is right."""
    half = next(adapter.model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return replace(adapter, model=copy.deepcopy(adapter.model).float()) if half else adapter


def _coarse(adapter: ModelAdapter) -> float:
    """Search adds up log-probabilities in float32, whatever the model computes in."""
    return max(tolerance(adapter.model), 1e-5)


def _request(inputs: Inputs, search: Callable[[Inputs, DecodeRequest], Results]) -> DecodeRequest:
    """Ragged limits, and as the end a token that comes up: the law holds for any, and shows more where some end early.

    Which token is the model's own end is not asked, because an untrained model may never say it.

    Args:
        search: greedy or beam search.
    """
    size = inputs.target.shape[1]
    # The first end first, so that those that stay move up in the batch.
    steps = [max(1, size - row) for row in reversed(range(inputs.rows))]
    endless = DecodeRequest(first=[0] * inputs.rows, end_ids=frozenset(), steps=steps)
    found = search(inputs.alone(0), endless.of(0))[0][0].tokens
    return replace(endless, end_ids=frozenset({found[len(found) // 2]}))


def _same(adapter: Decodes, inputs: Inputs, found: Results, expected: Results, tie: Tie) -> Discrepancy:
    """Equal tokens, and log-probabilities that agree.

    Other tokens of the same probability are a tie, of which either may come first.

    Args:
        tie: whether two texts differ by no more than so many nats a token.
    """
    pairs = [(a, b) for left, right in zip(found, expected, strict=True) for a, b in zip(left, right, strict=False)]
    other = [(a, b) for a, b in pairs if (a.tokens, a.complete) != (b.tokens, b.complete)]
    size = _size(adapter.answer(inputs))
    nats = allowed(adapter, inputs, _coarse(adapter)) * size if other else 0.0
    ties = sum(tie(a, b, nats) for a, b in other)
    different = sum(len(left) != len(right) for left, right in zip(found, expected, strict=True)) + len(other) - ties
    gaps = [abs(a.log_probability - b.log_probability) / _length(a) for a, b in pairs if (a, b) not in other]
    return Discrepancy(
        max(gaps, default=0.0) / size,
        f"tokens of {len(pairs)} texts" + (f", {ties} of them up to a tie" if ties else ""),
        f"{different} of {len(pairs)} texts differ" if different else "",
        tolerance=_coarse(adapter),
    )


def _at_the_first_difference(a: Hypothesis, b: Hypothesis, nats: float) -> bool:
    """Up to where the two part, they are one text: there, and there only, the two tokens are comparable."""
    at = next((at for at, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y), None)
    at = min(len(a.tokens), len(b.tokens)) if at is None else at
    here = [one.log_probabilities[at] for one in (a, b) if at < len(one.log_probabilities)]
    return len(here) == 2 and abs(here[0] - here[1]) <= nats


def _in_all(a: Hypothesis, b: Hypothesis, nats: float) -> bool:
    """Two texts of the same probability, which a model without positions has many of (all permutations); that they do
    have it is what `found_is_scored` says."""
    return abs(a.log_probability - b.log_probability) <= nats * max(_length(a), _length(b))


def _length(hypothesis: Hypothesis) -> int:
    return len(hypothesis.tokens) + hypothesis.complete


def _size(logits: Tensor) -> float:
    """What log-probabilities are measured in: rounding moves them as far as it moves the largest logit."""
    return max(1.0, logits.abs().max().item())
