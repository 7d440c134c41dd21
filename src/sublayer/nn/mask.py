"""Who may attend to whom, as a value.

True means "may attend", everywhere. A mask is made by a named constructor and combined with `&`; it becomes a
tensor only when a stack resolves it for the numbers of queries and keys at hand. Queries are always the last of the
keys (aligned at the bottom right), so the same mask is correct with a cache and without:

    keys        0 1 2 3 4
    query 3     x x x x .        causal, two queries after three cached positions
    query 4     x x x x x

Shapes: B batch, H heads, S queries, T keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """One reason for which a query may not attend to a key."""

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Boolean, broadcastable to [B, 1, S, T]."""
        ...


def _query_positions(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.arange(keys - queries, keys, device=device).unsqueeze(-1)


@dataclass(frozen=True, eq=False)
class Causal:
    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor:
        return torch.arange(keys, device=device) <= _query_positions(queries, keys, device)


@dataclass(frozen=True, eq=False)
class Window:
    size: int

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor:
        distance = _query_positions(queries, keys, device) - torch.arange(keys, device=device)
        return distance.abs() < self.size


@dataclass(frozen=True, eq=False)
class KeySpan:
    """Keys from `start` (if any) up to `stop` (if any), a number for each row of the batch."""

    start: Tensor | None
    stop: Tensor | None

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor:
        position = torch.arange(keys, device=device)
        inside = torch.ones(1, keys, dtype=torch.bool, device=device)
        if self.start is not None:
            inside = inside & (position >= self.start.to(device).unsqueeze(-1))
        if self.stop is not None:
            inside = inside & (position < self.stop.to(device).unsqueeze(-1))
        return inside[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Segments:
    query: Tensor
    key: Tensor

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor:
        query, key = self.query.to(device)[:, -queries:], self.key.to(device)[:, :keys]
        return (query.unsqueeze(-1) == key.unsqueeze(-2)).unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Mask:
    """A conjunction of rules. Make one with the constructors below, combine with `&`, resolve in a stack."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def everything(cls) -> Mask:
        """Every query attends to every key."""
        return cls()

    @classmethod
    def causal(cls) -> Mask:
        """A query attends to its own position and those before it (section 3.2.3)."""
        return cls((Causal(),))

    @classmethod
    def window(cls, size: int) -> Mask:
        """A query attends to positions less than `size` away, on either side (with `causal`: the last `size`)."""
        if size < 1:
            raise ValueError(f"window size = {size} leaves nothing to attend to; it must be 1 or more")
        return cls((Window(size),))

    @classmethod
    def padding(cls, lengths: Tensor) -> Mask:
        """Only the first `lengths[b]` keys of row b are real (padding on the right).

        Shape: lengths [B], integer.
        """
        _require_integers("lengths", lengths)
        return cls((KeySpan(start=None, stop=lengths),))

    @classmethod
    def left_padding(cls, counts: Tensor) -> Mask:
        """The first `counts[b]` keys of row b are padding.

        Shape: counts [B], integer.
        """
        _require_integers("counts", counts)
        return cls((KeySpan(start=counts, stop=None),))

    @classmethod
    def segments(cls, query: Tensor, key: Tensor | None = None) -> Mask:
        """A query attends to keys with its own segment number: several texts packed in one row stay apart.

        Shape: query [B, S] and key [B, T], integer; key is query where it is left out.
        """
        _require_integers("query", query)
        return cls((Segments(query, query if key is None else key),))

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.rules + other.rules)

    def resolve(
        self,
        queries: int,
        keys: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> Scope:
        """The tensors for `queries` and `keys`, computed once for all layers of a stack.

        Args:
            bias: numbers to add to the scores (ALiBi, relative positions), broadcastable to [B, H, S, T].
        """
        causal = len(self.rules) == 1 and isinstance(self.rules[0], Causal)
        if causal and queries == 1:
            causal, rules = False, ()  # one query, the last: everything before it is allowed
        else:
            rules = self.rules
        allowed: Tensor | None = None
        for rule in rules:
            part = rule.allowed(queries, keys, device)
            allowed = part if allowed is None else allowed & part
        if allowed is not None and allowed.dim() == 2:
            allowed = allowed[None, None]
        return Scope(
            allowed=allowed,
            bias=None if bias is None else bias.to(dtype),
            additive=_additive(allowed, bias, dtype),
            causal=causal and queries == keys and bias is None,
            # Causality and windows leave a query itself, where it is among the keys; spans and segments may not.
            occupied=None
            if allowed is None or (queries <= keys and all(isinstance(rule, Causal | Window) for rule in rules))
            else allowed.any(-1, keepdim=True),
        )


@dataclass(frozen=True, eq=False)
class Scope:
    """A resolved mask, and the bias of the positions with it.

    allowed: boolean, broadcastable to [B, H, S, T]; None means everything.
    bias: what the positions add to the scores, or None.
    additive: both as one floating-point tensor (0 where allowed, a very low finite number where not), or None.
    causal: the mask is exactly the causal square, which a kernel may know by itself.
    occupied: [.., S, 1], whether a query has anything to attend to; None where every query surely has.
    """

    allowed: Tensor | None
    bias: Tensor | None
    additive: Tensor | None
    causal: bool
    occupied: Tensor | None

    @cached_property
    def added(self) -> Tensor | None:
        """Mask and bias as the fused kernels add them, [1 or B, 1 or H, S, T], or None; made once for all layers.

        Here -inf is right: a kernel itself gives zeros for a row that has nothing else.
        """
        if self.allowed is None or self.additive is None:
            return self.bias if self.bias is None or self.bias.dim() == 4 else self.bias.unsqueeze(0)
        zero = torch.zeros((), dtype=self.additive.dtype, device=self.allowed.device)
        base = zero if self.bias is None else self.bias
        mask = torch.where(self.allowed, base, float("-inf"))
        return mask if mask.dim() == 4 else mask.unsqueeze(0)


def _additive(allowed: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if allowed is None:
        return None if bias is None else bias.to(dtype)
    # Not -inf: a row of nothing but -inf has no softmax, and its gradient is NaN. And not the lowest finite number,
    # to which no negative score can be added in float16 without reaching -inf.
    lowest = torch.finfo(dtype).min / 2
    zero = torch.zeros((), dtype=dtype, device=allowed.device) if bias is None else bias.to(dtype)
    return torch.where(allowed, zero, torch.full((), lowest, dtype=dtype, device=allowed.device))


def _require_integers(name: str, value: object) -> None:
    """A tensor of unclear meaning (a boolean mask of some polarity, say) is not taken for lengths."""
    if not isinstance(value, Tensor) or value.dtype.is_floating_point or value.dtype == torch.bool:
        given = f"a {value.dtype} tensor" if isinstance(value, Tensor) else repr(type(value).__name__)
        raise TypeError(f"{name} must be an integer tensor of counts, not {given}")
