"""A step of the demo's recipe on an ordinary processor: no half precision, and little time beside its products."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sublayer import config
from sublayer.config.load import load_recipe
from sublayer.data.batch import Batch
from sublayer.fast.facts import Identity, Machine, Speed
from sublayer.fast.machine import machine_is
from sublayer.models import build_model
from sublayer.tasks.translation import PairLoss
from sublayer.training.muon import POLAR_EXPRESS, Muon
from sublayer.training.optimizers import Optimizers
from sublayer.training.runtime import keep_freed_memory, resolve_precision
from sublayer.training.trainer import Trainer, TrainerContext

HALF = (torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


def facts(bfloat16: float) -> Machine:
    """A machine that multiplies float32 at 100 GFLOP/s, and bfloat16 at so many."""
    speeds = {"float32": 100.0, "bfloat16": bfloat16}
    return Machine(
        identity=Identity.here(),
        speeds=tuple(
            Speed(size="square", dtype=dtype, way="torch", product="forward", gflops=gflops)
            for dtype, gflops in speeds.items()
        ),
    )


@dataclass(frozen=True)
class OneBatch(PairLoss):
    """The translation's loss, and what the loop asks of an objective besides."""

    rows: str = "pairs"
    unit: str = "tokens"
    least: int = 0

    def evaluate(self, model: Any) -> dict[str, float]:
        raise AssertionError("only steps are made")


class Demo:
    """Steps of the demo's recipe over one batch of `rows` pairs of random tokens.

    products: of Muon, in place of the recipe's.
    """

    def __init__(self, rows: int, length: int = 12, products: str | None = None) -> None:
        recipe = load_recipe("tatoeba-en-es-demo").recipe
        assert isinstance(recipe.model, config.EncoderDecoder)
        self.tree = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
        self.rows, self.length = rows, length
        draw = torch.Generator().manual_seed(0)
        source, target_in, target_out = torch.randint(4, self.tree.vocab_size, (3, rows, length), generator=draw)
        lengths = torch.full((rows,), length)
        self.batch = Batch(
            source=source,
            source_lengths=lengths,
            target_in=target_in,
            target_out=target_out,
            target_lengths=lengths,
            rows=np.arange(rows),
            targets=rows * length,
        )
        c = recipe.training
        if products is not None:
            c = c.model_copy(update={"optimizer": c.optimizer.model_copy(update={"products": products})})
        # A step reads the given batch and writes nothing.
        nothing: Any = None
        context = TrainerContext(log=nothing, reporter=nothing, checkpoints=Path(), improved=lambda: None)
        self.trainer = Trainer(
            build_model(self.tree).train(),
            nothing,
            OneBatch(nothing, c),
            c,
            precision=resolve_precision(c.precision, CPU),
            context=context,
        )

    def step(self) -> None:
        self.trainer._step([self.batch], 1.0)

    @property
    def flops(self) -> float:
        """Of a step: the model's, forward and backward, and the optimizer's."""
        model = self.tree.flops(self.length, self.length).training * self.rows * self.length
        return model + sum(orthogonalization(*each) for each in maps(self.trainer.optimizers))


def maps(optimizers: Optimizers) -> list[tuple[int, int]]:
    """The shapes of what Muon makes orthogonal; a matrix of attention holds several."""
    found: list[tuple[int, int]] = []
    for muon in (part for part in optimizers.parts if isinstance(part, Muon)):
        for matrix in (matrix for group in muon.param_groups for matrix in group["params"]):
            rows, columns = muon._map(matrix)
            found += [(rows, columns)] * (matrix.numel() // (rows * columns))
    return found


def orthogonalization(*shape: int) -> float:
    """Operations of five iterations, each X X^T, its square, and their product with X."""
    small, large = sorted(shape)
    return 5 * (4 * small * small * large + 2 * small**3)


class HalfProducts(TorchDispatchMode):
    """Counts the operations that are given tensors of half precision, by name, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = pytree.tree_leaves((args, kwargs or {}))
        if any(isinstance(one, Tensor) and one.dtype in HALF for one in given):
            self.counted[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


MULTIPLYING = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "linear", "_linear_pointwise"}


@pytest.mark.parametrize("products", [None, "auto"], ids=["as shipped", "auto"])
def test_where_half_precision_is_slow_a_step_multiplies_nothing_in_it(products: str | None) -> None:
    with machine_is(facts(bfloat16=1.0)), HalfProducts() as seen:
        Demo(rows=4, products=products).step()
    assert not seen.counted


def test_the_count_would_see_them() -> None:
    """Of the model's own products and, where the recipe leaves it to the machine, of the optimizer's."""

    def counted(products: str) -> int:
        with machine_is(facts(bfloat16=400.0)):
            demo = Demo(rows=4, products=products)
            with HalfProducts() as seen:
                demo.step()
        return sum(count for name, count in seen.counted.items() if name in MULTIPLYING)

    # A stack of maps is one product; an iteration has three.
    assert counted("auto") >= counted("float32") + 3 * len(POLAR_EXPRESS)
    assert counted("float32") > 0


FLOOR = 4.0
"""A step may take so many times what its products take at the speed that a product of its own size has."""


PRODUCT = (960, 256, 1024)
"""Rows, width and hidden neurons of the feed-forward's product."""


def operands() -> tuple[Tensor, Tensor]:
    rows, width, hidden = PRODUCT
    return torch.randn(rows, width), torch.randn(hidden, width)


def product_speed() -> float:
    """Operations a second of the feed-forward's product, now."""
    x, weight = operands()
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - started)
    return 2 * math.prod(PRODUCT) / best


def shares(demo: Demo, rounds: int) -> Iterator[float]:
    """Of each step, how many times its floor it takes; the speed is measured before and after it."""
    before = product_speed()
    for _ in range(rounds):
        started = time.perf_counter()
        demo.step()
        seconds = time.perf_counter() - started
        after = product_speed()
        # The slower of the two: where the machine was busy in between, the products would have been slow as well.
        yield seconds * min(before, after) / demo.flops
        before = after


def least(demo: Demo, rounds: int) -> float:
    demo.step()
    return min(shares(demo, rounds))


@pytest.fixture
def demo() -> Demo:
    keep_freed_memory()
    return Demo(rows=80)


def test_a_step_takes_at_most_four_times_what_its_products_take(demo: Demo) -> None:
    assert least(demo, rounds=6) < FLOOR


def test_a_step_with_products_in_a_plain_loop_is_found_out(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with an optimizer in half precision on a processor without it. How long a plain loop takes is the processor's:
    here it is as many products, at the speed that they have, as take twice what a step may."""
    plain = Optimizers.step
    count = math.ceil(2 * FLOOR * demo.flops / (2 * math.prod(PRODUCT)))

    def slow(self: Optimizers, factor: float) -> None:
        x, weight = operands()
        for _ in range(count):
            torch.nn.functional.linear(x, weight)
        plain(self, factor)

    monkeypatch.setattr(Optimizers, "step", slow)
    assert least(demo, rounds=1) > FLOOR
