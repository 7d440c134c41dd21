"""What is chosen on this machine, each by a figure of `machine()`.

Every choice has a default, which stays unless something else was measured to be clearly faster (`facts.CLEARLY`). A
choice only decides between ways that give the same numbers but for the last bits; a narrower type is chosen where the
user left it to us ("auto") and by who knows that it is exact enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sublayer.fast.facts import CLEARLY, SIZES, Machine, Product, Way
from sublayer.fast.layouts import one_dnn
from sublayer.fast.machine import machine
from sublayer.fast.products import ONE_DNN, TORCH, Products

FEW = 32
"""Below so many rows a product is one of few rows."""
VOCABULARY = 4096
"""A matrix with so many rows or more projects to a vocabulary."""
SMALL = 2**17
"""A weight of so many numbers or fewer is small: one row is done before a library with longer calls has begun."""

BFLOAT16_PAYS = 1.7
"""Products in bfloat16 must be so many times faster than in float32, for the casts to it cost something too."""

LIBRARIES: tuple[Way, ...] = ("torch", "onednn")
TRAINED = ("few rows", "training", "vocabulary")


@dataclass(frozen=True)
class Choices:
    """The choices that one machine leads to.

    libraries: by size of `TRAINED`, the library of each of the three products in float32. products: these.
    prepared: by size, the way of a float32 product with a weight that stays the same.
    bfloat16_gain: how many times as fast as float32 bfloat16's products are, the float32 ones in the better library.
    half_products: the half-precision types in which attention goes by plain products, not by the fused kernel.
    """

    libraries: Mapping[str, Mapping[Product, Way]]
    products: Mapping[str, Products]
    prepared: Mapping[str, Way]
    bfloat16_gain: float
    half_products: frozenset[str]

    @staticmethod
    def of(here: Machine) -> Choices:
        products: tuple[Product, ...] = ("forward", "to_input", "to_weight")
        libraries: dict[str, dict[Product, Way]] = {
            size: {p: here.fastest(size, LIBRARIES, p) for p in products} for size in TRAINED
        }
        packed: tuple[Way, ...] = ("packed", "transposed")
        transposed: tuple[Way, ...] = ("transposed", "packed")
        return Choices(
            libraries=libraries,
            products={size: _products(ways) for size, ways in libraries.items()},
            prepared={
                "one row, small": here.fastest("one row, small", transposed),
                "one row": here.fastest("one row", packed),
                "few rows": here.fastest("few rows", packed),
                "training": here.fastest("training", packed),
            },
            bfloat16_gain=_bfloat16_gain(here),
            half_products=frozenset({"bfloat16", "float16"})
            - {times.dtype for times in here.attention if times.products > CLEARLY * times.fused},
        )


_made: tuple[Machine, Choices] | None = None


def choices() -> Choices:
    """Return the choices for this machine."""
    global _made
    here = machine()
    made = _made
    if made is None or made[0] is not here:
        made = _made = (here, Choices.of(here))
    return made[1]


def training_products(rows: int, out: int) -> Products:
    """Return the faster ways of the three float32 products of N rows with a matrix [O, I].

    It is `TORCH` itself where all three are torch's.
    """
    size = "few rows" if rows < FEW else "vocabulary" if out >= VOCABULARY else "training"
    return choices().products[size]


def _products(ways: Mapping[Product, Way]) -> Products:
    forward, to_input, to_weight = (
        ONE_DNN if ways[product] == "onednn" and ONE_DNN is not None else TORCH
        for product in ("forward", "to_input", "to_weight")
    )
    if forward is to_input is to_weight:
        return forward
    return Products(forward.forward, to_input.to_input, to_weight.to_weight)


def prepared_way(rows: int, numbers: int) -> Way:
    """Return the faster way of a float32 product of N rows with a weight of so many numbers that stays the same."""
    if not one_dnn():
        return "transposed"
    if rows > 1:
        return choices().prepared["few rows" if rows < FEW else "training"]
    return choices().prepared["one row, small" if numbers <= SMALL else "one row"]


def attention_by_products(dtype: torch.dtype) -> bool:
    """Return whether attention in a half-precision type goes by plain products rather than by torch's fused kernel."""
    return str(dtype).removeprefix("torch.") in choices().half_products


def bfloat16_gain() -> float:
    """Return how many times faster products in bfloat16 are than in float32 on this CPU."""
    return choices().bfloat16_gain


def _bfloat16_gain(here: Machine) -> float:
    """That of a square product; but where the products of a training step gain nothing, theirs."""
    usual = max(here.gflops("square", "float32", way) for way in LIBRARIES)
    narrow = here.gflops("square", "bfloat16")
    if not usual or not narrow:
        return 0.0
    seconds = [0.0, 0.0]
    for product in ("forward", "to_input", "to_weight"):
        rates = (
            max(here.gflops("training", "float32", way, product) for way in LIBRARIES),
            here.gflops("training", "bfloat16", "torch", product),
        )
        for index, rate in enumerate(rates):
            seconds[index] += SIZES["training"].flops / rate / 1e9 if rate else float("inf")
    training = seconds[0] / seconds[1] if seconds[0] < float("inf") else narrow / usual
    return min(training, narrow / usual) if training < 1 else narrow / usual
