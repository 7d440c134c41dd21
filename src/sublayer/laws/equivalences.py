"""Laws of the forward pass and of decoding step by step: two ways to the same logits.

Each takes a model and inputs, changes neither, and says how far the two ways are apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import Finding, evaluating, finding, listening, relative_error, tolerance
from sublayer.models import DecoderState, EncoderDecoder


@torch.no_grad()
def fused_is_explicit(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Listening to every attention, which makes each compute the equation, gives what the fused kernel gives.

    Also that every attention shows its weights, and that they are a distribution.
    """
    with evaluating(model):
        expected = _forward(model, inputs)
        with listening(model, "attention.weights") as seen:
            found = _forward(model, inputs)
    silent = [name for name, shown in seen.items() if len(shown) != 1]
    fault = f"no weights shown by {', '.join(silent)}" if silent else ""
    error = relative_error(found, expected, inputs.real)
    for shown in seen.values():
        total = shown[0].sum(-1) if shown else torch.ones(1)
        # A query with nothing to attend to (padding under a window) has weights of 0.
        error = max(error, relative_error(total, (total > 0.5).to(total.dtype)))
    return finding(
        "fused = explicit", error, tolerance(model), f"logits, listening to {len(seen)} attentions", fault=fault
    )


@torch.no_grad()
def tapped_is_untapped(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Listening to every tap, streams and outputs and logits too, changes nothing, in training and in decoding."""
    with evaluating(model):
        expected, expected_steps = _forward(model, inputs), _decode(model, inputs, [1])
        with listening(model) as seen:
            found, found_steps = _forward(model, inputs), _decode(model, inputs, [1])
    silent = [name for name, shown in seen.items() if len(shown) < 2]
    fault = f"nothing shown by {', '.join(silent)}" if silent else ""
    error = max(relative_error(found, expected, inputs.real), relative_error(found_steps, expected_steps))
    return finding("tapped = untapped", error, tolerance(model), f"logits, listening to {len(seen)} taps", fault=fault)


@torch.no_grad()
def batched_is_single(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """A ragged batch gives each sentence what it gets alone, without padding and without lengths."""
    with evaluating(model):
        batch = _forward(model, inputs)
        error = 0.0
        for row in range(inputs.rows):
            source = inputs.source[row : row + 1, : int(inputs.source_lengths[row])]
            target = inputs.target[row : row + 1, : int(inputs.target_lengths[row])]
            alone = model(source, None, target)
            error = max(error, relative_error(batch[row : row + 1, : target.shape[1]], alone))
    return finding("batched = single", error, tolerance(model), f"logits of {inputs.rows} ragged sentences")


@torch.no_grad()
def padding_is_ignored(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """What stands in the padding, of source and target, does not matter."""
    with evaluating(model):
        expected = _forward(model, inputs)
        found = _forward(model, inputs.other_padding())
    error = relative_error(found, expected, inputs.real)
    return finding("padding = other padding", error, tolerance(model), "logits with other tokens in the padding")


@torch.no_grad()
def cached_is_uncached(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Decoding one token after another with the cache gives the logits of one forward pass."""
    with evaluating(model):
        error = relative_error(_decode(model, inputs, [1]), _forward(model, inputs))
    return finding("cached = uncached", error, tolerance(model), f"logits of {inputs.target.shape[1]} steps")


@torch.no_grad()
def chunked_is_uncached(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Decoding several tokens at a time with the cache gives the logits of one forward pass."""
    with evaluating(model):
        error = relative_error(_decode(model, inputs, [3, 1, 2]), _forward(model, inputs))
    return finding("cached in chunks = uncached", error, tolerance(model), "logits of chunks of 3, 1 and 2 tokens")


@torch.no_grad()
def truncated_is_straight(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """Feeding other tokens, forgetting them and feeding the right ones gives what the right ones give."""
    size = inputs.target.shape[1]
    kept = size // 2
    with evaluating(model):
        state = model.start(inputs.source, inputs.source_lengths, capacity=size)
        before = model.step(inputs.target[:, :kept], state) if kept else None
        model.step(inputs.other(inputs.target[:, kept:]), state)
        state.truncate(kept)
        after = model.step(inputs.target[:, kept:], state)
        found = after if before is None else torch.cat((before, after), dim=1)
        error = relative_error(found, _forward(model, inputs))
    return finding("truncated = straight", error, tolerance(model), f"logits after forgetting {size - kept} tokens")


@torch.no_grad()
def reordered_is_recomputed(model: EncoderDecoder, inputs: Inputs, rows: int = 3) -> Finding:
    """Hypotheses that take one another's place, as in beam search, go on as though they had always been there."""
    with evaluating(model):
        tokens, state, half = _hypotheses(model, inputs, rows)
        # Within each sentence another permutation, or one row copied over another.
        within = torch.tensor([[1, 2, 0], [2, 2, 1], [0, 0, 0]], device=model.device)
        choice = within[torch.arange(inputs.rows, device=model.device) % 3] % rows
        index = (torch.arange(inputs.rows, device=model.device).unsqueeze(1) * rows + choice).flatten()
        state.reorder(index)
        moved = torch.cat((tokens[index, :half], tokens[:, half:]), dim=1)
        found = model.step(moved[:, half:], state)
        expected = model(*_repeated(inputs, rows), moved)[:, half:]
    error = relative_error(found, expected)
    return finding("reordered = recomputed", error, tolerance(model), f"logits of {rows} hypotheses a sentence")


@torch.no_grad()
def kept_is_recomputed(model: EncoderDecoder, inputs: Inputs, rows: int = 2) -> Finding:
    """Sentences that stay when others are dropped, in whatever order, go on as before."""
    with evaluating(model):
        tokens, state, half = _hypotheses(model, inputs, rows)
        sentences = torch.arange(inputs.rows - 1, -1, -2, device=model.device)
        state.keep(sentences)
        index = (sentences.unsqueeze(1) * rows + torch.arange(rows, device=model.device)).flatten()
        # In two steps, because what is resolved once for the sentences must be resolved anew after the first.
        found = torch.cat([model.step(tokens[index, at : at + 1], state) for at in range(half, tokens.shape[1])], dim=1)
        source, lengths = _repeated(inputs, rows)
        expected = model(source[index], lengths[index], tokens[index])[:, half:]
    error = relative_error(found, expected)
    return finding(
        "kept = recomputed", error, tolerance(model), f"logits of {len(sentences)} of {inputs.rows} sentences"
    )


def _forward(model: EncoderDecoder, inputs: Inputs) -> Tensor:
    return model(inputs.source, inputs.source_lengths, inputs.target)


def _decode(model: EncoderDecoder, inputs: Inputs, chunks: Sequence[int]) -> Tensor:
    """The logits of all target positions by steps of so many tokens, over and over."""
    size = inputs.target.shape[1]
    state = model.start(inputs.source, inputs.source_lengths, capacity=size)
    logits: list[Tensor] = []
    while state.length < size:
        step = chunks[len(logits) % len(chunks)]
        logits.append(model.step(inputs.target[:, state.length : state.length + step], state))
    return torch.cat(logits, dim=1)


def _repeated(inputs: Inputs, rows: int) -> tuple[Tensor, Tensor]:
    """Source and lengths with each sentence `rows` times."""
    return inputs.source.repeat_interleave(rows, dim=0), inputs.source_lengths.repeat_interleave(rows)


def _hypotheses(model: EncoderDecoder, inputs: Inputs, rows: int) -> tuple[Tensor, DecoderState, int]:
    """Different tokens for each of `rows` hypotheses [B * rows, T], and the state after the first half of them.

    One token at a time for the first half, so that what a state resolves once is resolved before it changes.
    """
    size = inputs.target.shape[1]
    offsets = torch.arange(rows, device=model.device).repeat(inputs.rows).unsqueeze(1)
    tokens = (inputs.target.repeat_interleave(rows, dim=0) + offsets) % inputs.vocab_size
    half = size // 2
    state = model.start(inputs.source, inputs.source_lengths, rows=rows, capacity=size)
    for at in range(half):
        model.step(tokens[:, at : at + 1], state)
    return tokens, state, half
