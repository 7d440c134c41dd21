"""What a model is trained to do, as a typed part of a recipe; which text, model and measures go with it.

A task and the shape of a model are two choices, but not every pair makes sense: `kinds`, `head` and `sources` of each
task say which do, and a recipe is checked against them as a whole.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

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
    "exact_match",
]

PARALLEL = ("corpus", "lines", "tsv", "jsonl")
PLAIN = ("corpus", "corpora", "text")
LABELLED = ("corpus", "labelled-tsv", "labelled-jsonl")

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


BleuTokenizer = Literal[
    "auto", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "none"
]
"""How BLEU cuts texts into words, as sacreBLEU calls it."""


class TranslationTask(Part):
    """One text into another: a translation, a correction, another spelling.

    bleu: how BLEU cuts texts into words; auto: as sacreBLEU chooses for the target language (decoding.target_language,
    else data.target_language): zh, ja-mecab or ko-mecab, and 13a for any other.
    """

    type: Literal["translation"] = "translation"
    bleu: BleuTokenizer = "auto"

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


class Messages(Part):
    """Rows of labelled or parallel text as conversations of one question and its answer.

    system: what is said before the conversation; unset means nothing. user: the question. assistant: the answer.
    In all three, the name of a field in braces stands for what the row has there: {text}, {second} and {label} of
    labelled text, {source} and {target} of pairs; {{ and }} are braces.
    """

    system: str | None = None
    user: str
    assistant: str

    @model_validator(mode="after")
    def _fields_are_known(self) -> Self:
        for name in type(self).model_fields:
            unknown = [field for field in fields_of(getattr(self, name) or "") if field not in FIELDS]
            if unknown:
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise ValueError(f"task.messages.{name}: there is no field {{{unknown[0]}}}; known: {known}")
        if not any(field for field in fields_of(self.user)):
            raise ValueError(f"task.messages.user = {self.user!r} has no field in braces: every question is the same")
        return self


FIELDS = ("text", "second", "label", "source", "target")
"""What a row of labelled or parallel text has."""


def fields_of(template: str) -> list[str]:
    """The names in braces.

    Raises:
        ValueError: a brace is left open, or more than a name stands between two.
    """
    found: list[str] = []
    for _, name, form, conversion in Formatter().parse(template):
        if name is not None:
            if form or conversion or not name.isidentifier():
                raise ValueError(f"'{template}': only the name of a field may stand in braces (given: {{{name}}})")
            found.append(name)
    return found


class InstructionsTask(Part):
    """The answers of conversations: only what the assistant says is learned, its end included.

    messages: what makes conversations of labelled or parallel text; unset means that the source is one of
    conversations.
    """

    type: Literal["instructions"] = "instructions"
    messages: Messages | None = None

    kinds: ClassVar = ("decoder-only", "recurrent-decoder-only")
    head: ClassVar[str | None] = None
    sources: ClassVar = ("chat", *LABELLED, *(kind for kind in PARALLEL if kind not in LABELLED))
    metrics: ClassVar = ("loss", "perplexity", "exact_match")


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
