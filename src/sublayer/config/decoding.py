"""The typed tree of decoding: for models that translate, and for models that go on from a prompt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sublayer.config.part import Beams, Count, Factor, LengthPenalty, Part, Size

TokenId = Count

Weights = Literal["float32", "bfloat16", "int8"]
"""What a model's matrices are kept as where it is only decoded with, on a CPU (`fast/decoding/weight_formats.py`)."""


class Greedy(Part):
    """At every step the most probable token."""

    type: Literal["greedy"] = "greedy"


class Beam(Part):
    """The `size` best beginnings are kept at every step.

    length_penalty: alpha in score = log P(text | prompt) / |text| ** alpha, where |text| counts the end token.
    early_stopping: whether a search ends with the `size`-th finished text; else it goes on while what is still running
    could score better than the worst of them (as `transformers` has it).
    """

    type: Literal["beam"] = "beam"
    size: Beams = 4
    length_penalty: LengthPenalty = 1.0
    early_stopping: bool = True


class Sampling(Part):
    """At every step a token drawn from the model's distribution, sharpened and cut in the order of the fields.

    temperature: what the logits are divided by; below 1 is more certain than the model.
    top_k: only the k most probable tokens (and those as probable as the last of them); unset means all.
    top_p: only the fewest tokens, most probable first, whose probabilities sum to p (Holtzman et al. 2020).
    min_p: only tokens at least min_p times as probable as the most probable one (Nguyen et al. 2024).
    """

    type: Literal["sampling"] = "sampling"
    temperature: Factor = 1.0
    top_k: Size | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


Search = Annotated[Greedy | Beam | Sampling, Field(discriminator="type")]


class Constraints(Part):
    """What may be said, whichever way it is searched for. Tokens are ids.

    repetition_penalty: above 1, what the prompt or the text has said becomes less likely (Keskar et al. 2019).
    no_repeat_ngram: no so many tokens in a row are said twice. min_length: new tokens before the text may end.
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

    length_penalty: alpha in score = log P(y|x) / |y| ** alpha, where |y| counts the end marker.
    early_stopping: as `Beam` has it.
    max_ratio, max_extra: a translation has at most max_ratio * source tokens + max_extra tokens.
    max_tokens: it has at most so many in any case, the end token included. forced_end: what is said as the last of
    these where a translation has not ended before (BART).
    start: what the decoder is fed first; unset means the tokenizer's start token. end_ids: tokens that end a text,
    besides the tokenizer's end marker. source_language, target_language: codes that the tokenizer has tokens for, as
    mBART, NLLB, M2M100 and Marian have; unset means what `constraints.forced` and the tokenizer's template say.
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
    source_language: str | None = None
    target_language: str | None = None

    def room(self, source: int) -> int:
        """The most tokens that a translation of `source` tokens has, the end token included."""
        most = int(source * self.max_ratio) + self.max_extra
        return most if self.max_tokens is None else min(most, self.max_tokens)
