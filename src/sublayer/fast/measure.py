"""Measure what this machine is good at, in less than a second.

Every figure is the best of some tries, the ways that are compared in turn. A type is tried at a small size first: where
a processor lacks it, torch multiplies in a plain loop, a hundred times slower, and little more is measured.

Products are measured with one thread, by the processor's time that it used, so that other programs do not count.
Several threads wait for each other: where another program holds a core, a product of 50 microseconds takes 50
milliseconds. What they gain is measured apart, by the clock, and given up where it takes long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer.fast.facts import SIZES, Attention, Identity, Machine, Product, Size, Speed, Threads, Way
from sublayer.fast.layouts import LAYOUTS
from sublayer.fast.products import ONE_DNN, TORCH, Products

Call = Callable[[], Any]
Clock = Callable[[], float]

ELAPSED: Clock = time.perf_counter
USED: Clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else ELAPSED
"""The processor's time of this thread, where it is counted finely (not on Windows)."""

TRIES = 5
LONG = 0.008
"""Seconds that the tries of one way may take; the first is always made."""
TOO_LONG = 10
"""A first call that takes so many times longer than the tries may is the only one."""
HOPELESS = 4.0
"""A type that is so many times slower than float32 at the probe is not measured further."""
AT_MOST = 0.15
"""Seconds for looking at several threads."""
WIDTHS = (32, 64, 128, 256, 512)
"""Of the square products that show how many threads help."""


def measure() -> Machine:
    """Return the facts of the machine that this process runs on."""
    # Autocast, inference mode, dispatch modes and the default device belong to a thread: a new one has none of them.
    with ThreadPoolExecutor(1, "sublayer-measure") as apart:
        return apart.submit(_measured).result()


def _measured() -> Machine:
    identity = Identity.here()
    with _number_of_threads(1):
        speeds = [*_floats("float32", identity.one_dnn), *_prepared(identity.one_dnn)]
        usual = next(s.gflops for s in speeds if s.size == "probe")
        for dtype in ("bfloat16", "float16"):
            speeds += _narrow(dtype, usual)
        speeds += _whole_numbers(identity.one_dnn)
        attention = tuple(_attention(dtype) for dtype in ("bfloat16", "float16"))
        bandwidth = _bandwidth()
    threads = tuple(_threads(identity.cores))
    return Machine(identity=identity, speeds=tuple(speeds), threads=threads, attention=attention, bandwidth=bandwidth)


@contextmanager
def _number_of_threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best(calls: Sequence[Call], tries: int = TRIES, long: float = LONG, clock: Clock = ELAPSED) -> list[float]:
    """Return the shortest seconds of each call; they take turns.

    What a library prepares at its first call is not counted, unless that call alone took `TOO_LONG` times as long as
    all may.
    """
    shortest, spent = [float("inf")] * len(calls), [0.0] * len(calls)
    for turn in range(tries + 1):
        for index, call in enumerate(calls):
            if spent[index] > long:
                continue
            start = clock()
            call()
            took = max(clock() - start, 1e-9)
            if turn or took > TOO_LONG * long:
                shortest[index] = min(shortest[index], took)
                spent[index] += took
    return shortest


def _operands(size: Size, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, I], W [O, I], g [N, O]. The values do not matter, but none may be tiny: arithmetic with those is slow."""
    shapes = ((size.rows, size.width), (size.out, size.width), (size.rows, size.out))
    x, weight, g = (torch.full(shape, 0.5, dtype=dtype, device="cpu") for shape in shapes)
    return x, weight, g


def _floats(
    dtype: str,
    one_dnn: bool,
    sizes: Sequence[str] = tuple(SIZES),
    only_forward: Sequence[str] = ("probe", "square"),
) -> Generator[Speed]:
    """The three products by both libraries. A library that refuses is left out."""
    ways: dict[Way, Products] = {"torch": TORCH}
    if one_dnn and ONE_DNN is not None:
        ways["onednn"] = ONE_DNN
    for name in sizes:
        x, weight, g = _operands(SIZES[name], getattr(torch, dtype))
        products: tuple[Product, ...] = Products._fields  # pyright: ignore[reportAssignmentType]
        for product in products[:1] if name in only_forward else products:
            operands = {"forward": (x, weight, None), "to_input": (g, weight), "to_weight": (g, x)}[product]
            calls: dict[Way, Call] = {}
            for way, by in ways.items():
                call = partial(getattr(by, product), *operands)
                if _works(call):
                    calls[way] = call
            yield from _speeds(name, dtype, product, calls)


def _prepared(one_dnn: bool) -> Generator[Speed]:
    """The forward product with copies of the weight in other layouts."""
    for name in ("one row, small", "one row", "few rows", "training"):
        x, weight, _ = _operands(SIZES[name], torch.float32)
        ways: tuple[Way, ...] = ("transposed", "packed") if one_dnn and ONE_DNN is not None else ("transposed",)
        calls: dict[Way, Call] = {way: partial(LAYOUTS[way](weight, None), x) for way in ways}
        yield from _speeds(name, "float32", "forward", calls)


def _narrow(dtype: str, usual: float) -> Generator[Speed]:
    """torch's products in half precision; only the probe where that is hopeless."""
    only_forward = ("probe", "square", "one row", "few rows")
    (probe,) = _floats(dtype, False, ("probe",), only_forward)
    yield probe
    if probe.gflops * HOPELESS > usual:
        yield from _floats(dtype, False, ("one row", "few rows", "training", "square"), only_forward)


