"""Laws of search: the same translations by other ways.

Searched is as `Translator` does: through a `Runner`, where one can step for the model.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.runner import runner_for
from sublayer.generation.step import Hypothesis, Limits
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import Finding, evaluating, finding, relative_error, tolerance
from sublayer.models import EncoderDecoder

Results = list[list[Hypothesis]]


@torch.no_grad()
def beam_of_one_is_greedy(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Beam search with one hypothesis finds what greedy search finds."""
    model = _exact(model)
    with evaluating(model):
        limits = _limits(model, inputs)
        stepper = runner_for(model)
        one = beam_search(stepper, inputs.source, inputs.source_lengths, limits, beam=1, length_penalty=0.0)
        plain = greedy(stepper, inputs.source, inputs.source_lengths, limits)
    return _same("beam of one = greedy", model, one, plain)


@torch.no_grad()
def batched_beam_is_single(model: EncoderDecoder, inputs: Inputs, beam: int = 4) -> Finding:
    """Beam search on a ragged batch, whose sentences end at different times, finds what it finds on each alone."""
    model = _exact(model)
    with evaluating(model):
        limits = _limits(model, inputs)
        stepper = runner_for(model)
        batch = beam_search(stepper, inputs.source, inputs.source_lengths, limits, beam=beam, length_penalty=1.0)
        alone: Results = []
        for row in range(inputs.rows):
            source = inputs.source[row : row + 1, : int(inputs.source_lengths[row])]
            alone += beam_search(stepper, source, None, limits.of(row), beam=beam, length_penalty=1.0)
    return _same("batched beam = single beam", model, batch, alone)


@torch.no_grad()
def found_is_scored(model: EncoderDecoder, inputs: Inputs, beam: int = 4) -> Finding:
    """The log-probability that beam search reports is what one forward pass gives for those tokens, and so is the score
    by which it chose them."""
    model = _exact(model)
    with evaluating(model):
        limits = _limits(model, inputs)
        found = beam_search(
            runner_for(model), inputs.source, inputs.source_lengths, limits, beam=beam, length_penalty=1.0
        )
        error = 0.0
        for row, hypotheses in enumerate(found):
            source = inputs.source[row : row + 1, : int(inputs.source_lengths[row])]
            for hypothesis in hypotheses:
                out = hypothesis.tokens + [*limits.end_ids] * hypothesis.complete
                fed = torch.tensor([[limits.first[row], *out[:-1]]], device=model.device)
                logs = model(source, None, fed)[0].double().log_softmax(-1)
                total = logs[torch.arange(len(out)), torch.tensor(out)].sum()
                # In units of the sum, or of 1 nat where the model is sure: the search adds up in float32.
                for claimed in (hypothesis.log_probability, hypothesis.score * len(out)):
                    error = max(error, abs(claimed - total.item()) / max(1.0, abs(total.item())))
    return finding("found = scored", error, _coarse(model), f"log-probabilities of {sum(map(len, found))} hypotheses")


def _exact(model: EncoderDecoder) -> EncoderDecoder:
    """The model in float32 at least: in half precision tokens tie, and either of them is right."""
    half = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return copy.deepcopy(model).float() if half else model


def _coarse(model: EncoderDecoder) -> float:
    """Search adds up log-probabilities in float32, whatever the model computes in."""
    return max(tolerance(model), 1e-5)


def _limits(model: EncoderDecoder, inputs: Inputs) -> Limits:
    """Ragged limits, and as the end a token that comes up: the law holds for any, and shows more where some end early.

    Which token is the model's own end is not asked, because an untrained model may never say it.
    """
    size = inputs.target.shape[1]
    steps = [max(1, size - row) for row in range(inputs.rows)]
    endless = Limits(first=[0] * inputs.rows, end_ids=frozenset(), steps=steps)
    said = greedy(model, inputs.source, inputs.source_lengths, endless)[0][0].tokens
    return replace(endless, end_ids=frozenset({said[len(said) // 2]}))


def _same(law: str, model: EncoderDecoder, found: Results, expected: Results) -> Finding:
    """Equal tokens, and log-probabilities that agree.

    Other tokens of the same probability are a tie, of which either may come first (a model without positions has many:
    all permutations); that they do have this probability is what `found_is_scored` says.
    """
    pairs = [(a, b) for left, right in zip(found, expected, strict=True) for a, b in zip(left, right, strict=False)]
    different = sum(len(left) != len(right) for left, right in zip(found, expected, strict=True))
    different += sum((a.tokens, a.complete) != (b.tokens, b.complete) and not _tie(a, b) for a, b in pairs)
    error = relative_error(_log_probabilities([a for a, _ in pairs]), _log_probabilities([b for _, b in pairs]))
    fault = f"{different} of {len(pairs)} translations differ" if different else ""
    return finding(law, error, _coarse(model), f"tokens of {len(pairs)} translations", fault=fault)


def _tie(a: Hypothesis, b: Hypothesis) -> bool:
    return abs(a.log_probability - b.log_probability) <= 1e-6 * abs(b.log_probability)


def _log_probabilities(hypotheses: list[Hypothesis]) -> Tensor:
    return torch.tensor([hypothesis.log_probability for hypothesis in hypotheses], dtype=torch.float64)
