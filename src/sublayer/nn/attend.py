"""Scaled dot-product attention (section 3.2.1), computed in two ways.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V                                              (equation 1)

`explicit` is that line, and the oracle of the tests. `fused` is torch's kernel. `attend` takes the faster one, unless
somebody listens to the weights, which only the explicit way can show.

Shapes: B batch, H query heads, G key-value heads (H a multiple of G), S queries, T keys, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer.fast.choices import attention_by_products
from sublayer.nn.mask import Scope
from sublayer.nn.tap import Tap


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scope: Scope,
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
    if scope.additive is not None:
        scores = scores + scope.additive
    weights = scores.softmax(dim=-1)
    if scope.occupied is not None:
        weights = weights * scope.occupied
    if tap is not None:
        weights = tap(weights)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ value


def fused(query: Tensor, key: Tensor, value: Tensor, scope: Scope, *, scale: float, dropout: float = 0.0) -> Tensor:
    """The same by torch's fused kernel, which never writes the weights to memory.

    Shape: as in `explicit`.
    """
    mask = scope.allowed if scope.bias is None else scope.added
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if scope.causal else mask,
        is_causal=scope.causal,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scope: Scope,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    tap: Tap,
) -> Tensor:
    """Attention by whichever way is right here: the kernel knows no cap on the scores.

    Shape: as in `explicit`.
    """
    if tap.listened or softcap is not None or _products_are_faster(query):
        return explicit(query, key, value, scope, scale=scale, softcap=softcap, dropout=dropout, tap=tap)
    return fused(query, key, value, scope, scale=scale, dropout=dropout)


def _products_are_faster(query: Tensor) -> bool:
    """On a CPU the fused kernel may be slow in half precision; it is measured (`sublayer.fast`)."""
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    # A compiler cannot look into the measuring.
    return torch.compiler.is_compiling() or attention_by_products(query.dtype)
