"""The engine's operations, each against torch in float64, on every instruction set that this processor has."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fast.engine.calls import INSTRUCTION_SETS, Matrix, Program, multiply, operation, program, rounded, run
from sublayer.fast.engine.library import FORMATS, library

SIZES = [(1, 32), (15, 64), (16, 96), (17, 32), (100, 256), (150, 1120)]
ODD_SIZES = [(1, 1), (17, 33), (48, 257), (100, 7)]
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 25, 37, 100]

WHOLE = ("int8", "int4", "q8_0", "q4_k", "q6_k")

every_isa = pytest.mark.parametrize("isa", INSTRUCTION_SETS)
every_format = pytest.mark.parametrize("kept_as", FORMATS)
every_whole_format = pytest.mark.parametrize("kept_as", WHOLE)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def whole(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def sizes(kept_as: str) -> list[tuple[int, int]]:
    return SIZES if kept_as in WHOLE else SIZES + ODD_SIZES


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Up to a part of the largest number."""
    assert found.shape == expected.shape
    if expected.numel():
        error = (found.double() - expected).abs().amax()
        assert error <= tolerance * expected.abs().amax()


# --- matrices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES + ODD_SIZES)
def test_float32_is_kept_as_it_is_and_bfloat16_as_torch_rounds_it(size: tuple[int, int]) -> None:
    weight = random(*size)
    weight.view(-1)[0] = 1e-40
    assert Matrix(weight, "float32").unpack().equal(weight)
    assert Matrix(weight, "bfloat16").unpack().equal(weight.bfloat16().float())


@pytest.mark.parametrize("size", SIZES)
def test_int8_has_the_largest_number_of_a_row_at_127(size: tuple[int, int]) -> None:
    weight = random(*size)
    scale = weight.abs().amax(1, keepdim=True) / 127
    close(Matrix(weight, "int8").unpack(), (weight / scale).round().double() * scale.double(), 1e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_int4_errs_no_more_than_steps_from_the_least_number_to_the_largest(size: tuple[int, int], shift: float) -> None:
    weight = random(*size) + shift
    groups = weight.view(-1, 32)
    least, most = (each.half().float() for each in groups.aminmax(dim=1, keepdim=True))
    scale = ((most - least) / 15).half().float()
    simple = ((groups - least) / scale).round().clamp(0, 15) * scale + least
    for kept_as in ("int4", "q4_k"):
        found = Matrix(weight, kept_as).unpack().view(-1, 32)
        errors = [(each - groups).square().sum(1) for each in (found, simple)]
        assert (errors[0] <= errors[1] * 1.01).all()
        assert len(groups) < 100 or errors[0].sum() < 0.92 * errors[1].sum()


@pytest.mark.parametrize("kept_as", ["q8_0", "q6_k"])
def test_eight_bits_have_the_largest_number_of_a_group_at_127(kept_as: str) -> None:
    weight, size = random(40, 64), 32 if kept_as == "q8_0" else 16
    scale = weight.view(-1, size).abs().amax(1, keepdim=True) / 127
    scale = scale.half().float() if kept_as == "q8_0" else scale
    expected = (weight.view(-1, size).double() / scale.double()).round() * scale.double()
    close(Matrix(weight, kept_as).unpack().view(-1, size), expected, 1e-7)


@every_format
def test_zeros_are_kept(kept_as: str) -> None:
    weight = random(40, 64)
    weight[3] = 0
    weight[:, :32] = 0
    found = Matrix(weight, kept_as).unpack()
    assert found[3].equal(torch.zeros(64))
    assert found[:, :32].equal(torch.zeros(40, 32))


@every_whole_format
def test_whole_numbers_want_columns_in_32s(kept_as: str) -> None:
    assert library().matrix_bytes(FORMATS[kept_as], 16, 33) == 0
    assert library().matrix_bytes(FORMATS[kept_as], 16, 64) > 0


def test_an_unknown_format_or_instruction_set_is_not_to_be_had() -> None:
    assert library().matrix_bytes(7, 16, 64) == 0
    x = torch.zeros(1, 32)
    for isa in (b"avx", b"avx2 plain", b"", b" "):
        assert (
            library().multiply(isa, ctypes.byref(Matrix(x, "float32").struct), 1, x.data_ptr(), x.data_ptr(), 1) == -1
        )
        assert library().engine_new(isa, None, 0, None, None, 0, 1) is None


# --- what whole numbers are multiplied by ----------------------------------------------------------------------------


def fours(groups: Tensor) -> Tensor:
    """The numbers that are multiplied together. Shape: [..., 32] -> [..., 8, 4]."""
    return groups.unflatten(-1, (2, 8, 2)).transpose(-3, -2).flatten(-2)


def test_an_input_is_rounded_with_a_scale_for_each_32_numbers() -> None:
    x = random(7, 96) * torch.tensor([1e-3, 1.0, 1e3]).repeat_interleave(32)
    x[3:, 5::32] *= 10
    groups = x.view(7, 3, 32).double()
    largest, sums = groups.abs().amax(2, keepdim=True), fours(groups).abs().sum(3).amax(2, keepdim=True)
    assert (largest < sums / 2)[:3].any()
    assert (largest > sums / 2)[3:].any()
    scale = torch.maximum(largest, sums / 2) / 127
    close(rounded(x).view(7, 3, 32), (groups / scale).round() * scale, 1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_products_of_four_rounded_numbers_fit_in_16_bits(seed: int) -> None:
    # As many as can be near halves, which are rounded up.
    x = random(1000, 32, seed=seed) if seed else torch.full((1, 32), 1.0)
    groups = fours(x) * torch.tensor([[3.0, 1.0, 0.3, 1e-3], [1, 1, 1, 1], [1, 1, 0, 0], [1, -1, 1, -1]])[seed]
    x = groups.unflatten(-1, (2, 2)).transpose(-3, -2).flatten(-3)
    assert fours(x).equal(groups)
    scale = torch.maximum(x.abs().amax(1), groups.abs().sum(2).amax(1) / 2)[:, None] / 127
    found = (rounded(x) / scale).round()
    # Times -128, which 127 becomes where the input is negative.
    assert fours(found).abs().sum(2).max() <= 256


def test_halves_are_rounded_to_the_even_number() -> None:
    x = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5] + [0.0] * 26).view(1, 32)
    assert rounded(x)[0, :6].tolist() == [127.0, 0.0, 2.0, 2.0, 0.0, -2.0]


