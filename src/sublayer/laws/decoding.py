"""Laws of decoding step by step: what is fed to the cache gives the logits of one forward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sublayer.laws.feeding import Decodes, Prompts
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Apart, law
from sublayer.laws.measure import relative_error


@law("cached = uncached", Decodes)
def cached_is_uncached(fed: Decodes, inputs: Inputs) -> Apart:
    """Decoding one token after another with the cache gives the logits of one forward pass."""
    error = relative_error(fed.decoded(inputs, [1]), fed.answer(inputs))
    return Apart(error, f"logits of {inputs.target.shape[1]} steps")


@law("cached in chunks = uncached", Decodes)
def chunked_is_uncached(fed: Decodes, inputs: Inputs) -> Apart:
    """Decoding several tokens at a time with the cache gives the logits of one forward pass."""
    error = relative_error(fed.decoded(inputs, [3, 1, 2]), fed.answer(inputs))
    return Apart(error, "logits of chunks of 3, 1 and 2 tokens")


@law("left-padded = unpadded", Prompts)
def left_padded_is_unpadded(fed: Prompts, inputs: Inputs) -> Apart:
    """Prompts of several lengths, which decoding pads on the left, go on as each does alone."""
    batch = fed.decoded(inputs, [2, 1])
    error = 0.0
    for row in range(inputs.rows):
        alone = fed.decoded(inputs.alone(row), [2, 1])
        error = max(error, relative_error(batch[row : row + 1, : alone.shape[1]], alone))
    return Apart(error, f"logits after {inputs.rows} prompts of several lengths")


@law("truncated = straight", Decodes)
def truncated_is_straight(fed: Decodes, inputs: Inputs) -> Apart:
    """Feeding other tokens, forgetting them and feeding the right ones gives what the right ones give."""
    model, size = fed.stepper, inputs.target.shape[1]
    kept = size // 2
    state = model.start(inputs.source, inputs.source_lengths, capacity=size)
    before = model.step(inputs.target[:, :kept], state) if kept else None
    held = state.length
    model.step(inputs.other(inputs.target[:, kept:]), state)
    state.truncate(held)
    after = model.step(inputs.target[:, kept:], state)
    found = after if before is None else torch.cat((before, after), dim=1)
    return Apart(relative_error(found, fed.answer(inputs)), f"logits after forgetting {size - kept} tokens")


@law("reordered = recomputed", Decodes)
def reordered_is_recomputed(fed: Decodes, inputs: Inputs) -> Apart:
    """Hypotheses that take one another's place, as in beam search, go on as though they had always been there."""
    rows, device = 3, inputs.target.device
    tokens, state, half = _hypotheses(fed, inputs, rows)
    # Within each sentence another permutation, or one row copied over another.
    within = torch.tensor([[1, 2, 0], [2, 2, 1], [0, 0, 0]], device=device)
    choice = within[torch.arange(inputs.rows, device=device) % 3]
    index = (torch.arange(inputs.rows, device=device).unsqueeze(1) * rows + choice).flatten()
    state.reorder(index)
    moved = torch.cat((tokens[index, :half], tokens[:, half:]), dim=1)
    found = fed.stepper.step(moved[:, half:], state)
    expected = fed.answer(replace(inputs.repeated(rows), target=moved))[:, half:]
    return Apart(relative_error(found, expected), f"logits of {rows} hypotheses a sentence")


@law("kept = recomputed", Decodes)
def kept_is_recomputed(fed: Decodes, inputs: Inputs) -> Apart:
    """Sentences that stay when others are dropped, in whatever order, go on as before."""
    rows, device = 2, inputs.target.device
    tokens, state, half = _hypotheses(fed, inputs, rows)
    sentences = torch.arange(inputs.rows - 1, -1, -2, device=device)
    state.keep(sentences)
    index = (sentences.unsqueeze(1) * rows + torch.arange(rows, device=device)).flatten()
    # In steps, because what is resolved once for the sentences must be resolved anew after the first.
    steps = [fed.stepper.step(tokens[index, at : at + 1], state) for at in range(half, tokens.shape[1])]
    expected = fed.answer(replace(inputs.repeated(rows), target=tokens).at(index))[:, half:]
    error = relative_error(torch.cat(steps, dim=1), expected)
    return Apart(error, f"logits of {len(sentences)} of {inputs.rows} sentences")


def _hypotheses(fed: Decodes, inputs: Inputs, rows: int) -> tuple[Tensor, Any, int]:
    """Different tokens for each of `rows` hypotheses [B * rows, T], and the state after the first half of them.

    One token at a time for the first half, so that what a state resolves once is resolved before it changes.
    """
    size = inputs.target.shape[1]
    offsets = torch.arange(rows, device=inputs.target.device).repeat(inputs.rows).unsqueeze(1)
    tokens = (inputs.target.repeat_interleave(rows, dim=0) + offsets) % inputs.vocab_size
    half = size // 2
    state = fed.stepper.start(inputs.source, inputs.source_lengths, rows=rows, capacity=size)
    for at in range(half):
        fed.stepper.step(tokens[:, at : at + 1], state)
    return tokens, state, half
