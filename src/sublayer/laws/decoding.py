"""Laws of decoding step by step: what is fed to the cache gives the logits of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, law
from sublayer.laws.measure import relative_error
from sublayer.laws.model_adapter import Attends, Decodes, Prompts


@law("cached = uncached", Decodes)
def cached_is_uncached(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Decoding one token after another with the cache gives the logits of one forward pass."""
    error = relative_error(adapter.decoded(inputs, [1]), adapter.answer(inputs))
    return Discrepancy(error, f"logits of {inputs.target.shape[1]} steps")


@law("cached in chunks = uncached", Decodes)
def chunked_is_uncached(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Decoding several tokens at a time with the cache gives the logits of one forward pass."""
    error = relative_error(adapter.decoded(inputs, [3, 1, 2]), adapter.answer(inputs))
    return Discrepancy(error, "logits of chunks of 3, 1 and 2 tokens")


@law("left-padded = unpadded", Prompts)
def left_padded_is_unpadded(adapter: Prompts, inputs: Inputs) -> Discrepancy:
    """Prompts of several lengths, which decoding pads on the left, go on as each does alone."""
    batch = adapter.decoded(inputs, [2, 1])
    error = 0.0
    for row in range(inputs.rows):
        alone = adapter.decoded(inputs.alone(row), [2, 1])
        error = max(error, relative_error(batch[row : row + 1, : alone.shape[1]], alone))
    return Discrepancy(error, f"logits after {inputs.rows} prompts of several lengths")


@law("truncated = straight", Decodes)
def truncated_is_straight(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Feeding other tokens, forgetting them and feeding the right ones gives what the right ones give."""
    model, size = adapter.backend, inputs.target.shape[1]
    kept = size // 2
    state = model.start(inputs.source, inputs.source_lengths, capacity=size)
    before = model.step(inputs.target[:, :kept], state) if kept else None
    held = state.length
    model.step(inputs.other(inputs.target[:, kept:]), state)
    state.truncate(held)
    after = model.step(inputs.target[:, kept:], state)
    found = after if before is None else torch.cat((before, after), dim=1)
    return Discrepancy(relative_error(found, adapter.answer(inputs)), f"logits after forgetting {size - kept} tokens")


@law("reordered = recomputed", Decodes)
def reordered_is_recomputed(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Hypotheses that take one another's place, as in beam search, go on as though they had always been there."""
    rows, device = 3, inputs.target.device
    tokens, state, half = _hypotheses(adapter, inputs, rows)
    # Within each sentence another permutation, or one row copied over another.
    within = torch.tensor([[1, 2, 0], [2, 2, 1], [0, 0, 0]], device=device)
    choice = within[torch.arange(inputs.rows, device=device) % 3]
    index = (torch.arange(inputs.rows, device=device).unsqueeze(1) * rows + choice).flatten()
    state.reorder(index)
    moved = torch.cat((tokens[index, :half], tokens[:, half:]), dim=1)
    found = adapter.backend.step(moved[:, half:], state)
    expected = adapter.answer(replace(inputs.repeated(rows), target=moved))[:, half:]
    return Discrepancy(relative_error(found, expected), f"logits of {rows} hypotheses a sentence")


@law("kept = recomputed", Decodes)
def kept_is_recomputed(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Sentences that stay when others are dropped, in whatever order, go on as before."""
    rows, device = 2, inputs.target.device
    tokens, state, half = _hypotheses(adapter, inputs, rows)
    sentences = torch.arange(inputs.rows - 1, -1, -2, device=device)
    state.keep(sentences)
    index = (sentences.unsqueeze(1) * rows + torch.arange(rows, device=device)).flatten()
    # In steps, because what is resolved once for the sentences must be resolved anew after the first.
    steps = [adapter.backend.step(tokens[index, at : at + 1], state) for at in range(half, tokens.shape[1])]
    expected = adapter.answer(replace(inputs.repeated(rows), target=tokens).at(index))[:, half:]
    error = relative_error(torch.cat(steps, dim=1), expected)
    return Discrepancy(error, f"logits of {len(sentences)} of {inputs.rows} sentences")


@law("joined = recomputed", Decodes)
def joined_is_recomputed(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """Sentences that join a running batch go on as each does alone, and so do those that they join.

    Once either side has more tokens. In the end those that were there first are dropped.
    """
    rows, size = 2, inputs.target.shape[1]
    everyone = torch.arange(inputs.rows, device=inputs.target.device)
    error = 0.0
    for split, counts in ((1, (size // 2, 1)), (inputs.rows - 1, (1, size // 2))):
        sides = [_trimmed(inputs.at(some)) for some in (everyone[:split], everyone[split:])]
        begun = [_begun(adapter, side, rows, count) for side, count in zip(sides, counts, strict=True)]
        tokens, (state, other) = zip(*begun, strict=True)
        expected = [
            adapter.answer(replace(side.repeated(rows), target=mine)) for side, mine in zip(sides, tokens, strict=True)
        ]
        state.join(other)
        places = [count for count, mine in zip(counts, tokens, strict=True) for _ in mine]
        error = max(error, _furthest(adapter, state, torch.cat(tokens), torch.cat(expected), places))
        state.keep(everyone[split:])
        left = [counts[1] + size - max(counts)] * len(tokens[1])
        error = max(error, _furthest(adapter, state, tokens[1], expected[1], left))
    return Discrepancy(error, f"logits of {inputs.rows} sentences that join one another")


@law("fixed shapes = growing", Attends)
def fixed_is_growing(adapter: Attends, inputs: Inputs) -> Discrepancy:
    """Steps whose shapes do not change as the text grows give the logits of one forward pass.

    Some tokens are fed, taken back and fed again, which leaves others behind in the cache.
    """
    size = inputs.target.shape[1]
    state = adapter.model.start(inputs.source, inputs.source_lengths, capacity=size, fixed=True)
    begun, logits = state.length, list[Tensor]()
    adapter.model.step(inputs.other(inputs.target), state)
    state.truncate(begun)
    for at in range(size):
        logits.append(adapter.model.step(inputs.target[:, at : at + 1], state))
    return Discrepancy(relative_error(torch.cat(logits, dim=1), adapter.answer(inputs)), f"logits of {size} steps")


LAWS = (
    cached_is_uncached, chunked_is_uncached, left_padded_is_unpadded, truncated_is_straight, reordered_is_recomputed,
    kept_is_recomputed, joined_is_recomputed, fixed_is_growing,
)  # fmt: skip


def _furthest(adapter: Decodes, state: Any, tokens: Tensor, expected: Tensor, places: Sequence[int]) -> float:
    """Feed every row from its own place on, until one has no more: how far the logits are off at most."""
    error, begin = 0.0, torch.tensor(places, device=tokens.device).unsqueeze(1)
    for step in range(tokens.shape[1] - max(places)):
        place = begin + step
        logits = adapter.backend.step(tokens.gather(1, place), state)
        wanted = expected.gather(1, place.unsqueeze(-1).expand(-1, -1, expected.shape[-1]))
        error = max(error, relative_error(logits, wanted))
    return error


def _trimmed(inputs: Inputs) -> Inputs:
    """Without the columns of the source that are padding in every row."""
    if inputs.source_lengths is None:
        return inputs
    return replace(inputs, source=inputs.source[:, : int(inputs.source_lengths.max())])


def _hypotheses(adapter: Decodes, inputs: Inputs, rows: int) -> tuple[Tensor, Any, int]:
    """Different tokens for each of `rows` hypotheses [B * rows, T], and the state after the first half of them.

    One token at a time for the first half, so that what a state resolves once is resolved before it changes.
    """
    half = inputs.target.shape[1] // 2
    return *_begun(adapter, inputs, rows, half), half


def _begun(adapter: Decodes, inputs: Inputs, rows: int, count: int) -> tuple[Tensor, Any]:
    """The hypotheses' tokens [B * rows, T], and the state after so many of them."""
    size = inputs.target.shape[1]
    offsets = torch.arange(rows, device=inputs.target.device).repeat(inputs.rows).unsqueeze(1)
    tokens = (inputs.target.repeat_interleave(rows, dim=0) + offsets) % inputs.vocab_size
    state = adapter.backend.start(inputs.source, inputs.source_lengths, num_beams=rows, capacity=size)
    for at in range(count):
        adapter.backend.step(tokens[:, at : at + 1], state)
    return tokens, state