def test_zeros_and_what_is_nearly_zero_round_to_zeros() -> None:
    assert rounded(torch.zeros(2, 64)).equal(torch.zeros(2, 64))
    assert rounded(torch.full((2, 64), 1e-38)).equal(torch.zeros(2, 64))


# --- products --------------------------------------------------------------------------------------------------------


@every_isa
@every_format
def test_products(isa: str, kept_as: str) -> None:
    for out, columns in sizes(kept_as):
        matrix = Matrix(random(out, columns, seed=1), kept_as)
        for rows in ROWS:
            x = random(rows, columns, seed=rows)
            read = rounded(x) if kept_as in WHOLE else x
            close(multiply(isa, matrix, x), read.double() @ matrix.unpack().double().T)


@every_isa
@every_whole_format
def test_products_of_whole_numbers_are_exact(isa: str, kept_as: str) -> None:
    # The largest number of each row is 127, so that all scales are 1 and the sums are whole.
    for out, columns in SIZES[:-1]:
        weight = whole(-8, 7, out, columns) if kept_as in ("int4", "q4_k") else whole(-127, 127, out, columns)
        weight[:, 0] = 127 if kept_as == "int8" else weight[:, 0]
        matrix = Matrix(weight, kept_as)
        assert matrix.unpack().equal(weight)
        for rows in ROWS:
            x = whole(-42, 42, rows, columns, seed=rows)
            x.view(-1, 32)[:, 3] = -127
            assert multiply(isa, matrix, x).equal((x.double() @ weight.double().T).float())


