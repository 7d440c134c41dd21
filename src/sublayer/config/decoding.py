"""The typed tree of decoding: for models that translate, and for models that go on from a prompt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sublayer.config.part import Beams, Count, Factor, LengthPenalty, Part, Size
from sublayer.config.sampling import Sampling

__all__ = ["Beam", "Constraints", "Decoding", "Generation", "Greedy", "Search", "Weights"]

TokenId = Count

Weights = Literal["float32", "bfloat16", "int8", "int4", "exact"]
"""What a model's matrices are kept as where it is only decoded with, on a CPU (`fast/engine/`).

exact: each in the format of the fewest bytes in which it loses nothing: those of a GGUF file in four or eight bits.
"""


class Greedy(Part):
    """At every step the most probable token."""

    type: Literal["greedy"] = "greedy"


class Beam(Part):
    """The `size` best beginnings are kept at every step.

    size: number of beams; 1 is greedy search.
    length_penalty: length penalty of beam search: score = log P(text | prompt) / |text| ** penalty, where |text| counts
    the end token.
    early_stopping: whether a search ends with the `size`-th finished text; else it goes on while what is still running
    could score better than the worst of them (as `transformers` has it).
    """

    type: Literal["beam"] = "beam"
    size: Beams = 4
    length_penalty: LengthPenalty = 1.0
    early_stopping: bool = True


Search = Annotated[Greedy | Beam | Sampling, Field(discriminator="type")]


class Constraints(Part):
    """What may be said, whichever way it is searched for. Tokens are ids.

    repetition_penalty: penalize tokens that occurred before; 1 is no penalty (Keskar et al. 2019).
    no_repeat_ngram: never repeat an n-gram of this size. min_length: minimum number of new tokens.
    banned: never said. allowed: nothing else is said; unset means all. forced: the first new tokens.
    renormalize: what is left after all of these is made a distribution again, which beam search adds up.
    """

    repetition_penalty: Factor = 1.0
    no_repeat_ngram: Size | None = None
    min_length: Count = 0
    banned: tuple[TokenId, ...] = ()
    allowed: tuple[TokenId, ...] | None = None
    forced: tuple[TokenId, ...] = ()
    renormalize: bool = False


class Generation(Part):
    """How a model goes on from a prompt unless told otherwise.

    max_tokens: new tokens at most, the end token included; unset means as many as the model's context has room for.
    max_length: prompt and new tokens together at most, where max_tokens is unset.
    stop: a text ends before any of these. end_ids: tokens that end a text, besides the tokenizer's end marker.
    """

    search: Search = Greedy()
    constraints: Constraints = Constraints()
    max_tokens: Size | None = 256
    max_length: Size | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    end_ids: tuple[TokenId, ...] = ()


class Decoding(Part):
    """How an encoder-decoder answers unless told otherwise.

    beam: number of beams; 1 is greedy search.
    length_penalty: length penalty of beam search: score = log P(y|x) / |y| ** penalty, where |y| counts the end token.
    early_stopping: as `Beam` has it.
    max_ratio, max_extra: a translation has at most max_ratio * source tokens + max_extra tokens.
    max_tokens: it has at most so many in any case, the end token included. forced_end: what is said as the last of
    these where a translation has not ended before (BART).
    start: what the decoder is fed first; unset means the tokenizer's start token. end_ids: tokens that end a text,
    besides the tokenizer's end marker. source_end: whether the end token follows a source where the tokenizer's
    template adds nothing. source_language, target_language: codes that the tokenizer has tokens for, as mBART, NLLB,
    M2M100 and Marian have; unset means what `constraints.forced` and the tokenizer's template say.
    """

    beam: Beams = 4
    length_penalty: LengthPenalty = 1.0
    early_stopping: bool = True
    max_ratio: Factor = 2.0
    max_extra: Count = 16
    max_tokens: Size | None = None
    forced_end: TokenId | None = None
    constraints: Constraints = Constraints()
    start: TokenId | None = None
    end_ids: tuple[TokenId, ...] = ()
    source_end: bool = True
    source_language: str | None = None
    target_language: str | None = None

    def room(self, source: int) -> int:
        """The most tokens that a translation of `source` tokens has, the end token included."""
        most = int(source * self.max_ratio) + self.max_extra
        return most if self.max_tokens is None else min(most, self.max_tokens)
