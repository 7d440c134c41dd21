"""The typed tree of what is learnt beside a model's own weights."""

from __future__ import annotations

from typing import Literal

from sublayer.config.part import Factor, Part, Probability, Size

__all__ = ["LowRank"]


class LowRank(Part):
    """LoRA (Hu et al. 2021): beside each chosen matrix W a product of two thin ones is learnt, and W stays as it is.

    rank: the thin side of the two. alpha: what they write is multiplied by alpha / rank.
    dropout: on what they read. targets: shell patterns over the names of linear maps ("*" crosses dots).
    """

    type: Literal["low-rank"] = "low-rank"
    rank: Size = 8
    alpha: Factor = 16.0
    dropout: Probability = 0.0
    targets: tuple[str, ...] = ("*.self_attention.*", "*.cross_attention.*", "*.feed_forward.*")