@every_isa
@every_whole_format
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_numbers_do_not_saturate(isa: str, kept_as: str, sign: int) -> None:
    weight = torch.full((33, 256), 15.0 if kept_as in ("int4", "q4_k") else 127.0)
    # Steps of 1 from -127 or 0 on, as this is there, too.
    weight[:, ::16] = 1.0 if kept_as in ("int4", "q4_k") else -127.0
    weight[:, 1::16] = 0.0 if kept_as in ("int4", "q4_k") else 1.0
    matrix = Matrix(weight, kept_as)
    for rows in ROWS:
        for pattern in ([127.0] * 32, [127.0] * 16 + [0.0] * 16, [127.0, 0.0] * 16, [127.0, -127.0] * 8 + [0.0] * 16):
            x = torch.tensor(pattern).mul(sign).repeat(rows, 8)
            assert rounded(x).equal(x) == (sum(map(abs, pattern)) < 127.0 * 32)
            assert multiply(isa, matrix, x).equal(rounded(x) @ weight.T)


@every_isa
@every_format
def test_a_row_does_not_depend_on_what_else_is_computed(isa: str, kept_as: str) -> None:
    """Neither on the other rows nor on the number of threads, to the bit."""
    for out, columns in [(50, 96), (1000, 544)]:
        matrix = Matrix(random(out, columns, seed=1), kept_as)
        x = random(100, columns)
        alone = torch.cat([multiply(isa, matrix, x[i : i + 1]) for i in range(100)])
        for rows in ROWS:
            for threads in (1, 2, 3):
                assert multiply(isa, matrix, x[100 - rows :], threads).equal(alone[100 - rows :])


@every_isa
@every_format
def test_what_is_no_number_is_seen_in_its_own_row_alone(isa: str, kept_as: str) -> None:
    matrix = Matrix(random(20, 64, seed=1), kept_as)
    for value in (math.nan, math.inf):
        x = random(9, 64)
        x[4, 40] = value
        found = multiply(isa, matrix, x)
        assert not found[4].isfinite().any()
        assert found[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


# --- the operations --------------------------------------------------------------------------------------------------

EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}

WIDE = torch.cat((torch.linspace(-100, 100, 5001), torch.linspace(-6, 6, 12001), torch.tensor([0.0, 1e-6, -1e-4])))


@every_isa
@pytest.mark.parametrize("activation", EXACT)
def test_activations_are_right_over_the_whole_line(isa: str, activation: str) -> None:
    x = WIDE.view(1, 1, -1)
    both = torch.cat((x, torch.ones_like(x)), -1)
    found = run(isa, "gate", both, torch.zeros_like(x), width=x.shape[2], activation=activation)
    expected = EXACT[activation](x.double())
    error = (found - expected).abs()
    assert (error <= 2e-7 + 4e-7 * expected.abs()).all(), error.max()


@every_isa
@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kept_as", ["float32", "int8"])
def test_linear(isa: str, activation: str, squared: bool, accumulate: bool, biased: bool, kept_as: str) -> None:
    x, before, bias = random(3, 2, 50), random(3, 2, 40, seed=1), random(19, seed=2)
    matrix = Matrix(random(19, 32, seed=3), kept_as)
    flags = ("SQUARED",) * squared + ("ACCUMULATE",) * accumulate
    found = run(
        isa, "linear", x, before, column=9, width=32, out_column=11, matrices=[matrix], flags=flags,
        activation=activation, bias=bias if biased else None,
    )  # fmt: skip
    read = x[..., 9:41]
    if kept_as == "int8":
        read = rounded(read)
    expected = read.double() @ matrix.unpack().double().T
    expected = EXACT[activation](expected + bias.double() if biased else expected)
    expected = expected.square() if squared else expected
    close(found[..., 11:30], before[..., 11:30] + expected if accumulate else expected, 2e-6)
    assert found[..., :11].equal(before[..., :11])
    assert found[..., 30:].equal(before[..., 30:])


@every_isa
@every_format
def test_embed(isa: str, kept_as: str) -> None:
    # Padding moves positions to the left, and what is padding itself stands at 0.
    matrix, table = Matrix(random(30, 32), kept_as), random(9, 32, seed=1)
    tokens, padding = torch.tensor([[3, 29, 0, 1], [2, 2, 7, 16]]), torch.tensor([0, 5])
    embed = operation("embed", a=1.7, table=table, positions=9)
    found = program(isa, [embed], [matrix], [32], tokens, held=4, padding=padding)
    positions = (4 + torch.arange(4) - padding[:, None]).clamp(min=0)
    close(found, 1.7 * matrix.unpack().double()[tokens] + table.double()[positions])
    without = program(isa, [operation("embed", a=1.0)], [matrix], [32], tokens)
    assert without.equal(matrix.unpack()[tokens])


