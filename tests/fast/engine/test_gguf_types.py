"""Matrices that were of a type of GGUF lose nothing in the engine: the oracle is the `gguf` library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import dequantize, quantize
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor

from fast.engine.calls import INSTRUCTION_SETS, Matrix, multiply, rounded
from sublayer.fast.engine.library import FORMATS, library

KEPT_AS = {
    Type.Q4_0: "int4", Type.Q4_1: "int4", Type.Q8_0: "q8_0", Type.Q4_K: "q4_k", Type.Q6_K: "q6_k",
    Type.Q5_0: "q8_0", Type.Q5_1: "q6_k", Type.Q5_K: "q6_k", Type.BF16: "bfloat16", Type.F32: "float32",
}  # fmt: skip


def blocks(kind: Type, out: int, columns: int) -> Tensor:
    """Numbers of a type, as a file of it has them: scales of any size, and any steps."""
    draw = np.random.default_rng(int(kind))
    if kind.name.endswith("_K"):
        size, taken = GGML_QUANT_SIZES[kind]
        raw = draw.integers(0, 256, (out * columns // size, taken), dtype=np.uint8)
        # Where the float16 scales of a block stand.
        place = slice(208, 210) if kind == Type.Q6_K else slice(0, 4)
        count = (place.stop - place.start) // 2
        raw[:, place] = draw.normal(0, 0.1, (len(raw), count)).astype(np.float16).view(np.uint8)
    else:
        raw = quantize(draw.normal(0, 1, (out, columns)).astype(np.float32), kind)
    return torch.from_numpy(dequantize(raw, kind).copy()).reshape(out, columns)


def exact(weight: Tensor) -> str:
    found = library().exact_format(*weight.shape, weight.contiguous().data_ptr())
    return next(name for name, number in FORMATS.items() if number == found)


@pytest.mark.parametrize("kind", KEPT_AS, ids=lambda kind: kind.name)
def test_a_type_of_gguf_is_kept_with_its_very_numbers(kind: Type) -> None:
    weight = blocks(kind, 50, 512)
    assert exact(weight) == KEPT_AS[kind]
    found = Matrix(weight, exact(weight)).unpack()
    if kind in (Type.Q4_K, Type.Q5_1, Type.Q5_K):
        # Sums that float32 has rounded: what is left of them.
        groups = weight.view(-1, 32).abs().amax(1, keepdim=True)
        assert ((found - weight).view(-1, 32).abs() <= 2**-21 * groups).all()
    else:
        assert found.equal(weight)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("kind", KEPT_AS, ids=lambda kind: kind.name)
def test_its_product_is_that_of_the_numbers_of_the_file(isa: str, kind: Type) -> None:
    weight = blocks(kind, 50, 512)
    matrix = Matrix(weight, exact(weight))
    for rows in (1, 3, 8, 33):
        x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows))
        read = x if kind in (Type.BF16, Type.F32) else rounded(x)
        expected = read.double() @ weight.double().T
        assert ((multiply(isa, matrix, x) - expected).abs() <= 2e-6 * expected.abs().max()).all()


def test_rows_of_several_types_have_a_format_that_holds_all() -> None:
    """Queries, keys and values are one matrix here; a file often has more bits for the values."""
    weight = torch.cat([blocks(Type.Q4_K, 32, 256), blocks(Type.Q6_K, 16, 256)])
    assert exact(weight) == "q6_k"
    assert torch.allclose(Matrix(weight, "q6_k").unpack(), weight, rtol=0, atol=2**-21 * weight.abs().max().item())


def test_other_numbers_are_of_no_such_type() -> None:
    weight = torch.randn(50, 512)
    assert exact(weight) == "float32"
    assert exact(weight.bfloat16().float()) == "bfloat16"
    almost = blocks(Type.Q4_0, 50, 512)
    almost[49, 511] *= 1.001
    assert exact(almost) == "float32"
    assert exact(torch.zeros(3, 32)) == "int4"
    assert exact(torch.ones(3, 7)) == "bfloat16"