def _whole_numbers(one_dnn: bool) -> Generator[Speed]:
    """Bytes times bytes: torch's `_int_mm`, and oneDNN's quantized linear with a packed weight."""
    int_mm: Any = getattr(torch, "_int_mm", None)
    for name in ("one row", "few rows", "training"):
        size = SIZES[name]
        x = torch.full((size.rows, size.width), 3, dtype=torch.int8, device="cpu")
        weight = torch.full((size.out, size.width), 5, dtype=torch.int8, device="cpu")
        calls: dict[Way, Call] = {"torch": partial(int_mm, x, weight.t())} if int_mm else {}
        if one_dnn:
            calls["packed"] = _quantized(x, weight)
        yield from _speeds(name, "int8", "forward", {way: call for way, call in calls.items() if _works(call)})


def _quantized(x: Tensor, weight: Tensor) -> Call:
    held: list[Any] = []

    def call() -> Any:
        operators: Any = torch.ops.onednn
        if not held:
            scale, none = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
            held.extend((operators.qlinear_prepack(weight, None), scale, none))
        return operators.qlinear_pointwise(
            x.view(torch.uint8), 1.0, 128, *held, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return call


def _threads(cores: int) -> Generator[Threads]:
    """Square products with one thread, with all, and with the powers of two between."""
    left = AT_MOST
    for count in sorted({min(2**power, cores) for power in range(cores.bit_length() + 1)}):
        with _number_of_threads(count):
            for width in WIDTHS:
                start = time.perf_counter()
                size = Size(width, width, width)
                x, weight, _ = _operands(size, torch.float32)
                (seconds,) = best([partial(F.linear, x, weight)], long=LONG / 4)
                yield Threads(width=width, threads=count, gflops=_rounded(size.flops / seconds / 1e9))
                left -= time.perf_counter() - start
                if left < 0:
                    return


def _attention(dtype: str) -> Attention:
    """4 heads, 64 queries and keys, width 64."""
    query, key, value = (
        torch.full((1, 4, 64, 64), 0.5, dtype=getattr(torch, dtype), device="cpu", requires_grad=True) for _ in range(3)
    )

    def fused() -> None:
        F.scaled_dot_product_attention(query, key, value).sum().backward()

    def products() -> None:
        weights = (query * 0.125 @ key.transpose(-2, -1)).softmax(dim=-1)
        (weights @ value).sum().backward()

    seconds = best([fused, products], clock=USED)
    return Attention(dtype=dtype, fused=seconds[0], products=seconds[1])


def _bandwidth() -> float:
    """Of a copy of 32 MiB, which is read and written."""
    source = torch.full((2**23,), 0.5, dtype=torch.float32, device="cpu")
    # Written to, so that the system has given the pages: that takes far longer than a copy.
    target = source.clone()
    (seconds,) = best([partial(target.copy_, source)], long=5 * LONG, clock=USED)
    return _rounded(2 * source.nbytes / seconds)


def _speeds(size: str, dtype: str, product: Product, calls: dict[Way, Call]) -> Generator[Speed]:
    for way, seconds in zip(calls, best(list(calls.values()), clock=USED), strict=True):
        gflops = _rounded(SIZES[size].flops / seconds / 1e9)
        yield Speed(size=size, dtype=dtype, way=way, product=product, gflops=gflops)


def _works(call: Call) -> bool:
    try:
        call()
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