@every_isa
@pytest.mark.parametrize("width", [1, 5, 16, 24, 100])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_norms(isa: str, width: int, parts: int, weighted: bool, biased: bool) -> None:
    x = random(2, 3, parts * width + 7) * 3 + 1
    weight, bias = random(width, seed=1), random(width, seed=2)
    given = {"weight": weight if weighted else None, "bias": bias if biased else None, "parts": parts, "a": 1e-5}
    read = x[..., 4 : 4 + parts * width].unflatten(-1, (parts, width)).double()
    wide = [each.double() if kept else None for each, kept in ((weight, weighted), (bias, biased))]
    layer = F.layer_norm(read, (width,), *wide, eps=1e-5).flatten(2)
    root = F.rms_norm(read, (width,), wide[0], eps=1e-5) + (0 if wide[1] is None else wide[1])
    for flags, expected in (((), layer), (("ROOT_MEAN",), root.flatten(2))):
        found = run(isa, "norm", x, torch.zeros(2, 3, parts * width + 1), column=4, out_column=1,
                    width=parts * width, flags=flags, **given)  # fmt: skip
        close(found[..., 1:], expected, 2e-6)
        in_place = run(isa, "norm", x, column=4, out_column=4, width=parts * width, flags=flags, **given)
        assert in_place[..., 4 : 4 + parts * width].equal(found[..., 1:])
        assert in_place[..., :4].equal(x[..., :4])


