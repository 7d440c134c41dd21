"""What a model is trained to do, as a typed part of a recipe; which text, model and measures go with it.

A task and the shape of a model are two choices, but not every pair makes sense: `kinds`, `head` and `sources` of each
task say which do, and a recipe is checked against them as a whole.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sublayer.config.part import Part

Metric = Literal[
    "loss",
    "bleu",
    "perplexity",
    "word_perplexity",
    "accuracy",
    "macro_f1",
    "span_f1",
    "recall_at_1",
]

PARALLEL = ("corpus", "lines", "tsv", "jsonl")
PLAIN = ("corpus", "text")
LABELLED = ("corpus", "labelled-tsv", "labelled-jsonl")

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class TranslationTask(Part):
    """One text into another: a translation, a correction, another spelling."""

    type: Literal["translation"] = "translation"

    kinds: ClassVar = ("encoder-decoder", "recurrent-encoder-decoder")
    head: ClassVar[str | None] = None
    sources: ClassVar = PARALLEL
    metrics: ClassVar = ("loss", "bleu")


class CausalTask(Part):
    """Each token from those before it (Radford et al. 2018). Documents are packed into rows of data.max_length tokens.

    stride: how far apart the rows of a long document begin, so that each begins with data.max_length - stride tokens
    of context that are not predicted again; unset means data.max_length: none.
    evaluation_stride: the same where the perplexity is measured.
    """

    type: Literal["causal"] = "causal"
    stride: PositiveInt | None = None
    evaluation_stride: PositiveInt | None = None

    kinds: ClassVar = ("decoder-only", "recurrent-decoder-only")
    head: ClassVar[str | None] = None
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity", "word_perplexity")


class MaskedTask(Part):
    """Hidden tokens from those around them (BERT, Devlin et al. 2019, section 3.1).

    rate: part of the tokens that are to be predicted. mask, random: part of those that the mask token stands for, and
    part that any other token stands for; the rest are left as they are. whole_words: all pieces of a word or none.
    """

    type: Literal["masked"] = "masked"
    rate: Share = 0.15
    mask: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    random: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    whole_words: bool = False

    kinds: ClassVar = ("encoder-only",)
    head: ClassVar[str | None] = "masked-language"
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity", "accuracy")


class SpanCorruptionTask(Part):
    """Spans that were left out of a text, each behind the sentinel that stands in its place (T5, Raffel et al. 2020).

    density: part of the tokens that is left out. span: their mean length. sentinels: how many there are, `<extra_id_0>`
    and on; a text with more spans than that gets longer ones.
    """

    type: Literal["span-corruption"] = "span-corruption"
    density: Share = 0.15
    span: Annotated[float, Field(ge=1.0)] = 3.0
    sentinels: PositiveInt = 100

    kinds: ClassVar = ("encoder-decoder", "recurrent-encoder-decoder")
    head: ClassVar[str | None] = None
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity")


class DenoisingTask(Part):
    """A text from what noise left of it (BART, Lewis et al. 2020, section 2.2).

    density: part of the tokens that is hidden. span: mean length of a hidden span, drawn from Poisson's distribution;
    one mask token stands for each span, and a span of no tokens puts a mask in between. permute: sentences in random
    order.
    """

    type: Literal["denoising"] = "denoising"
    density: Share = 0.3
    span: Annotated[float, Field(ge=1.0)] = 3.0
    permute: bool = True

    kinds: ClassVar = ("encoder-decoder", "recurrent-encoder-decoder")
    head: ClassVar[str | None] = None
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity")


class EqualWeights(Part):
    """Every text counts the same."""

    type: Literal["equal"] = "equal"


class BalancedWeights(Part):
    """Every label counts the same: a text weighs texts / (labels * texts of its label)."""

    type: Literal["balanced"] = "balanced"


class GivenWeights(Part):
    """A weight for each label. values: in the order of model.head.labels, which must be given too."""

    type: Literal["given"] = "given"
    values: tuple[NonNegativeFloat, ...]


class ClassificationTask(Part):
    """A label for a text, or for two texts together. weights: how much the labels count in the loss."""

    type: Literal["classification"] = "classification"
    weights: Annotated[EqualWeights | BalancedWeights | GivenWeights, Field(discriminator="type")] = EqualWeights()

    kinds: ClassVar = ("encoder-only",)
    head: ClassVar[str | None] = "classification"
    sources: ClassVar = LABELLED
    metrics: ClassVar = ("loss", "accuracy", "macro_f1")


class TaggingTask(Part):
    """A tag for each word. A word's tag is asked of its first piece."""

    type: Literal["tagging"] = "tagging"

    kinds: ClassVar = ("encoder-only",)
    head: ClassVar[str | None] = "tagging"
    sources: ClassVar = ("conll",)
    metrics: ClassVar = ("loss", "accuracy", "span_f1")


class EmbeddingTask(Part):
    """Vectors that are near for texts that belong together: each text must find its own among the others of the batch.

    scale: the factor on the similarities (the inverse of the temperature).
    Multiple negatives ranking loss (Henderson et al. 2017, section 4.4).
    """

    type: Literal["embedding"] = "embedding"
    scale: PositiveFloat = 20.0

    kinds: ClassVar = ("encoder-only",)
    head: ClassVar[str | None] = "sentence-embedding"
    sources: ClassVar = PARALLEL
    metrics: ClassVar = ("loss", "recall_at_1")


class InstructionsTask(Part):
    """The answers of conversations: only what the assistant says is learned, its end included."""

    type: Literal["instructions"] = "instructions"

    kinds: ClassVar = ("decoder-only", "recurrent-decoder-only")
    head: ClassVar[str | None] = None
    sources: ClassVar = ("chat",)
    metrics: ClassVar = ("loss", "perplexity")


Task = Annotated[
    TranslationTask
    | CausalTask
    | MaskedTask
    | SpanCorruptionTask
    | DenoisingTask
    | ClassificationTask
    | TaggingTask
    | EmbeddingTask
    | InstructionsTask,
    Field(discriminator="type"),
]
