"""Scaled dot-product attention (section 3.2.1), computed in two ways.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V                                              (equation 1)

`explicit` is that line, and the oracle of the tests. `fused` is torch's kernel. `attend` takes the faster one, unless
somebody listens to the weights, which only the explicit way can show. Where the mask leaves most pairs out, it computes
pieces on a CPU (`nn/pieces.py`), and on a GPU the blocks that are left (`nn/flex.py`).

Shapes: B batch, H query heads, G key-value heads (H a multiple of G), S queries, T keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer.fast import attention_by_products
from sublayer.nn.flex import flex
from sublayer.nn.mask import Part, ResolvedMask, Rows
from sublayer.nn.tap import Tap

Way = Callable[[Tensor, Tensor, Tensor, ResolvedMask], Tensor]
"""Query, key, value and who may attend to whom, to what each query has found."""


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: ResolvedMask,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    tap: Tap | None = None,
) -> Tensor:
    """The equation itself. A query with nothing to attend to gets zeros, and gradients stay finite.

    Args:
        softcap: scores s become softcap * tanh(s / softcap) before the mask (Gemma 2, https://arxiv.org/abs/2408.00118).

    Shape: query [B, H, S, d], key and value [B, G, T, d] -> [B, H, S, d]; the tap sees weights [B, H, S, T].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scale) @ key.transpose(-2, -1)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    weights = attention_weights(scores, mask)
    if tap is not None:
        weights = tap(weights)
    return F.dropout(weights, dropout) @ value


def attention_weights(scores: Tensor, mask: ResolvedMask) -> Tensor:
    """The softmax of scores over the keys that a query may attend to; zeros for a query that has none.

    Shape: scores [B, H, S, T] -> the same.
    """
    if mask.bias is not None:
        scores = scores + mask.bias
    if mask.allowed is not None:
        # The lowest number and not -inf: a row of nothing but -inf has no softmax, and its gradient is NaN.
        scores = torch.where(mask.allowed, scores, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return weights if mask.occupied is None else weights * mask.occupied


def fused(
    query: Tensor, key: Tensor, value: Tensor, mask: ResolvedMask, *, scale: float, dropout: float = 0.0
) -> Tensor:
    """The same by torch's fused kernel, which never writes the weights to memory.

    Shape: as in `explicit`.
    """
    # On a CPU the kernel adds numbers: of a boolean mask it would make a copy of its own in every layer, and keep it.
    adds = mask.bias is not None or (query.device.type == "cpu" and query.dtype == mask.dtype)
    given = None if mask.causal else mask.added if adds else mask.allowed
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=given,
        is_causal=mask.causal,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: ResolvedMask,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    tap: Tap,
) -> Tensor:
    """Attention by whichever way is right here: the kernel knows no cap on the scores, and shows no weights.

    Shape: as in `explicit`.
    """
    if tap.listened:
        return explicit(query, key, value, mask, scale=scale, softcap=softcap, dropout=dropout, tap=tap)
    if softcap is not None or _products_are_faster(query):
        way = partial(explicit, scale=scale, softcap=softcap, dropout=dropout)
    else:
        way = partial(fused, scale=scale, dropout=dropout)
    # Queries side by side on one source (a beam's) are more than the mask was resolved for.
    resolved = (query.shape[2], key.shape[2]) == (mask.queries, mask.keys)
    if resolved and softcap is None and not dropout and mask.blocks is not None:
        found = flex(query, key, value, mask.blocks, scale=scale)
        if found is not None:
            return found
    rows = mask.pieces if resolved else None
    return way(query, key, value, mask) if rows is None else in_pieces(way, query, key, value, rows)


def in_pieces(way: Way, query: Tensor, key: Tensor, value: Tensor, rows: list[Rows]) -> Tensor:
    """The same, piece by piece, each of them by `way`: it costs what the allowed pairs cost.

    Shape: as in `explicit`.
    """
    if rows[0].rows is None:
        return _row_in_pieces(way, query, key, value, rows[0].parts)
    counts = [several.rows or 0 for several in rows]
    split = zip(rows, _split(query, counts, 0), _split(key, counts, 0), _split(value, counts, 0), strict=True)
    return torch.cat([_row_in_pieces(way, q, k, v, several.parts) for several, q, k, v in split])


def _row_in_pieces(way: Way, query: Tensor, key: Tensor, value: Tensor, parts: list[Part]) -> Tensor:
    queries = _split(query, [part.piece.queries.stop - part.piece.queries.start for part in parts], 2)
    ranges = [part.piece.keys for part in parts if part.mask is not None]
    seen = zip(_cut(key, ranges), _cut(value, ranges), strict=True)
    mixed: list[Tensor] = []
    for part, some in zip(parts, queries, strict=True):
        if part.mask is None:
            mixed.append(some.new_zeros(*some.shape[:-1], value.shape[-1]).transpose(1, 2))
        else:
            # The kernel writes [B, S, H, d], so that is how they are put together.
            mixed.append(way(some, *next(seen), part.mask).transpose(1, 2))
    return torch.cat(mixed, dim=1).transpose(1, 2)


def _split(x: Tensor, sizes: list[int], dim: int) -> tuple[Tensor, ...]:
    """`Tensor.split`, which torch's own signature leaves untyped."""
    return cast("tuple[Tensor, ...]", x.split(sizes, dim))


def _cut(x: Tensor, ranges: list[slice]) -> list[Tensor]:
    """The keys (or values) of each range, such that their gradients are put together once, however many there are.

    Slices would each have a gradient as large as x, so x is split wherever a range begins or ends, and ranges that
    overlap share those parts.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return [x[:, :, each] for each in ranges]
    bounds = sorted({0, x.shape[2], *(bound for each in ranges for bound in (each.start, each.stop))})
    parts = _split(x, [b - a for a, b in pairwise(bounds)], 2)
    index = {bound: number for number, bound in enumerate(bounds)}
    pieces = [parts[index[each.start] : index[each.stop]] for each in ranges]
    return [each[0] if len(each) == 1 else torch.cat(each, dim=2) for each in pieces]


def _products_are_faster(query: Tensor) -> bool:
    """On a CPU the fused kernel may be slow in half precision; it is measured (`sublayer.fast`)."""
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    # A compiler cannot look into the measuring.
    return torch.compiler.is_compiling() or attention_by_products(query.dtype)