@every_isa
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [2, 12, 24, 40])
def test_rotate(isa: str, interleaved: bool, rotated: int) -> None:
    x, angles = random(2, 3, 150), random(20, rotated // 2, seed=1)
    cos, sin, padding = angles.cos(), angles.sin(), torch.tensor([2, 9])
    found = run(
        isa, "rotate", x, column=5, width=rotated, heads=3, head=45, table=cos, table2=sin, positions=20,
        flags=("INTERLEAVED",) if interleaved else (), call={"held": 7, "padding": padding},
    )  # fmt: skip
    position = (7 + torch.arange(3) - padding[:, None]).clamp(min=0)
    heads = x[..., 5:140].unflatten(-1, (3, 45)).double()
    turned = heads[..., :rotated].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    a, b = turned.unbind(-1 if interleaved else -2)
    c, s = (each.double()[position].unsqueeze(2) for each in (cos, sin))
    turned = torch.stack((a * c - b * s, b * c + a * s), -1 if interleaved else -2).flatten(-2)
    expected = torch.cat((x[..., :5].double(), torch.cat((turned, heads[..., rotated:]), -1).flatten(2),
                          x[..., 140:].double()), -1)  # fmt: skip
    close(found, expected)


@every_isa
@pytest.mark.parametrize("width", [1, 16, 37])
def test_what_is_done_number_by_number(isa: str, width: int) -> None:
    x, other = random(2, 3, width + 5) * 20, random(2, 3, width + 2, seed=1)
    read, rest = x[..., 5:].double(), other[..., :2]
    cases = {
        "add": (0.0, read + other[..., 2:].double()),
        "scale": (1.5, 1.5 * read),
        "cap": (15.0, 15 * (read / 15).tanh()),
    }
    for code, (a, expected) in cases.items():
        found = run(isa, code, x, other, column=5, out_column=2, width=width, a=a)
        close(found[..., 2:], expected, 5e-7)
        assert found[..., :2].equal(rest)


@every_isa
def test_a_cap_leaves_what_is_small_as_it_is(isa: str) -> None:
    x = torch.logspace(-6, 1, 100).view(1, 1, 100)
    found = run(isa, "cap", x, a=30.0)
    expected = 30 * (x.double() / 30).tanh()
    assert ((found - expected).abs() <= 5e-7 * expected).all()


@every_isa
@pytest.mark.parametrize("width", [1, 7, 128, 1000])
@pytest.mark.parametrize("far", [0.0, 3e4, -3e4])
def test_the_largest_numbers_and_their_log_softmax(isa: str, width: int, far: float) -> None:
    x, count = random(3, 2, width) + far, min(width, 5)
    logs, places = torch.empty(3, 2, count), torch.empty(3, 2, count, dtype=torch.int64)
    call = {"best": count, "best_columns": places, "best_logs": logs}
    assert run(isa, "scale", x, a=1.0, call=call).equal(x)
    expected, where = x.double().log_softmax(-1).sort(dim=-1, descending=True, stable=True)
    assert places.equal(where[..., :count])
    # What is large in the logits must not cost digits of the differences.
    expected = expected[..., :count]
    assert ((logs - expected).abs() <= 1e-6 + 3e-7 * expected.abs()).all()


@every_isa
@every_format
def test_a_product_that_is_ranked_is_ranked_as_its_numbers_are(isa: str, kept_as: str) -> None:
    """Whether its numbers are written or not, and whatever the number of rows and of threads: to the bit."""
    columns, out, count, rows = 64, 1300, 6, 130
    table, matrix = Matrix(random(rows, columns), "float32"), Matrix(random(out, columns, seed=1), kept_as)
    project = operation("linear", in_=0, out=1, matrix=1, width=columns, bias=random(out, seed=2))
    operations = [operation("embed", a=1.0), project]
    read = rounded(table.unpack()) if kept_as in WHOLE else table.unpack()
    logits = (read.double() @ matrix.unpack().double().T + random(out, seed=2)).log_softmax(-1)

    def ranked(tokens: Tensor, threads: int, written: bool) -> tuple[Tensor, Tensor]:
        logs, places = torch.empty(len(tokens), count), torch.empty(len(tokens), count, dtype=torch.int64)
        engine = Program(isa, operations, [table, matrix], [columns, out], threads)
        out_of = {} if written else {"out": None}
        engine.run(tokens[:, None], result=1, best=count, best_columns=places, best_logs=logs, **out_of)
        return logs, places

    logs, places = ranked(torch.arange(rows), 1, written=True)
    assert (logs - logits.gather(1, places)).abs().max() < 3e-6 * logits.abs().max()
    assert (logits.topk(count).values - logits.gather(1, places)).abs().max() < 3e-6 * logits.abs().max()
    for some in (slice(0, rows), slice(3, 20), slice(7, 8)):
        for threads in (1, 2, 3):
            for written in (False, True):
                again = ranked(torch.arange(rows)[some], threads, written)
                assert again[0].equal(logs[some])
                assert again[1].equal(places[some])


# --- attention -------------------------------------------------------------------------------------------------------


def attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float, cap: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The equation in float64.

    Shape: query [B, H, S, d], key and value [B, G, T, d], allowed [B, 1, S, T] -> [B, S, H d].
    """
    share = query.shape[1] // key.shape[1]
    key, value = (each.double().repeat_interleave(share, 1) for each in (key, value))
    scores = scale * query.double() @ key.transpose(-2, -1)
    scores = cap * (scores / cap).tanh() if cap else scores
    scores = scores if bias is None else scores + bias.double()
    weights = scores.masked_fill(~allowed, -math.inf).softmax(-1).nan_to_num(0.0)
    return (weights @ value).transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int, groups: int, head: int) -> list[Tensor]:
    """[R, n, (H + 2 G) d] -> [R, H, n, d], [R, G, n, d], [R, G, n, d]."""
    parts = x.split([heads * head, groups * head, groups * head], -1)
    return [part.unflatten(-1, (-1, head)).transpose(1, 2) for part in parts]


def by_distance(table: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """What a table [H, 2 L - 1] adds. Shape: places [S], [T] -> [H, S, T]."""
    return table[:, key[None, :] - query[:, None] + (table.shape[1] + 1) // 2 - 1]


SHAPES = [(1, 1, 16), (4, 4, 32), (6, 2, 24), (8, 1, 64), (9, 3, 5), (4, 2, 80)]
"""Query heads, key-value heads, width of a head."""
SETTINGS: list[dict[str, Any]] = [{}, {"window": 1}, {"window": 5}, {"cap": 3.0}, {"biased": True},
                                  {"window": 20, "cap": 9.0, "biased": True}]  # fmt: skip


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("held", "fresh"), [(0, 1), (1, 1), (16, 1), (37, 1), (0, 7), (30, 3), (9, 70)])
def test_attention_with_a_cache(
    isa: str, shape: tuple[int, int, int], settings: dict[str, Any], held: int, fresh: int
) -> None:
    heads, groups, head = shape
    rows, capacity, layers, layer, length = 3, held + fresh + 2, 2, 1, 128
    x = random(rows, fresh, (heads + 2 * groups) * head + 3)
    # What is not held yet, or is padding, is never read.
    cache = torch.full((layers, 2, rows, groups, capacity, head), math.nan)
    padding = torch.tensor([0, held // 2, held + fresh])
    before = random(2, rows, groups, held, head, seed=1)
    for row in range(rows):
        cache[layer, :, row, :, padding[row] : held] = before[:, row, :, padding[row] :]
    table = random(heads, 2 * length - 1, seed=2)
    cap, window = settings.get("cap", 0.0), settings.get("window", 0)
    found = run(
        isa, "attend", x, torch.zeros(rows, fresh, heads * head + 2), column=3, out_column=2, flags=("CACHED",),
        heads=heads, groups=groups, head=head, layer=layer, window=window, a=0.6, cap=cap, positions=length,
        table=table if settings.get("biased") else None,
        call={"held": held, "capacity": capacity, "cache": cache, "padding": padding},
    )  # fmt: skip
    query, key, value = split(x[..., 3:], heads, groups, head)
    assert cache[layer, 0, :, :, held : held + fresh].equal(key)
    assert cache[layer, 1, :, :, held : held + fresh].equal(value)
    assert cache[0].isnan().all()
    assert cache[layer, :, :, :, held + fresh :].isnan().all()
    key, value = (torch.cat(pair, 2) for pair in ((before[0], key), (before[1], value)))
    query_place, key_place = held + torch.arange(fresh), torch.arange(held + fresh)
    seen = (key_place <= query_place[:, None]) & (key_place >= padding[:, None, None])
    if window:
        seen = seen & (key_place > query_place[:, None] - window)
    bias = by_distance(table, query_place, key_place) if settings.get("biased") else None
    close(found[..., 2:], attention(query, key, value, seen.unsqueeze(1), 0.6, cap, bias), 3e-6)
    assert found[2].equal(torch.zeros_like(found[2]))


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("fresh", [1, 7, 50, 200])
def test_attention_without_a_cache(isa: str, shape: tuple[int, int, int], settings: dict[str, Any], fresh: int) -> None:
    heads, groups, head = shape
    x, lengths = random(3, fresh, (heads + 2 * groups) * head), torch.tensor([fresh, (fresh + 1) // 2, 0])
    for row in range(3):
        x[row, lengths[row] :] = math.nan
    table = random(heads, 2 * fresh - 1, seed=2)
    cap, window = settings.get("cap", 0.0), settings.get("window", 0)
    found = run(
        isa, "attend", x, torch.zeros(3, fresh, heads * head), heads=heads, groups=groups, head=head, window=window,
        a=0.6, cap=cap, positions=fresh, table=table if settings.get("biased") else None, call={"lengths": lengths},
    )  # fmt: skip
    query, key, value = split(x, heads, groups, head)
    place = torch.arange(fresh)
    seen = (place < lengths[:, None, None]).expand(3, fresh, fresh)
    if window:
        seen = seen & ((place - place[:, None]).abs() < window)
    bias = by_distance(table, place, place) if settings.get("biased") else None
    expected = attention(query, key.nan_to_num(0.0), value.nan_to_num(0.0), seen.unsqueeze(1), 0.6, cap, bias)
    for row in range(3):
        close(found[row, : lengths[row]], expected[row, : lengths[row]], 3e-6)
    assert not found[2].nan_to_num(0.0).any()


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize(("fresh", "beam", "length"), [(1, 1, 9), (1, 4, 33), (5, 2, 100), (1, 60, 17)])
def test_attention_to_sources(
    isa: str, shape: tuple[int, int, int], cap: float, fresh: int, beam: int, length: int
) -> None:
    heads, groups, head = shape
    x, lengths = random(3 * beam, fresh, heads * head + 4), torch.tensor([length, length // 2, 0])
    memory = [random(3, groups, length, head, seed=seed) for seed in range(4)]
    for part in memory:
        for source in range(3):
            part[source, :, lengths[source] :] = math.nan
    found = run(
        isa, "cross", x, torch.zeros(3 * beam, fresh, heads * head), column=4, heads=heads, groups=groups, head=head,
        layer=1, a=0.6, cap=cap,
        call={"memory": memory, "sources": 3, "source_length": length, "source_lengths": lengths},
    )  # fmt: skip
    query = x[..., 4:].unflatten(-1, (heads, head)).transpose(1, 2)
    key, value = (part.nan_to_num(0.0).repeat_interleave(beam, 0) for part in memory[2:])
    seen = torch.arange(length) < lengths.repeat_interleave(beam)[:, None, None, None]
    close(found, attention(query, key, value, seen.expand(-1, 1, fresh, -1), 0.6, cap), 3e-6)
    assert found[2 * beam :].equal(torch.zeros_like(found[2 * beam :]))


@every_isa
@pytest.mark.parametrize("fresh", [1, 3, 40])
def test_attention_of_a_row_does_not_depend_on_what_else_is_computed(isa: str, fresh: int) -> None:
    """Neither on the other rows nor on the number of threads, to the bit."""
    heads, groups, head, held = 4, 2, 40, 60
    x = random(12, fresh, (heads + 2 * groups) * head)
    before, padding = random(1, 2, 12, groups, held + fresh, head, seed=1), torch.arange(12)
    memory, lengths = [random(12, groups, 45, head, seed=seed) for seed in (2, 3)], 45 - torch.arange(12)

    def found(rows: slice, threads: int) -> Tensor:
        out = torch.zeros(12, fresh, heads * head)[rows]
        common = {"heads": heads, "groups": groups, "head": head, "a": 0.6, "threads": threads}
        cached = {
            "held": held, "capacity": held + fresh, "cache": before[:, :, rows].clone(), "padding": padding[rows],
        }  # fmt: skip
        sources = {
            "memory": [part[rows] for part in memory], "sources": len(out), "source_length": 45,
            "source_lengths": lengths[rows],
        }  # fmt: skip
        several = [
            run(isa, "attend", x[rows], out, flags=("CACHED",), call=cached, **common),
            run(isa, "attend", x[rows], out, call={"lengths": lengths[rows].clamp(max=fresh)}, **common),
            run(isa, "cross", x[rows], out, call=sources, **common),
        ]
        return torch.cat(several, -1)

    together = found(slice(None), 1)
    assert found(slice(None), 3).equal(together)
    for row in range(12):
        assert found(slice(row, row + 1), 1).equal(together[row : row + 1])


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fresh", [1, 9])
def test_attention_by_a_table_of_rows_is_that_of_a_cache_in_order(
    isa: str, shape: tuple[int, int, int], fresh: int
) -> None:
    (heads, groups, head), rows, held = shape, 5, 37
    x, padding = random(rows, fresh, (heads + 2 * groups) * head), torch.tensor([0, 3, 0, 20, 0])
    cache = random(1, 2, rows, groups, held + fresh + 2, head, seed=1)
    table = torch.randint(rows, (rows, held + fresh + 2), dtype=torch.int32)
    table[:, held:] = torch.arange(rows)[:, None]
    where = table[:, None].expand(rows, groups, -1).long()
    ordered = cache[:, :, where, torch.arange(groups)[:, None], torch.arange(held + fresh + 2)].contiguous()

    def found(cache: Tensor, **call: Tensor) -> Tensor:
        return run(
            isa, "attend", x, torch.zeros(rows, fresh, heads * head), flags=("CACHED",), heads=heads, groups=groups,
            head=head, a=0.6,
            call={"held": held, "capacity": held + fresh + 2, "cache": cache, "padding": padding, **call},
        )  # fmt: skip

    before = cache.clone()
    assert found(cache, cache_rows=table).equal(found(ordered))
    assert cache[..., :held, :].equal(before[..., :held, :])
    assert cache[..., held : held + fresh, :].equal(ordered[..., held : held + fresh, :])


@every_isa
def test_sources_are_stored_as_cross_attention_reads_them(isa: str) -> None:
    x, memory = random(3, 7, 2 + 2 * 3 * 20), [torch.full((3, 3, 7, 20), math.nan) for _ in range(4)]
    left = run(isa, "store", x, column=2, groups=3, head=20, layer=1, call={"memory": memory})
    assert left.equal(x)
    key, value = (part.unflatten(-1, (3, 20)).transpose(1, 2) for part in x[..., 2:].chunk(2, -1))
    assert memory[2].equal(key)
    assert memory[3].equal(value)
    assert memory[0].isnan().all()


# --- mixtures of experts ---------------------------------------------------------------------------------------------


@every_isa
@pytest.mark.parametrize("kept_as", ["float32", "int8"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("active", [1, 2, 5])
def test_a_mixture_is_the_sum_of_the_weighted_networks_that_are_chosen(
    isa: str, kept_as: str, normalize: bool, active: int
) -> None:
    experts, hidden, width, out = 5, 64, 32, 50
    x = random(3, 7, width + 1)
    router = Matrix(random(experts, width, seed=1), "float32")
    matrices = [Matrix(random(2 * hidden, width, seed=2 + e), kept_as) for e in range(experts)]
    downs = [Matrix(random(out, hidden, seed=20 + e), kept_as) for e in range(experts)]
    given = [matrix for pair in zip(matrices, downs, strict=True) for matrix in pair]
    flags = ("NORMALIZE",) if normalize else ()
    fields: dict[str, Any] = {"column": 1, "out_column": 3, "width": hidden, "experts": experts, "active": active}

    def found(x: Tensor, threads: int = 1) -> Tensor:
        before = torch.full((*x.shape[:2], out + 3), 7.0)
        return run(isa, "mix", x, before, matrices=[router, *given], threads=threads, flags=flags,
                   activation="silu", **fields)  # fmt: skip

    together = found(x)
    read = x[..., 1:].reshape(21, width)
    weights, chosen = (read.double() @ router.unpack().double().T).softmax(-1).topk(active, -1)
    weights = weights / weights.sum(-1, keepdim=True) if normalize else weights
    as_read = rounded if kept_as == "int8" else lambda x: x
    expected = torch.zeros(21, out).double()
    for token in range(21):
        for weight, e in zip(weights[token], chosen[token].tolist(), strict=True):
            gate, up = (as_read(read[token]).double() @ matrices[e].unpack().double().T).chunk(2)
            gated = as_read((F.silu(gate) * up).float())
            expected[token] += weight * (gated.double() @ downs[e].unpack().double().T)
    # What stands between two numbers is rounded to either of them.
    close(together[..., 3:].reshape(21, out), expected, 1e-2 if kept_as == "int8" else 2e-6)
    assert together[..., :3].equal(torch.full((3, 7, 3), 7.0))
    assert found(x, 2).equal(together)
    for row in range(3):
        assert found(x[row : row + 1]).equal(together[row : row + 1])


# --- programs --------------------------------------------------------------------------------------------------------


@every_isa
def test_a_rounded_input_is_not_used_once_its_buffer_has_changed(isa: str) -> None:
    table, matrices = Matrix(random(9, 64), "float32"), [Matrix(random(64, 64, seed=s), "int8") for s in (1, 2)]
    tokens = torch.arange(9).view(3, 3)
    operations = [
        operation("embed", a=1.0, out=0),
        operation("linear", in_=0, out=1, matrix=1, width=64),
        operation("linear", in_=0, out=0, matrix=2, width=64, flags=("ACCUMULATE",), out_column=64),
        operation("scale", in_=0, out=0, width=64, a=-2.0),
        operation("linear", in_=0, out=1, matrix=1, width=64, flags=("ACCUMULATE",)),
    ]
    found = program(isa, operations, [table, *matrices], [128, 64], tokens, result=1)
    x = table.unpack()[tokens]
    expected = rounded(x).double() @ matrices[0].unpack().double().T
    close(found, expected - 2 * expected, 1e-6)


@every_isa
def test_a_program_runs_with_more_and_with_fewer_rows_than_before(isa: str) -> None:
    table, matrix = Matrix(random(200, 32), "float32"), Matrix(random(40, 32, seed=1), "int8")
    operations = [operation("embed", a=1.0), operation("linear", in_=0, out=1, matrix=1, width=32)]
    for threads in (1, 2):
        engine = Program(isa, operations, [table, matrix], [32, 40], threads)
        for rows in (1, 200, 3, 50):
            tokens = torch.arange(rows).view(rows, 1)
            expected = rounded(table.unpack()[:rows]).double() @ matrix.unpack().double().T
            close(engine.run(tokens, result=1).squeeze(1), expected)
