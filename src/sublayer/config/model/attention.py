"""Multi-head attention (section 3.2.2)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sublayer.config.model.norm import Norm
from sublayer.config.part import Factor, Part, Probability, Size

__all__ = ["Attention"]


class Attention(Part):
    """Multi-head attention (section 3.2.2).

    heads: query heads. kv_heads: heads of keys and values, a divisor of `heads`; unset means as many as heads.
    head_dim: width of a head; unset means dim / heads. window: how many positions, itself included, a query sees
    (sliding window); unset means all. query_key_norm: a norm over queries and over keys; query_key_norm_over: over
    each "head" by itself, or over "all" heads together (OLMo-2). scale: factor on the scores; unset means head_dim **
    -0.5. softcap: scores s become softcap * tanh(s / softcap) (Gemma 2). bias: of the projections to queries, keys and
    values; output_bias: of the projection back; unset means the same. dropout: on the attention weights.
    """

    heads: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    window: Size | None = None
    query_key_norm: Norm | None = None
    query_key_norm_over: Literal["head", "all"] = "head"
    scale: Factor | None = None
    softcap: Factor | None = None
    bias: bool = True
    output_bias: bool | None = None
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self

    @property
    def key_value_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def biased_output(self) -> bool:
        return self.bias if self.output_bias is None else self.output_bias

    def width(self, dim: int) -> int:
        """Width of one head in a model of width `dim`."""
        return dim // self.heads if self.head_dim is None else self.head_dim

    # --- arithmetic: D width of the stream, H query heads, G key-value heads, d width of a head

    def matrices(self, dim: int) -> int:
        """Numbers in the matrices: (H + 2 G) d columns from D for queries, keys and values, H d rows back to D."""
        return 2 * dim * (self.heads + self.key_value_heads) * self.width(dim)

    def parameters(self, dim: int) -> int:
        """With the biases, and the norms of queries and keys."""
        width, norm = self.width(dim), self.query_key_norm
        query, key = self.heads * width, self.key_value_heads * width
        biases = self.bias * (query + 2 * key) + self.biased_output * dim
        over = (width, width) if self.query_key_norm_over == "head" else (query, key)
        norms = 0 if norm is None else sum(norm.parameters(size) for size in over)
        return self.matrices(dim) + biases + norms

    def flops(self, dim: int) -> int:
        """Operations a token in the projections."""
        return 2 * self.matrices(dim)

    def source_flops(self, dim: int) -> int:
        """Operations a token of the source, of attention to one: its keys and values."""
        return 4 * dim * self.key_value_heads * self.width(dim)

    def attended_flops(self, dim: int, pairs: int) -> int:
        """Operations of Q K^T and of mixing the values: each a product of width d in every query head, for a pair."""
        return 4 * self.heads * self.width(dim) * pairs

    def cross_flops(self, dim: int, source_length: int) -> int:
        """Operations a token that attends to a source, whose keys and values are there."""
        return self.flops(dim) - self.source_flops(dim) + self.attended_flops(dim, source_length)

    def pairs(self, length: int, *, causal: bool) -> int:
        """Pairs of positions of one sequence that may attend to each other: those less than `window` apart."""
        reach = self.reach(length)
        # The last `reach` positions, itself included: shorter rows at the start.
        back = reach * (reach + 1) // 2 + (length - reach) * reach
        return back if causal else 2 * back - length

    def reach(self, length: int) -> int:
        """How many of `length` positions the last one attends to."""
        return length if self.window is None else min(length, self.window)

    def cached(self, dim: int) -> int:
        """Numbers in the keys and values of one token."""
        return 2 * self.key_value_heads * self.width(dim)

    def kept(self, dim: int, *, turned: bool, tensor: int = 1) -> int:
        """Numbers kept a token for the backward pass: the input, queries, keys, values, and what was found.

        turned: whether queries and keys are turned, and so written anew. tensor: how many processes share the heads.
        """
        norm, copies = self.query_key_norm, int(turned)
        if norm is not None:
            # What is turned or normalized; and the input of each head's norm, where its kernel wants a copy of it.
            copies = 1 + (self.query_key_norm_over == "head" and norm.gathers)
        return dim + (2 + copies) * (self.heads + self.key_value_heads) * self.width(dim) // tensor

    def cross_kept(self, dim: int, tensor: int = 1) -> int:
        """The same for a token that attends to a source, whose keys and values are counted there."""
        return dim + 2 * self.heads * self.width(dim) // tensor

    def found(self, dim: int, tensor: int = 1) -> int:
        """Numbers a token that the products and attention itself make: queries, keys, values, what is found, and that
        projected back."""
        return dim + 2 * (self.heads + self.key_value_heads) * self.width(dim) // tensor
