"""Decoder-only models in the harness: how the oracle and ours are asked for logits and for what comes next."""

from __future__ import annotations

from typing import Any

import torch
from parity import Batch, exactly
from torch import Tensor

from sublayer.models import DecoderOnly


@torch.no_grad()
def oracle_logits(oracle: Any, batch: Batch) -> Tensor:
    """Of all positions, the texts padded on the left as `transformers` wants them: [B, S, V]."""
    with exactly():
        return oracle(
            input_ids=batch.left, attention_mask=batch.left_real.long(), position_ids=batch.left_positions
        ).logits


@torch.no_grad()
def right_padded(model: DecoderOnly, batch: Batch) -> Tensor:
    """All positions at once, as in training."""
    return model(batch.tokens, batch.lengths)


@torch.no_grad()
def left_padded(model: DecoderOnly, batch: Batch, pieces: tuple[int, ...]) -> Tensor:
    """Through the cache, so many tokens at a time, padded on the left."""
    size = batch.left.shape[1]
    state = model.decoder.start_alone(len(batch.left), capacity=size, padding=size - batch.lengths)
    return torch.cat([model.step(part, state) for part in batch.left.split(list(pieces), dim=1)], dim=1)


@torch.no_grad()
def oracle_continuation(oracle: Any, batch: Batch, steps: int) -> Tensor:
    """[B, steps]: what `generate` goes on with, greedily."""
    with exactly():
        found = oracle.generate(
            input_ids=batch.left,
            attention_mask=batch.left_real.long(),
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            pad_token_id=0,
        )
    return found[:, batch.left.shape[1] :]


@torch.no_grad()
def continuation(model: DecoderOnly, tokens: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """[B, steps]: what we go on with, greedily, through `start` and `step`. Tokens are padded on the right."""
    feed = tokens.gather(1, lengths.unsqueeze(1) - 1)
    state = model.start(tokens[:, :-1], lengths - 1, capacity=steps)
    found: list[Tensor] = []
    for _ in range(steps):
        feed = model.step(feed, state)[:, -1].argmax(dim=-1, keepdim=True)
        found.append(feed)
    return torch.cat(found, dim=1)
