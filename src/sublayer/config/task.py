"""What a model is trained to do, as a typed part of a recipe; which text, model and measures go with it.

A task and the shape of a model are two choices, but not every pair makes sense: `kinds`, `head` and `sources` of each
task say which do, and a recipe is checked against them as a whole. What a task does stands in `sublayer.tasks`, a file
a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from sublayer.config.data import Data
from sublayer.config.part import Part

__all__ = [
    "BalancedWeights", "BleuTokenizer", "CausalTask", "ClassificationTask", "DenoisingTask", "EmbeddingTask",
    "EqualWeights", "GivenWeights", "InstructionsTask", "MEASURES", "MaskedTask", "Measure", "Messages", "Metric",
    "SpanCorruptionTask", "TaggingTask", "Task", "TaskSettings", "TranslationTask",
]  # fmt: skip

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
    "pearson",
    "spearman",
]


@dataclass(frozen=True)
class Measure:
    """A number that an evaluation gives. title: for people. better: which way. digits: behind the point."""

    title: str
    better: Literal["lower", "higher"]
    digits: int

    def improves(self, value: float, on: float) -> bool:
        """Whether `value` is better than `on`."""
        return value < on if self.better == "lower" else value > on

    def shown(self, value: float) -> str:
        """`value` with as many digits as mean something."""
        return f"{value:.{self.digits}f}"


MEASURES: Mapping[str, Measure] = {
    "loss": Measure("loss", "lower", 3),
    "bleu": Measure("BLEU", "higher", 1),
    "perplexity": Measure("perplexity", "lower", 2),
    "word_perplexity": Measure("perplexity of a word", "lower", 2),
    "accuracy": Measure("accuracy", "higher", 4),
    "macro_f1": Measure("macro F1", "higher", 4),
    "span_f1": Measure("F1 of spans", "higher", 4),
    "recall_at_1": Measure("recall at 1", "higher", 4),
    "exact_match": Measure("exact answers", "higher", 4),
    "pearson": Measure("Pearson's r", "higher", 4),
    "spearman": Measure("Spearman's rho", "higher", 4),
}
"""All that any task measures; each task's `metrics` say which it does."""

PARALLEL = ("corpus", "lines", "tsv", "jsonl", "parquet")
PLAIN = ("corpus", "corpora", "text", "text-jsonl", "text-parquet")
LABELLED = ("corpus", "labelled-tsv", "labelled-jsonl")

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


BleuTokenizer = Literal[
    "auto", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "none"
]
"""How BLEU cuts texts into words, as sacreBLEU calls it."""


SHORTEST = 8
"""Tokens that a row of anything but pairs must have room for: its markers, and something between them."""


class TaskSettings(Part):
    """What every task says of itself.

    kinds: of models that learn it, the usual one first. head: that an encoder needs. sources: types of text that it
    reads. metrics: what it measures. shortest: tokens that a row must have room for.
    """

    kinds: ClassVar[tuple[str, ...]] = ("encoder-only",)
    head: ClassVar[str | None] = None
    sources: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[Metric, ...]]
    shortest: ClassVar[int] = SHORTEST

    @classmethod
    def suits(cls, model: Any) -> bool:
        """Whether a model with this tree, whose recipe nobody knows, can do the task."""
        return model.kind in cls.kinds and (cls.head is None or model.head.type == cls.head)

    def check(self, data: Data, model: Any) -> None:
        """
        Raises:
            ValueError: the settings do not go together, or not with the rest of the recipe.
        """


class TranslationTask(TaskSettings):
    """One text into another: a translation, a correction, another spelling.

    bleu: how BLEU cuts texts into words; auto: as sacreBLEU chooses for the target language (decoding.target_language,
    else data.target_language): zh, ja-mecab or ko-mecab, and 13a for any other.
    """

    type: Literal["translation"] = "translation"
    bleu: BleuTokenizer = "auto"

    kinds: ClassVar = ("encoder-decoder", "recurrent-encoder-decoder")
    sources: ClassVar = PARALLEL
    metrics: ClassVar = ("loss", "bleu")
    shortest: ClassVar = 1


class CausalTask(TaskSettings):
    """Each token from those before it (Radford et al. 2018). Documents are packed into rows of data.max_length tokens.

    stride: how far apart the rows of a long document begin, so that each begins with data.max_length - stride tokens
    of context that are not predicted again; unset means data.max_length: none.
    evaluation_stride: the same where the perplexity is measured.
    """

    type: Literal["causal"] = "causal"
    stride: PositiveInt | None = None
    evaluation_stride: PositiveInt | None = None

    kinds: ClassVar = ("decoder-only", "recurrent-decoder-only")
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity", "word_perplexity")

    def check(self, data: Data, model: Any) -> None:
        for name in ("stride", "evaluation_stride"):
            stride = getattr(self, name)
            if stride is not None and stride > data.max_length:
                raise ValueError(f"task.{name} = {stride} is more than data.max_length = {data.max_length}")


