"""The tree of the training: optimizer, schedule, averaging, batches, and when it ends."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from sublayer.config.parallel import Parallel
from sublayer.config.part import Part, Probability
from sublayer.config.task import Metric

__all__ = [
    "Adam", "AdamW", "Averaging", "Batching", "Cosine", "EarlyStopping", "Ema", "InverseSquareRoot",
    "LastCheckpoints", "Linear", "Muon", "NoAveraging", "Schedule", "Training",
]  # fmt: skip


class Adam(Part):
    """The paper's Adam (section 5.3). learning_rate: the peak; unset means the paper's, (dim * warmup) ** -0.5."""

    type: Literal["adam"] = "adam"
    learning_rate: PositiveFloat | None = None
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    eps: PositiveFloat = 1e-9

    def remembered(self, parameters: int, matrices: int) -> int:
        """Numbers kept of so many parameters, of which some stand in the matrices inside the blocks: two of each."""
        return 2 * parameters


class AdamW(Part):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); matrices decay, vectors do not."""

    type: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01

    def remembered(self, parameters: int, matrices: int) -> int:
        """As Adam's."""
        return 2 * parameters


class Muon(Part):
    """Muon for the matrices inside the blocks, AdamW for all else.

    learning_rate: of Muon, with its update scaled to match AdamW's root mean square.
    products: the type its matrices are multiplied in; "auto": bfloat16 where this machine multiplies it clearly faster
    than float32. Where all maps are small, float32 needs half the operations (`training/muon.py`).
    each_head: the maps of every attention head are made orthogonal apart, which costs less; false: fused, as stored.
    hidden_block: feed-forward matrices are made orthogonal in blocks of so many hidden neurons, which costs less;
    null: whole.
    polynomials: those of the iterations that make a matrix orthogonal: Jordan's five, which `torch.optim.Muon` has, or
    Polar Express' four, which cost less and come nearer (Amsel et al. 2025).
    """

    type: Literal["muon"] = "muon"
    learning_rate: PositiveFloat = 2e-3
    momentum: Probability = 0.95
    each_head: bool = True
    hidden_block: PositiveInt | None = None
    products: Literal["auto", "float32"] = "auto"
    polynomials: Literal["jordan", "polar-express"] = "jordan"
    weight_decay: NonNegativeFloat = 0.01
    others: AdamW = AdamW()

    def remembered(self, parameters: int, matrices: int) -> int:
        """As Adam's, but one number of each in a matrix."""
        return 2 * parameters - matrices


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
    copies: ClassVar[int] = 0


class Ema(Part):
    """An exponential moving average of the weights, after every step.

    decay: at step t, min(decay, (1 + t) / (10 + t)) is used, so that the start is forgotten.
    """

    type: Literal["ema"] = "ema"
    decay: Probability = 0.999
    copies: ClassVar[int] = 1


class LastCheckpoints(Part):
    """The mean of the last `count` snapshots, one every `every` steps (section 6.1: the last 5, or 20)."""

    type: Literal["last"] = "last"
    count: PositiveInt = 5
    every: PositiveInt = 100

    @property
    def copies(self) -> int:
        """Of the weights, that are kept beside them."""
        return self.count


Averaging = Annotated[NoAveraging | Ema | LastCheckpoints, Field(discriminator="type")]


class EarlyStopping(Part):
    """Stop after `patience` validations without a better value; the best model is the one kept.

    metric: what is looked at, one of those that the task measures.
    """

    metric: Metric = "loss"
    patience: PositiveInt = 5


class Batching(Part):
    """How rows become batches.

    tokens: budget of one batch: rows * (longest source + longest target), or rows * longest text, padding included.
    buckets: rows of like length together; switched off, batches are random and padded.
    """

    tokens: PositiveInt = 6000
    buckets: bool = True


class Training(Part):
    """How the weights are found. Exactly one of `steps` and `minutes` says for how long.

    minutes: of training; the schedule then follows the clock, and ends with the time whatever the machine does. The
    warm-up ends after its steps, or after a tenth of the time where that is less. Validations that fall due take a
    tenth of the training's time at most, beside the last one.
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
    parallel: Parallel = Parallel()
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
