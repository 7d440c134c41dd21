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

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sublayer.nn import flex, pieces
from sublayer.nn.pieces import Piece

Span = tuple[Tensor | None, Tensor | None]
"""The first key that each query sees, and the one after the last, [1 or B, 1 or S] int64; None for no bound."""


class Grid(NamedTuple):
    """The queries and keys that a mask is resolved for: S and T of them.

    first: which key the first query is, int64 []; None where the queries are the last of the keys. A tensor, so that
    shapes need not change while a text grows.
    """

    queries: int
    keys: int
    device: torch.device
    first: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """Which key each query is, int64 [S]."""
        if self.first is None:
            return torch.arange(self.keys - self.queries, self.keys, device=self.device)
        return self.first + torch.arange(self.queries, device=self.device)


class Rule(Protocol):
    """One reason for which a query may not attend to a key."""

    def allowed(self, grid: Grid) -> Tensor:
        """Boolean, broadcastable to [B, 1, S, T]."""
        ...

    def span(self, grid: Grid) -> Span | None:
        """The interval of keys that each query sees; None where it is not an interval, or where telling is dear."""
        ...


class Interval:
    """A rule by which every query sees keys that stand side by side. The interval is all that it says."""

    def span(self, grid: Grid) -> Span:
        raise NotImplementedError

    def allowed(self, grid: Grid) -> Tensor:
        begin, end = self.span(grid)
        key = torch.arange(grid.keys, device=grid.device)
        inside = torch.ones(1, 1, grid.keys, dtype=torch.bool, device=grid.device)
        if begin is not None:
            inside = inside & (key >= begin.unsqueeze(-1))
        if end is not None:
            inside = inside & (key < end.unsqueeze(-1))
        return inside.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Causal(Interval):
    def span(self, grid: Grid) -> Span:
        return None, grid.positions[None] + 1


@dataclass(frozen=True, eq=False)
class Window(Interval):
    size: int

    def span(self, grid: Grid) -> Span:
        position = grid.positions[None]
        return position - (self.size - 1), position + self.size


@dataclass(frozen=True, eq=False)
class Spans(Interval):
    """Keys from `begin` (if any) up to `end` (if any). Shape: [1 or B, 1 or S], integer."""

    begin: Tensor | None
    end: Tensor | None

    def span(self, grid: Grid) -> Span:
        begin, end = (None if place is None else place.to(grid.device) for place in (self.begin, self.end))
        return begin, end


@dataclass(frozen=True, eq=False)
class Segments:
    query: Tensor
    key: Tensor

    def allowed(self, grid: Grid) -> Tensor:
        query, key = self.query.to(grid.device)[:, -grid.queries :], self.key.to(grid.device)[:, : grid.keys]
        return (query.unsqueeze(-1) == key.unsqueeze(-2)).unsqueeze(1)

    def span(self, grid: Grid) -> Span | None:
        """A text's own interval, where its tokens stand side by side and the queries are the last of the keys."""
        number = self.key
        if self.query is not number or number.shape[1] != grid.keys:
            return None
        edge = torch.ones(number.shape[0], 1, dtype=torch.bool, device=number.device)
        changes = number[:, 1:] != number[:, :-1]
        # A number that comes again later makes more runs than there are numbers.
        ordered = number.sort(dim=1).values
        if not torch.equal(changes.sum(1), (ordered[:, 1:] != ordered[:, :-1]).sum(1)):
            return None
        place = torch.arange(grid.keys, device=number.device)
        begin = torch.where(torch.cat((edge, changes), 1), place, 0).cummax(1).values
        end = torch.where(torch.cat((changes, edge), 1), place + 1, grid.keys).flip(1).cummin(1).values.flip(1)
        return begin[:, -grid.queries :].to(grid.device), end[:, -grid.queries :].to(grid.device)


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
    def padding(cls, lengths: Tensor | None) -> Mask:
        """Only the first `lengths[b]` keys of row b are real (padding on the right); all where None is given.

        Shape: lengths [B], integer.
        """
        if lengths is None:
            return cls()
        _require_integers("lengths", lengths)
        return cls((Spans(None, lengths.unsqueeze(-1)),))

    @classmethod
    def left_padding(cls, counts: Tensor) -> Mask:
        """The first `counts[b]` keys of row b are padding.

        Shape: counts [B], integer.
        """
        _require_integers("counts", counts)
        return cls((Spans(counts.unsqueeze(-1), None),))

    @classmethod
    def segments(cls, query: Tensor | None, key: Tensor | None = None) -> Mask:
        """A query attends to keys with its own segment number: several texts packed in one row stay apart.

        Shape: query [B, S] and key [B, T], integer; key is query where it is left out. None: rows are whole texts.
        """
        if query is None:
            return cls()
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
        lengths: Tensor | None = None,
        first: Tensor | None = None,
    ) -> ResolvedMask:
        """Say it for these numbers of queries and keys, once for all layers of a stack.

        Args:
            bias: numbers to add to the scores (ALiBi, relative positions), broadcastable to [B, H, S, T].
            lengths: [B] integer. Nobody reads what the queries of row b from lengths[b] on find: they are padding, and
                need not be computed. It hides no key. None where all are read.
            first: which key the first query is, int64 []; the queries are the last of the keys where it is left out.
        """
        # One query that is the last: everything before it is its past.
        last = queries == 1 and first is None
        rules = tuple(rule for rule in self.rules if not (last and isinstance(rule, Causal)))
        grid = Grid(queries, keys, device, first)
        return ResolvedMask(rules, grid, dtype, None if bias is None else bias.to(dtype), lengths)