class MaskedTask(TaskSettings):
    """Hidden tokens from those around them (BERT, Devlin et al. 2019, section 3.1).

    rate: part of the tokens that are to be predicted. mask, random: part of those that the mask token stands for, and
    part that any other token stands for; the rest are left as they are. whole_words: all pieces of a word or none.
    """

    type: Literal["masked"] = "masked"
    rate: Share = 0.15
    mask: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    random: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    whole_words: bool = False

    head: ClassVar = "masked-language"
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity", "accuracy")

    def check(self, data: Data, model: Any) -> None:
        if self.mask + self.random > 1:
            raise ValueError(f"task.mask + task.random = {self.mask + self.random:g} is more than 1")


class SpanCorruptionTask(TaskSettings):
    """Spans that were left out of a text, each behind the sentinel that stands in its place (T5, Raffel et al. 2020).

    density: part of the tokens that is left out. span: their mean length. sentinels: how many there are, `<extra_id_0>`
    and on; a text with more spans than that gets longer ones.
    """

    type: Literal["span-corruption"] = "span-corruption"
    density: Share = 0.15
    span: Annotated[float, Field(ge=1.0)] = 3.0
    sentinels: PositiveInt = 100

    kinds: ClassVar = ("encoder-decoder", "recurrent-encoder-decoder")
    sources: ClassVar = PLAIN
    metrics: ClassVar = ("loss", "perplexity")


class DenoisingTask(TaskSettings):
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


class ClassificationTask(TaskSettings):
    """A label for a text, or for two texts together. weights: how much the labels count in the loss."""

    type: Literal["classification"] = "classification"
    weights: Annotated[EqualWeights | BalancedWeights | GivenWeights, Field(discriminator="type")] = EqualWeights()

    head: ClassVar = "classification"
    sources: ClassVar = LABELLED
    metrics: ClassVar = ("loss", "accuracy", "macro_f1")

    def check(self, data: Data, model: Any) -> None:
        labels = len(model.head.labels)
        if isinstance(self.weights, GivenWeights) and labels != (given := len(self.weights.values)):
            raise ValueError(f"task.weights.values has {given} weights for the {labels} labels of model.head.labels")


class RegressionTask(TaskSettings):
    """A number for a text, or for two texts together: stars of a review, how alike two sentences are.

    The label of a row is the number. The model needs head.problem = "regression", and one label: what the number is.
    """

    type: Literal["regression"] = "regression"

    head: ClassVar = "classification"
    sources: ClassVar = LABELLED
    metrics: ClassVar = ("loss", "pearson", "spearman")

    @classmethod
    def suits(cls, model: Any) -> bool:
        return super().suits(model) and model.head.problem == "regression" and len(model.head.labels) == 1

    def check(self, data: Data, model: Any) -> None:
        if model.head.problem != "regression" or len(model.head.labels) > 1:
            raise ValueError("task 'regression' needs model.head.problem = 'regression', and one label at most")


class TaggingTask(TaskSettings):
    """A tag for each word. A word's tag is asked of its first piece."""

    type: Literal["tagging"] = "tagging"

    head: ClassVar = "tagging"
    sources: ClassVar = ("conll",)
    metrics: ClassVar = ("loss", "accuracy", "span_f1")


class EmbeddingTask(TaskSettings):
    """Vectors that are near for texts that belong together: each text must find its own among the others of the batch.

    scale: the factor on the similarities (the inverse of the temperature).
    Multiple negatives ranking loss (Henderson et al. 2017, section 4.4).
    """

    type: Literal["embedding"] = "embedding"
    scale: PositiveFloat = 20.0

    head: ClassVar = "sentence-embedding"
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


class InstructionsTask(TaskSettings):
    """The answers of conversations: only what the assistant says is learned, its end included.

    messages: what makes conversations of labelled or parallel text; unset means that the source is one of
    conversations.
    """

    type: Literal["instructions"] = "instructions"
    messages: Messages | None = None

    kinds: ClassVar = ("decoder-only", "recurrent-decoder-only")
    sources: ClassVar = ("chat", *LABELLED, *(kind for kind in PARALLEL if kind not in LABELLED))
    metrics: ClassVar = ("loss", "perplexity", "exact_match")

    def check(self, data: Data, model: Any) -> None:
        sources = data.every_source()
        rows = [where for where, source in sources.items() if source.type != "chat"]
        if rows and self.messages is None:
            raise ValueError(f"{rows[0]} has no conversations: say in task.messages what is asked and answered")
        if len(rows) < len(sources) and self.messages is not None:
            raise ValueError("task.messages is set, but a source of the type 'chat' has messages of its own")


Task = Annotated[
    TranslationTask
    | CausalTask
    | MaskedTask
    | SpanCorruptionTask
    | DenoisingTask
    | ClassificationTask
    | RegressionTask
    | TaggingTask
    | EmbeddingTask
    | InstructionsTask,
    Field(discriminator="type"),
]
