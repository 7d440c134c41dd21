"""How much is measured: a quick look, or the whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Part = Literal["parallel", "recall", "translation", "positions"]
PARTS: tuple[Part, ...] = ("parallel", "recall", "translation", "positions")


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of AdamW that are tried; the best of each contender counts. For `Recall`."""

    transformer: tuple[float, ...]
    recurrent: tuple[float, ...]

    def of(self, contender: str) -> tuple[float, ...]:
        return self.transformer if contender.startswith("transformer") else self.recurrent


@dataclass(frozen=True)
class Parallel:
    """lengths: of the texts. tokens: of a step, whatever the length, so that all lengths do the same work but for
    attention; on a GPU `gpu_tokens`. dim, layers: of the Transformer. repeats: steps that are timed, after `warm_up`
    seconds of others; their median counts."""

    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048)
    tokens: int = 4096
    gpu_tokens: int = 65_536
    dim: int = 256
    layers: int = 4
    vocab_size: int = 1000
    warm_up: float = 1.0
    repeats: int = 5


@dataclass(frozen=True)
class Recall:
    """distances: at which accuracy is measured, and from which training draws. steps, rows: of training, for each
    contender and each learning rate. dim, layers: of the Transformer. tested: texts at each distance."""

    distances: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    steps: int = 1200
    rows: int = 32
    dim: int = 64
    layers: int = 2
    rates: Rates = Rates(transformer=(1e-3, 3e-3), recurrent=(3e-3, 1e-2))
    tested: int = 256
    contenders: tuple[str, ...] = ("transformer", "transformer-1", "lstm", "gru", "rnn")


@dataclass(frozen=True)
class Tried:
    """An optimizer and its peak learning rate."""

    optimizer: Literal["adamw", "muon"]
    rate: float

    @property
    def name(self) -> str:
        return f"{self.optimizer} {self.rate:g}"


@dataclass(frozen=True)
class Translation:
    """recipe: whose data and model. minutes: of training, each. tried: by every contender, for `trial` minutes each; it
    is trained with the best. points: validations on the way."""

    recipe: str = "tatoeba-en-es-demo"
    minutes: float = 6.5
    tried: tuple[Tried, ...] = (
        Tried("adamw", 1e-3),
        Tried("adamw", 3e-3),
        Tried("muon", 1e-3),
        Tried("muon", 2e-3),
        Tried("muon", 4e-3),
    )
    trial: float = 0.6
    points: int = 10


@dataclass(frozen=True)
class Positions:
    """steps, tokens: of training. dim, layers: of the model. trained: length in training. tested: lengths after it.
    test_tokens: of the test text, at most."""

    steps: int = 2000
    tokens: int = 2048
    dim: int = 128
    layers: int = 4
    vocab_size: int = 4000
    rate: float = 2e-3
    trained: int = 128
    tested: tuple[int, ...] = (128, 256, 512, 1024)
    test_tokens: int = 250_000


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    parallel: Parallel = Parallel()
    recall: Recall = Recall()
    translation: Translation = Translation()
    positions: Positions = Positions()

    def settings(self, part: Part) -> dict[str, Any]:
        """Of one part, as plain data."""
        return asdict(getattr(self, part))


FULL = Plan()
QUICK = Plan(
    parallel=Parallel(lengths=(16, 64, 256, 1024, 2048), tokens=2048, dim=192, layers=3, repeats=3),
    recall=Recall(
        distances=(8, 32, 128, 512),
        steps=600,
        rates=Rates(transformer=(3e-3,), recurrent=(1e-2,)),
        tested=64,
        contenders=("transformer", "transformer-1", "lstm", "rnn"),
    ),
    translation=Translation(minutes=0.8, tried=(Tried("adamw", 3e-3), Tried("muon", 4e-3)), trial=0.4, points=4),
    positions=Positions(steps=250, dim=96, layers=2, vocab_size=2000, test_tokens=16_384),
)
