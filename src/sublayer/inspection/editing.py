"""Changing what passes a model's taps while it runs.

    with edit(model, "decoder.layers.0.self_attention.heads", zero_ablate(3)):
        ...                                            # head 3 of layer 0 is off, in training, search, everywhere
    with edit(model, {"encoder.layers.2.stream": lambda value, name: value + direction}):
        ...

The names are those of `record`: `inspection/hook_points.py` lists them. An edit of attention weights makes that layer,
and no other, take the explicit path; an edit of anything else (the `heads` among them) leaves every layer on the
fused one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sublayer.errors import InputError
from sublayer.inspection.hook_points import matching
from sublayer.nn.tap import hooked

Edit: TypeAlias = Callable[[Tensor, str], Tensor]
"""(the value at the tap, the tap's name) -> what takes its place, of the same shape. The value given is not the
function's to write to: make another."""

HEAD_DIMENSION: Mapping[str, int] = {"weights": 1, "heads": 2}
"""Where the heads stand in what a tap of this last name shows."""


@contextmanager
def edit(model: nn.Module, edits: str | Mapping[str, Edit], function: Edit | None = None) -> Generator[None]:
    """Put other values in the place of what passes the taps, while the block runs.

    Args:
        edits: a pattern, and `function` beside it; or patterns with a function each. Where several name the same tap
            they are applied one after another, in their order. function: for the one pattern.

    Gradients flow through the functions. The decode runner hands an edited model's steps to its modules.

    Raises:
        InputError: a pattern matches no tap, at once; a head that is not there, a value of another shape or type, when
            the value passes.
    """
    if isinstance(edits, str):
        if function is None:
            raise InputError(f"edit('{edits}') was given no function", "Say edit(model, pattern, function).")
        edits = {edits: function}
    elif function is not None:
        raise InputError("edit was given a function beside a mapping", "Give a pattern and a function, or a mapping.")
    # All patterns are looked up before the first hook is set.
    found = [(matching(model, [pattern], "edit"), made) for pattern, made in edits.items()]
    if not found:
        raise InputError("edit was given no pattern", "Say edit(model, {pattern: function}).")
    with ExitStack() as hooks:
        for modules, made in found:
            fresh = made.fresh() if isinstance(made, Patched) else made
            hooks.enter_context(hooked(modules, partial(_replacing, fresh)))
        yield


def _replacing(function: Edit, name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def replace(module: nn.Module, inputs: tuple[Any, ...], value: Tensor) -> Tensor:
        # A function may give back anything, whatever it says of itself.
        made: Any = function(value, name)
        if not isinstance(made, Tensor):
            raise InputError(
                f"the edit of '{name}' gave {type(made).__name__}, not a tensor", "Return what takes the value's place."
            )
        if made.shape != value.shape:
            raise InputError(
                f"the edit of '{name}' gave a tensor of shape {tuple(made.shape)}, but the value has "
                f"{tuple(value.shape)}",
                "Return a tensor of the same shape.",
            )
        return made.to(value)

    return replace


# --- the usual edits ---------------------------------------------------------------------------------------------


def scaled(factor: float, *heads: int) -> Edit:
    """Multiply by `factor`: the heads named, counted from 0, at a tap `....heads` or `....weights`; all of the value
    where none is named, at any tap.

    Raises (when the value passes):
        InputError: the tap has no heads, or not so many.
    """

    def scale(value: Tensor, name: str) -> Tensor:
        # Not a product: zero times infinity is no zero.
        product = torch.zeros_like(value) if factor == 0 else value * factor
        return (
            torch.where(_chosen(value, head_dimension(value, name, heads), heads), product, value) if heads else product
        )

    return scale


def zero_ablate(*heads: int) -> Edit:
    """Switch heads off: what they found is 0, and only the output map's bias is left of them.

    At `....self_attention.heads` the layer stays on its fused path. Without heads named, the whole value is 0: at
    `....feed_forward_sublayer.output` the sub-layer adds nothing. Raises as `scaled`.
    """
    return scaled(0.0, *heads)


class Patched:
    """See `patched`."""

    def __init__(self, seen: Mapping[str, Sequence[Tensor]], heads: Sequence[int], positions: Sequence[int]) -> None:
        self._seen, self._heads, self._positions = seen, tuple(heads), tuple(positions)
        self._calls: dict[str, int] = {}

    def fresh(self) -> Patched:
        """The same, before its first call: every `edit` begins at the recording's beginning."""
        return Patched(self._seen, self._heads, self._positions)

    def __call__(self, value: Tensor, name: str) -> Tensor:
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        if name not in self._seen:
            raise InputError(f"the recording does not hold '{name}'", "Record it, or edit fewer taps.")
        if call >= len(self._seen[name]):
            raise InputError(
                f"the recording holds {len(self._seen[name])} calls of '{name}', and this is number {call + 1}",
                "Patch a run of as many steps as the recorded one.",
            )
        other = self._seen[name][call]
        if other.shape != value.shape:
            raise InputError(
                f"the recorded value of '{name}' has the shape {tuple(other.shape)}, but this run's has "
                f"{tuple(value.shape)}",
                "Patch between runs of equal lengths.",
            )
        other = other.to(value)
        if other.is_inference() and not torch.is_inference_mode_enabled():
            other = other.clone()
        chosen = torch.ones((), dtype=torch.bool, device=value.device)
        if self._heads:
            chosen = chosen & _chosen(value, head_dimension(value, name, self._heads), self._heads)
        if self._positions:
            place = 2 if name.rpartition(".")[2] == "weights" else 1
            chosen = chosen & _chosen(value, place, _positions(value, place, self._positions, name))
        return torch.where(chosen, other, value)


def patched(
    seen: Mapping[str, Sequence[Tensor]], *, heads: Sequence[int] = (), positions: Sequence[int] = ()
) -> Patched:
    """Another run's activation in the place of this one's (activation patching, Vig et al. 2020,
    https://arxiv.org/abs/2004.12265; Meng et al. 2022, https://arxiv.org/abs/2202.05262).

    Args:
        seen: what `record` kept of the other run: its first call takes the place of the first here, and so on.
        heads: only these, counted from 0; all where left out. positions: only these of the sequence (of the queries,
            at attention weights), counted from 0, negative from the last; all where left out.

    Raises (when the value passes):
        InputError: the recording lacks the tap or the call, its shape is another, or a head or position is not there.
    """
    return Patched(seen, heads, positions)


def head_dimension(value: Tensor, name: str, heads: Sequence[int]) -> int:
    """The dimension of the heads in what tap `name` shows.

    Raises:
        InputError: there are no heads in it, or not all of `heads`; names the range.
    """
    place = HEAD_DIMENSION.get(name.rpartition(".")[2])
    if place is None or value.dim() != 4:
        raise InputError(
            f"'{name}' has no heads that could be told apart",
            "Edit a tap that ends in .heads (or .weights), or name no heads.",
        )
    count = value.shape[place]
    for head in heads:
        if not 0 <= head < count:
            raise InputError(f"there is no head {head} at '{name}'", f"The heads are 0 to {count - 1}.")
    return place


def _positions(value: Tensor, place: int, positions: Sequence[int], name: str) -> list[int]:
    count = value.shape[place]
    for position in positions:
        if not -count <= position < count:
            raise InputError(f"there is no position {position} at '{name}'", f"The positions are 0 to {count - 1}.")
    return [position % count for position in positions]


def _chosen(value: Tensor, dimension: int, places: Sequence[int]) -> Tensor:
    """Boolean, true at these places of a dimension, to be broadcast over `value`."""
    chosen = torch.zeros(value.shape[dimension], dtype=torch.bool, device=value.device)
    chosen[list(places)] = True
    return chosen.view(-1, *[1] * (value.dim() - dimension - 1))
