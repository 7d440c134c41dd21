"""An engine's calls with torch's tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.fast.engine.engine import Addresses, Engine, addresses_of


@dataclass(slots=True)
class Inputs:
    """What a run reads and writes besides its tokens.

    cache: keys and values of the tokens before, to which those of the new ones are added, [layers, 2, R, G, C, d];
    cache_rows: in which row of the cache each of a row's positions stands, [R, C] int32; unset: all in its own.
    held: how many positions it holds. padding: how many of them are padding in each row, [R]. lengths: real tokens of
    each row, [R], where there is no cache. memory: keys, then values, of the source of each layer, [B, G, S, d];
    source_lengths: [B].
    """

    cache: Tensor | None = None
    cache_rows: Tensor | None = None
    held: int = 0
    padding: Tensor | None = None
    lengths: Tensor | None = None
    memory: Sequence[Tensor] = ()
    source_lengths: Tensor | None = None


def run(engine: Engine, tokens: Tensor, until: str | None, inputs: Inputs) -> Tensor:
    """Run the program for new tokens up to the mark `until`, or to its end, and return what is marked.

    Shape: tokens [R, n] int64 -> [R * n, width of what is marked]; [R * n, 0] without a mark.

    Raises:
        IndexError: a token is not in the vocabulary.
    """
    width = engine.width(until)
    out = torch.empty(tokens.numel(), width)
    _call(engine, tokens, until, inputs, out=out.data_ptr() if width else None)
    return out


def best(engine: Engine, tokens: Tensor, until: str, inputs: Inputs, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest numbers of what is marked: their log-softmax, the largest first, and their places.

    Shape: tokens [R, n] int64 -> [R * n, count] float32 and int64.

    Raises:
        IndexError: a token is not in the vocabulary.
    """
    logs, places = torch.empty(tokens.numel(), count), torch.empty(tokens.numel(), count, dtype=torch.int64)
    _call(engine, tokens, until, inputs, best=count, best_columns=places.data_ptr(), best_logs=logs.data_ptr())
    return logs, places


def _call(engine: Engine, tokens: Tensor, until: str | None, inputs: Inputs, **results: int | None) -> None:
    tokens = tokens.contiguous()
    memory, cache = inputs.memory, inputs.cache
    pointers = addresses_of([part.data_ptr() for part in memory])
    given = Addresses(
        cache=_pointer(cache),
        cache_rows=_pointer(inputs.cache_rows),
        capacity=0 if cache is None else cache.shape[4],
        held=inputs.held,
        padding=_pointer(inputs.padding),
        lengths=_pointer(inputs.lengths),
        memory=ctypes.addressof(pointers),
        sources=memory[0].shape[0] if memory else 0,
        source_length=memory[0].shape[2] if memory else 0,
        source_lengths=_pointer(inputs.source_lengths),
    )
    engine.call(tokens.data_ptr(), tokens.shape[0], tokens.shape[1], until, given, **results)  # pyright: ignore[reportArgumentType]


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
