"""Listening to a model's taps while it runs.

    with record(model, "decoder.layers.*.cross_attention.weights") as seen:
        model.translate(["..."])
    seen["decoder.layers.0.cross_attention.weights"]   # a list: one tensor a call

Only the attention layers whose weights are listened to leave the fused path; every other layer runs as before, and
the outputs are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn

from sublayer.errors import InputError
from sublayer.nn.tap import Tap


class Recording(dict[str, list[Tensor]]):
    """What the taps showed: name -> a tensor for each call, in the order of the calls, on the model's device.

    Every tap that is listened to is there from the start, with an empty list.
    """

    @property
    def names(self) -> list[str]:
        """The taps that are listened to, in the model's order."""
        return list(self)


@contextmanager
def record(model: nn.Module, *patterns: str) -> Generator[Recording]:
    """Keep what the taps of `model` show while the block runs, in training, inference and generation alike.

    A pattern is a shell pattern over the taps' names; `*` crosses dots. The taps of an encoder-decoder (B batch,
    S queries, T keys, H heads, D width, V vocabulary):

        encoder.layers.N.self_attention.weights             [B, H, S, T]; before dropout
        decoder.layers.N.(self|cross)_attention.weights     [B, H, S, T]; in a step, S is 1 and T all so far
        ...layers.N.(self_attention|cross_attention|feed_forward)_sublayer.output     [B, S, D]
        ...layers.N.stream                                  [B, S, D]
        logits                                              [B, S, V]

    With r hypotheses a sentence (beam search) the cross-attention's weights are [B, H, r, T], the others [B * r, ...].
    What is kept is a copy: detached from the graph, and safe from later changes in place.

    Listen before a model is compiled: torch.compile leaves out hooks that come after it.

    Raises:
        InputError: there is no pattern, or one that matches no tap.
    """
    taps = _matching(model, patterns)
    seen = Recording({name: [] for name in taps})
    with ExitStack() as hooks:
        for name, tap in taps.items():
            hooks.callback(tap.register_forward_hook(_appending_to(seen[name])).remove)
        yield seen


def _appending_to(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A forward hook that keeps the value and changes nothing."""

    def keep(tap: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
        # A copy: a search may well rule out tokens in the very tensor of logits that was recorded.
        kept.append(value.detach().clone())

    return keep


def _matching(model: nn.Module, patterns: tuple[str, ...]) -> dict[str, Tap]:
    # torch leaves the type of the names open.
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    taps = {name: module for name, module in modules if isinstance(module, Tap)}
    if not patterns:
        raise InputError("record was given no pattern", f"Name taps: {_alike('', taps)}.")
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in taps if fnmatchcase(name, pattern)}
        if not found:
            raise InputError(f"the pattern '{pattern}' matches no tap of the model", f"Taps: {_alike(pattern, taps)}.")
        matched |= found
    return {name: tap for name, tap in taps.items() if name in matched}


def _alike(pattern: str, names: dict[str, Tap]) -> str:
    """The names nearest to the pattern, the layers of a stack as one; all where none is near."""
    families = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    near = get_close_matches(re.sub(r"\.\d+\.", ".*.", pattern), families, n=3, cutoff=0.6)
    return ", ".join(near or families) or "none; this model has no taps"
