"""Hook points: the places of a model that can be listened to and edited: its taps, and its norms.

Their names are the modules' own, so `decoder.layers.2.self_attention.heads` is where it says. A pattern is a shell
pattern over these names; `*` crosses dots. (B batch, S queries, T keys, H heads, d width of a head, D width of the
stream, V vocabulary)

    STACK.embedding.stream                              [B, S, D]       the residual stream as it begins
    STACK.layers.N.stream                               [B, S, D]       the stream that leaves layer N
    STACK.layers.N.self_attention.weights               [B, H, S, T]    who attends to whom, before dropout
    STACK.layers.N.self_attention.heads                 [B, S, H, d]    what each head has found, before the output map
    STACK.layers.N.self_attention_sublayer.output       [B, S, D]       what is about to be added to the stream
    STACK.layers.N.feed_forward_sublayer.output         [B, S, D]
    ....before, ....after, ....outer, STACK.norm        [B, S, D]       the norms, those that the norm placement has
    ....query_norm, ....key_norm                        [B, H, S, d]
    logits                                              [B, S, V]       or whatever an encoder's head says

STACK is `encoder` or `decoder`; a decoder beside an encoder has `cross_attention` and `cross_attention_sublayer` too.
In a step of generation S is 1 and T all so far. With r hypotheses a sentence (beam search) the weights of
cross-attention are [B, H, r, T], all else [B * r, ...].

A loss that projects by itself (in training) does not pass through `logits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from sublayer.errors import InputError
from sublayer.nn.tap import HookPoint, named_modules


def hook_points(model: nn.Module) -> dict[str, nn.Module]:
    """Every tap and norm of a model by its name, in the model's order."""
    return {name: module for name, module in named_modules(model) if isinstance(module, HookPoint)}


def matching(model: nn.Module, patterns: Sequence[str], asked_by: str) -> dict[str, nn.Module]:
    """The hook points that the patterns name, in the model's order.

    Args:
        asked_by: who was given the patterns, for the error.

    Raises:
        InputError: there is no pattern, or one that names nothing; says the nearest names.
    """
    known = hook_points(model)
    if not patterns:
        raise InputError(f"{asked_by} was given no pattern", f"Name taps: {_alike('', known)}.")
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in known if fnmatchcase(name, pattern)}
        if not found:
            raise InputError(f"the pattern '{pattern}' matches no tap of the model", f"Taps: {_alike(pattern, known)}.")
        matched |= found
    return {name: module for name, module in known.items() if name in matched}


def _alike(pattern: str, names: Iterable[str]) -> str:
    """The names nearest to the pattern, the layers of a stack as one; all where none is near."""
    families = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    near = get_close_matches(re.sub(r"\.\d+\.", ".*.", pattern), families, n=3, cutoff=0.6)
    return ", ".join(near or families) or "none; this model has no taps"
