"""The typed tree of a recipe: everything that decides how a trained model comes about.

A recipe is one TOML file. `sublayer schema` writes its JSON schema, so that an editor completes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from sublayer.config.model import Model, Probability
from sublayer.config.part import Part
from sublayer.config.presets import merged_with_preset

# --- data --------------------------------------------------------------------------------------------------------


class NamedCorpus(Part):
    """A corpus that sublayer knows (`sublayer data list`)."""

    type: Literal["corpus"] = "corpus"
    name: str


class LineAligned(Part):
    """Two plain files; line n of one is the translation of line n of the other."""

    type: Literal["lines"] = "lines"
    source: str
    target: str


class Tsv(Part):
    """One file of tab-separated columns, counted from 0."""

    type: Literal["tsv"] = "tsv"
    path: str
    source_column: NonNegativeInt = 0
    target_column: NonNegativeInt = 1


class Jsonl(Part):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"
    path: str
    source_field: str = "source"
    target_field: str = "target"


ParallelText = Annotated[NamedCorpus | LineAligned | Tsv | Jsonl, Field(discriminator="type")]


class RandomSplit(Part):
    """Hold out this many distinct source sentences, each with all its translations, for validation and for the test."""

    type: Literal["random"] = "random"
    validation: PositiveInt = 500
    test: PositiveInt = 2000
    seed: NonNegativeInt = 1


class GivenSplit(Part):
    """Validation and test text of your own; training pairs whose source stands in either are left out."""

    type: Literal["given"] = "given"
    validation: ParallelText
    test: ParallelText


class Data(Part):
    """Where the text comes from, what is held out, and how long a sentence may be.

    max_length: tokens a side, end marker included; longer pairs are counted, reported and left out of training.
    """

    source: ParallelText
    split: Annotated[RandomSplit | GivenSplit, Field(discriminator="type")] = RandomSplit()
    source_language: str = "source"
    target_language: str = "target"
    max_length: PositiveInt = 128


class TokenizerRecipe(Part):
    """One tokenizer for both sides, trained on the training text.

    type: "bpe" is byte-level BPE, "unigram" is SentencePiece's unigram model with byte fallback.
    sample: how many lines to train on at most (evenly spread); unset means all.
    """

    type: Literal["bpe", "unigram"] = "bpe"
    vocab_size: Annotated[int, Field(ge=300)] = 8000
    sample: PositiveInt | None = None


# --- training ----------------------------------------------------------------------------------------------------


class Adam(Part):
    """The paper's Adam (section 5.3). learning_rate: the peak; unset means the paper's, (dim * warmup) ** -0.5."""

    type: Literal["adam"] = "adam"
    learning_rate: PositiveFloat | None = None
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    eps: PositiveFloat = 1e-9


class AdamW(Part):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); matrices decay, vectors do not."""

    type: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01


class Muon(Part):
    """Muon for the matrices inside the blocks (`torch.optim.Muon`), AdamW for all else.

    learning_rate: of Muon, with its update scaled to match AdamW's root mean square.
    """

    type: Literal["muon"] = "muon"
    learning_rate: PositiveFloat = 2e-3
    momentum: Probability = 0.95
    weight_decay: NonNegativeFloat = 0.01
    others: AdamW = AdamW()


class InverseSquareRoot(Part):
    """Linear warm-up, then decay with the inverse square root of the step (section 5.3, equation 3)."""

    type: Literal["inverse-sqrt"] = "inverse-sqrt"
    warmup: PositiveInt = 4000


class Cosine(Part):
    """Linear warm-up, then half a cosine down to `final` of the peak at the last step."""

    type: Literal["cosine"] = "cosine"
    warmup: PositiveInt = 200
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


class Linear(Part):
    """Linear warm-up, then a straight line down to `final` of the peak at the last step."""

    type: Literal["linear"] = "linear"
    warmup: PositiveInt = 200
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


Schedule = Annotated[InverseSquareRoot | Cosine | Linear, Field(discriminator="type")]


class NoAveraging(Part):
    """The last weights are the model."""

    type: Literal["none"] = "none"


class Ema(Part):
    """An exponential moving average of the weights, after every step.

    decay: at step t, min(decay, (1 + t) / (10 + t)) is used, so that the start is forgotten.
    """

    type: Literal["ema"] = "ema"
    decay: Probability = 0.999


class LastCheckpoints(Part):
    """The mean of the last `count` snapshots, one every `every` steps (section 6.1: the last 5, or 20)."""

    type: Literal["last"] = "last"
    count: PositiveInt = 5
    every: PositiveInt = 100


Averaging = Annotated[NoAveraging | Ema | LastCheckpoints, Field(discriminator="type")]


class EarlyStopping(Part):
    """Stop after `patience` validations without a better value; the best model is the one kept."""

    metric: Literal["loss", "bleu"] = "loss"
    patience: PositiveInt = 5


class Batching(Part):
    """How pairs become batches.

    tokens: budget of one batch: rows * (longest source + longest target), padding included.
    buckets: pairs of like length together; switched off, batches are random and padded.
    """

    tokens: PositiveInt = 6000
    buckets: bool = True


class Training(Part):
    """How the weights are found. Exactly one of `steps` and `minutes` says for how long.

    minutes: wall-clock; the speed is measured up to the end of the warm-up, which then fixes the number of steps, so
    that everything after is a function of the step as ever.
    accumulate: batches an optimizer step. clip_norm: largest norm of the gradient; unset means no clipping.
    precision: "auto" takes bfloat16 autocast where this machine's bfloat16 products are measured to be much faster.
    """

    steps: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    batches: Batching = Batching()
    accumulate: PositiveInt = 1
    label_smoothing: Probability = 0.1
    optimizer: Annotated[Adam | AdamW | Muon, Field(discriminator="type")] = AdamW()
    schedule: Schedule = InverseSquareRoot()
    clip_norm: PositiveFloat | None = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    averaging: Averaging = Ema()
    early_stopping: EarlyStopping | None = None
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2
    tensorboard: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("set exactly one of training.steps and training.minutes")
        return self


class Decoding(Part):
    """How the trained model translates unless told otherwise.

    length_penalty: alpha in score = log P(y|x) / |y| ** alpha, where |y| counts the end marker.
    max_ratio, max_extra: a translation has at most max_ratio * source tokens + max_extra tokens.
    """

    beam: PositiveInt = 4
    length_penalty: NonNegativeFloat = 1.0
    max_ratio: PositiveFloat = 2.0
    max_extra: NonNegativeInt = 16


class Recipe(Part):
    """The root: text in, a trained model out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: NonNegativeInt = 1
    data: Data
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    model: Model
    training: Training
    decoding: Decoding = Decoding()

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        if isinstance(data, dict):
            table = cast("dict[str, Any]", data)
            model = table.get("model")
            if isinstance(model, dict) and "preset" in model:
                return {**table, "model": merged_with_preset(cast("dict[str, Any]", model))}
        return data  # pyright: ignore[reportUnknownVariableType]

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.data.max_length > self.model.max_length:
            raise ValueError(
                f"data.max_length = {self.data.max_length} is more than model.max_length = {self.model.max_length}"
            )
        return self