@dataclass(frozen=True, eq=False)
class ResolvedMask:
    """A resolved mask, and the bias of the positions with it. Its tensors are made when somebody reads them.

    rules: who may attend to whom. grid: of which queries and keys, S and T of them.
    bias: what the positions add to the scores, broadcastable to [B, H, S, T], or None.
    lengths: how many queries of each row are read, [B], or None for all; the others get any finite numbers.
    """

    rules: tuple[Rule, ...]
    grid: Grid
    dtype: torch.dtype
    bias: Tensor | None
    lengths: Tensor | None = None

    @property
    def queries(self) -> int:
        return self.grid.queries

    @property
    def keys(self) -> int:
        return self.grid.keys

    @property
    def device(self) -> torch.device:
        return self.grid.device

    @property
    def causal(self) -> bool:
        """Whether it is exactly the causal square, which a kernel may know by itself."""
        only = len(self.rules) == 1 and isinstance(self.rules[0], Causal)
        square = self.queries == self.keys and self.grid.first is None
        return only and square and self.bias is None

    @cached_property
    def allowed(self) -> Tensor | None:
        """Boolean, broadcastable to [B, H, S, T]; None means everything."""
        if not self.rules:
            return None
        return reduce(torch.logical_and, (rule.allowed(self.grid) for rule in self.rules))

    @cached_property
    def added(self) -> Tensor | None:
        """Mask and bias as the fused kernels add them, [1 or B, 1 or H, S, T]: -inf where not allowed.

        A kernel itself gives zeros for a row that has nothing else.
        """
        if self.allowed is None:
            mask = self.bias
        else:
            zero = torch.zeros((), dtype=self.dtype, device=self.device)
            mask = torch.where(self.allowed, zero if self.bias is None else self.bias, float("-inf"))
        return mask if mask is None or mask.dim() == 4 else mask.unsqueeze(0)

    @cached_property
    def occupied(self) -> Tensor | None:
        """[.., S, 1], whether a query has anything to attend to; None where every query surely has."""
        # Causality and windows leave a query itself, where it is among the keys; spans and segments may not.
        if self.queries <= self.keys and all(isinstance(rule, Causal | Window) for rule in self.rules):
            return None
        return None if self.allowed is None else self.allowed.any(-1, keepdim=True)

    @cached_property
    def pieces(self) -> list[Rows] | None:
        """The same attention in pieces, for rows of the batch in order; None where that costs no less than the whole.

        Found on a CPU only: elsewhere, looking at numbers waits for the device.
        """
        if self.device.type != "cpu" or pieces.is_small(self.queries, self.keys):
            return None
        if self.grid.first is not None or (self.lengths is None and (not self.rules or self.causal)):
            return None
        if self.bias is not None and self.bias.requires_grad and torch.is_grad_enabled():
            return None  # each piece of it would have a gradient as large as the whole
        interval = self._interval()
        if interval is None:
            return None
        begin, end = interval
        plan = pieces.plan(begin.numpy(), end.numpy(), self.keys, causal=self.causal)
        if plan is None:
            return None
        everywhere = len(begin) == 1
        shared: dict[object, ResolvedMask] = {}
        found: list[Rows] = []
        row = 0
        for count, parts in plan:
            rows = slice(None) if everywhere else slice(row, row + count)
            resolved = [Part(piece, self._within(piece, rows, begin[row], end[row], shared)) for piece in parts]
            found.append(Rows(None if everywhere else count, resolved))
            row += count
        return found

    @cached_property
    def blocks(self) -> flex.Blocks | None:
        """What flex attention needs, on a GPU; None where the fused kernel and a mask do as well, and on a CPU."""
        if self.device.type != "cuda" or torch.compiler.is_compiling() or pieces.is_small(self.queries, self.keys):
            return None
        if self.bias is not None or not self.rules or self.causal or self.grid.first is not None:
            return None
        interval = self._interval()
        causal = any(isinstance(rule, Causal) for rule in self.rules)
        return None if interval is None else flex.blocks(*interval, self.keys, causal=causal)

    def _interval(self) -> tuple[Tensor, Tensor] | None:
        """What all rules leave of the keys: the first and the one after the last, [1 or B, S] each."""
        begin, end = (torch.full((1, 1), number, device=self.device) for number in (0, self.keys))
        for rule in self.rules:
            span = rule.span(self.grid)
            if span is None:
                return None
            begin = begin if span[0] is None else torch.maximum(begin, span[0])
            end = end if span[1] is None else torch.minimum(end, span[1])
        if self.lengths is not None:
            unread = torch.arange(self.queries, device=self.device) >= self.lengths.to(self.device).unsqueeze(-1)
            end = end.masked_fill(unread, 0)
        rows = max(len(begin), len(end))
        return begin.expand(rows, self.queries), end.expand(rows, self.queries)

    def _within(
        self, piece: Piece, rows: slice, begin: Tensor, end: Tensor, shared: dict[object, ResolvedMask]
    ) -> ResolvedMask | None:
        """The resolved mask of a piece; those that are alike are one object, for their tensors are made once."""
        queries, keys = piece.queries.stop - piece.queries.start, piece.keys.stop - piece.keys.start
        if not keys:
            return None
        begin = (begin[piece.queries] - piece.keys.start).clamp(min=0)
        end = (end[piece.queries] - piece.keys.start).clamp(max=keys)
        rules: tuple[Rule, ...] = (Spans(begin[None], end[None]),)
        likeness: object = (keys, begin.numpy().tobytes(), end.numpy().tobytes())
        if piece.causal:
            rules, likeness = (Causal(),), ("causal", queries)
        elif not begin.any() and bool((end == keys).all()):
            rules, likeness = (), ("everything", queries, keys)
        if self.bias is None:
            within = replace(self, rules=rules, grid=Grid(queries, keys, self.device), lengths=None)
            return shared.setdefault(likeness, within)
        bias = self.bias[..., piece.queries, piece.keys]
        bias = bias[rows] if bias.dim() == 4 and len(bias) > 1 else bias
        return replace(self, rules=rules, grid=Grid(queries, keys, self.device), bias=bias, lengths=None)


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of an attention and its resolved mask; None where its queries see nothing."""

    piece: Piece
    mask: ResolvedMask | None


@dataclass(frozen=True, eq=False)
class Rows:
    """How the next `rows` rows of a batch are cut, all rows where that is None."""

    rows: int | None
    parts: list[Part]


def _require_integers(name: str, value: object) -> None:
    """A tensor of unclear meaning (a boolean mask of some polarity, say) is not taken for lengths."""
    if not isinstance(value, Tensor) or value.dtype.is_floating_point or value.dtype == torch.bool:
        given = f"a {value.dtype} tensor" if isinstance(value, Tensor) else repr(type(value).__name__)
        raise TypeError(f"{name} must be an integer tensor of counts, not {given}")
