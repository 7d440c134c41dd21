"""Machines of several kinds, as values."""

from __future__ import annotations

from sublayer.fast.facts import SIZES, Attention, Identity, Machine, Product, Speed, Way

PRODUCTS: tuple[Product, ...] = ("forward", "to_input", "to_weight")


def machine_with(
    *, float32: dict[Way, float] | None = None, bfloat16: float | None = None, half: tuple[float, float] | None = None
) -> Machine:
    """A machine with the same GFLOP/s at every size.

    float32: by way. bfloat16: torch's. half: seconds of attention by the kernel and by products, in both types.
    """
    rates: list[tuple[str, Way, float]] = [("float32", way, rate) for way, rate in (float32 or {}).items()]
    if bfloat16 is not None:
        rates.append(("bfloat16", "torch", bfloat16))
    speeds = tuple(
        Speed(size=size, dtype=dtype, way=way, product=product, gflops=rate)
        for size in SIZES
        for dtype, way, rate in rates
        for product in PRODUCTS
    )
    attention = ()
    if half is not None:
        attention = tuple(Attention(dtype=d, fused=half[0], products=half[1]) for d in ("bfloat16", "float16"))
    return Machine(identity=Identity.here(), speeds=speeds, attention=attention)


TORCH_FASTER = machine_with(float32={"torch": 100, "onednn": 50, "packed": 50, "transposed": 100})
ONE_DNN_FASTER = machine_with(float32={"torch": 50, "onednn": 100, "packed": 100, "transposed": 50})
