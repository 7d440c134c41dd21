"""The facts of a machine: measured once, remembered, and the choices of types that they make."""

from __future__ import annotations

import pytest
import torch

from sublayer.fast.facts import Identity, Machine, Speed
from sublayer.fast.machine import machine_is, multiply_dtype


def facts(**gflops: float) -> Machine:
    """Square products of such speeds."""
    speeds = [Speed(size="square", dtype=d, way="torch", product="forward", gflops=g) for d, g in gflops.items()]
    return Machine(identity=Identity.here(), speeds=tuple(speeds))


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [(None, torch.float32), (0.5, torch.float32), (105.0, torch.float32), (300.0, torch.bfloat16)],
    ids=["not measured", "a plain loop", "as fast, within noise", "faster"],
)
def test_the_type_of_medium_products(bfloat16: float | None, chosen: torch.dtype) -> None:
    known = {"float32": 100.0} | ({} if bfloat16 is None else {"bfloat16": bfloat16})
    with machine_is(facts(**known)):
        assert multiply_dtype("cpu") is chosen
        assert multiply_dtype(torch.device("meta")) is torch.float32
