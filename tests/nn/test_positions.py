"""Positions against the papers' formulas, in Python's floats, and against transformers' own code."""

from __future__ import annotations

import cmath
import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPTNeoXConfig, LlamaConfig, T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_apply
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_apply
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_apply
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from sublayer import config
from sublayer.errors import ConfigError
from sublayer.nn.positions import (
    Alibi,
    Learned,
    NoPosition,
    Position,
    RelativeBias,
    Rotary,
    Sinusoidal,
    build_position,
)
from sublayer.nn.positions.bias import Kerple, slopes
from sublayer.nn.positions.rotation import frequencies

DOUBLE = torch.float64
CONFIGS: list[config.Position] = [
    config.Sinusoidal(),
    config.Sinusoidal(layout="halves", base=500.0),
    config.Learned(),
    config.Rotary(),
    config.Rotary(layout="interleaved", fraction=0.5, scaling=config.LinearScaling(factor=2.0)),
    config.Alibi(),
    config.Kerple(),
    config.RelativeBias(),
    config.NoPosition(),
]


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def built(c: config.Position, **changes: Any) -> Position:
    sizes: dict[str, Any] = {"dim": 48, "heads": 6, "head_dim": 8, "max_length": 64, "bidirectional": False}
    return build_position(c, **{**sizes, **changes})


# --- added to the embeddings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [10_000.0, 77.0])
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_sinusoidal_is_the_papers_formula(layout: Any, base: float) -> None:
    dim, length = 12, 40
    module = Sinusoidal(config.Sinusoidal(layout=layout, base=base), dim, length).double()
    expected = torch.zeros(length, dim, dtype=DOUBLE)
    for position in range(length):
        for i in range(dim // 2):
            angle = position / base ** (2 * i / dim)
            at_sin, at_cos = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, dim // 2 + i)
            expected[position, at_sin] = math.sin(angle)
            expected[position, at_cos] = math.cos(angle)
    x = torch.randn(3, length, dim, dtype=DOUBLE)
    assert error(module.add(x, torch.arange(length)), x + expected) < 1e-12


def test_sinusoidal_in_halves_is_marians() -> None:
    theirs = MarianSinusoidalPositionalEmbedding(100, 64)
    with torch.no_grad():
        theirs.weight.copy_(theirs.create_weight())
    ours = Sinusoidal(config.Sinusoidal(layout="halves"), 64, 100)
    x = torch.zeros(2, 30, 64)
    assert error(ours.add(x, torch.arange(70, 100)), theirs(torch.Size((2, 30)), 70).expand(2, -1, -1)) < 1e-6


def test_learned_adds_the_row_of_each_position() -> None:
    module = Learned(config.Learned(), 8, 20).double()
    nn.init.normal_(module.weight, std=3.0)
    x = torch.randn(2, 3, 8, dtype=DOUBLE)
    positions = torch.tensor([[4, 0, 19], [7, 7, 1]])
    expected = torch.stack(
        [torch.stack([x[b, s] + module.weight[int(positions[b, s])] for s in range(3)]) for b in range(2)]
    )
    out = module.add(x, positions)
    assert error(out, expected) < 1e-12
    out.sum().backward()
    uses = torch.tensor([int((positions == row).sum()) for row in range(20)], dtype=DOUBLE)
    assert module.weight.grad is not None
    assert error(module.weight.grad, uses[:, None].expand(20, 8)) < 1e-12


@pytest.mark.parametrize("module", [Sinusoidal(config.Sinusoidal(), 8, 20), Learned(config.Learned(), 8, 20)])
def test_a_position_past_the_table_is_refused_on_the_cpu(module: Position) -> None:
    with pytest.raises(IndexError):
        module.add(torch.zeros(1, 1, 8), torch.tensor([20]))


# --- rotary ------------------------------------------------------------------------------------------------------

ROTARY = [
    config.Rotary(layout=layout, fraction=fraction, base=base, scaling=scaling)
    for layout in ("halves", "interleaved")
    for fraction, base, scaling in (
        (1.0, 10_000.0, config.Unscaled()),
        (0.5, 100.0, config.LinearScaling(factor=3.0)),
        (0.25, 10_000.0, config.NtkScaling(factor=4.0)),
        (1.0, 5_000.0, config.YarnScaling(factor=4.0, original_length=64)),
        (0.75, 500_000.0, config.Llama3Scaling(factor=8.0, original_length=64)),
    )
]


@pytest.mark.parametrize("c", ROTARY)
def test_rotation_multiplies_complex_numbers(c: config.Rotary) -> None:
    head_dim, length = 16, 9
    rotated = int(head_dim * c.fraction)
    module = Rotary(c, head_dim, 50).double()
    positions = torch.tensor([3, 0, 1, 49, 20, 21, 7, 7, 2])
    x = torch.randn(2, 3, length, head_dim, dtype=DOUBLE) * 5
    frequency, magnitude = frequencies(c, rotated)
    expected = x.clone()
    for s, position in enumerate(positions.tolist()):
        for i in range(rotated // 2):
            a, b = (i, i + rotated // 2) if c.layout == "halves" else (2 * i, 2 * i + 1)
            turn = magnitude * cmath.exp(1j * position * float(frequency[i]))
            pair = torch.complex(x[:, :, s, a], x[:, :, s, b]) * turn
            expected[:, :, s, a], expected[:, :, s, b] = pair.real, pair.imag
    assert error(module.rotation(positions, DOUBLE).apply(x), expected) < 1e-12


@pytest.mark.parametrize("c", ROTARY)
def test_scores_depend_on_the_distance_only(c: config.Rotary) -> None:
    module = Rotary(c, 16, 300).double()
    query, key = torch.randn(2, 4, 1, 16, dtype=DOUBLE), torch.randn(2, 4, 1, 16, dtype=DOUBLE)

    def score(at_query: int, at_key: int) -> Tensor:
        turned_query = module.rotation(torch.tensor([at_query]), DOUBLE).apply(query)
        turned_key = module.rotation(torch.tensor([at_key]), DOUBLE).apply(key)
        return (turned_query * turned_key).sum(-1)

    near = score(12, 5)
    assert error(score(212, 205), near) < 1e-12
    assert error(score(7, 0), near) < 1e-12
    assert error(score(5, 12), near) > 1e-3  # the sign of the distance is seen
    assert error(score(13, 5), near) > 1e-5


@pytest.mark.parametrize("c", ROTARY)
def test_rotation_keeps_norms(c: config.Rotary) -> None:
    module = Rotary(c, 16, 300).double()
    x = torch.randn(2, 3, 300, 16, dtype=DOUBLE)
    rotated = int(16 * c.fraction)
    turned = module.rotation(torch.arange(300), DOUBLE).apply(x)
    magnitude = frequencies(c, rotated)[1]
    assert error(turned[..., :rotated].norm(dim=-1), magnitude * x[..., :rotated].norm(dim=-1)) < 1e-12
    assert torch.equal(turned[..., rotated:], x[..., rotated:])
    assert not torch.equal(turned, x)


@pytest.mark.parametrize("c", ROTARY)
def test_the_gradient_is_the_rotation_back(c: config.Rotary) -> None:
    module = Rotary(c, 16, 30).double()
    rotation = module.rotation(torch.arange(30), DOUBLE)
    x = torch.randn(2, 3, 30, 16, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad((rotation.apply(x) ** 2).sum(), x)
    rotated = int(16 * c.fraction)
    scale = torch.ones(16, dtype=DOUBLE)
    scale[:rotated] = frequencies(c, rotated)[1] ** 2
    assert error(gradient, 2 * x.detach() * scale) < 1e-12  # R^T R = magnitude squared times the identity


LLAMA_SCALINGS: list[tuple[config.RotaryScaling, dict[str, Any]]] = [
    (config.Unscaled(), {"rope_type": "default"}),
    (config.LinearScaling(factor=2.5), {"rope_type": "linear", "factor": 2.5}),
    (
        config.YarnScaling(factor=4.0, original_length=256),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    ),
    (
        config.YarnScaling(factor=16.0, original_length=4096, beta_fast=20.0, beta_slow=2.0),
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
        },
    ),
    (
        config.Llama3Scaling(factor=8.0, original_length=256),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 256,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
    (
        config.Llama3Scaling(factor=32.0, original_length=8192, low_frequency_factor=2.0, high_frequency_factor=3.0),
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 2.0,
            "high_freq_factor": 3.0,
        },
    ),
]


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("scaling", "parameters"), LLAMA_SCALINGS)
def test_rotary_is_llamas(scaling: config.RotaryScaling, parameters: dict[str, Any], base: float) -> None:
    width = 64
    longest = int(parameters.get("factor", 1) * parameters.get("original_max_position_embeddings", 1024))
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=4 * width,
            num_attention_heads=4,
            max_position_embeddings=longest,
            rope_parameters={"rope_theta": base, **parameters},
        )
    )
    c = config.Rotary(base=base, scaling=scaling)
    frequency, magnitude = frequencies(c, width)
    # Each frequency for itself: the slow ones would vanish beside the fast ones.
    assert float((frequency / theirs.inv_freq.double() - 1).abs().max()) < 1e-6
    assert magnitude == pytest.approx(theirs.attention_scaling, rel=1e-12)
    if scaling.type != "none":
        unscaled, _ = frequencies(config.Rotary(base=base), width)
        assert float((unscaled / frequency).max()) == pytest.approx(scaling.factor)

    query, key = torch.randn(2, 4, 12, width), torch.randn(2, 2, 12, width)
    positions = torch.stack((torch.arange(12), torch.arange(5, 17)))
    cos, sin = theirs(query, positions)
    rotation = Rotary(c, width, 32).rotation(positions, torch.float32)
    for ours, expected in zip((rotation.apply(query), rotation.apply(key)), llama_apply(query, key, cos, sin)):
        assert error(ours, expected) < 1e-6


def test_ntk_is_dynamic_scaling_at_the_length_with_that_factor() -> None:
    # At twice the original length, transformers' dynamic scaling by f - 1 raises the base for a factor of f.
    longest = 128
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=64,
            num_attention_heads=1,
            max_position_embeddings=longest,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 3.0},
        )
    )
    x = torch.randn(1, 1, 2 * longest, 64)
    cos, sin = theirs(x, torch.arange(2 * longest)[None])
    frequency, _ = frequencies(config.Rotary(scaling=config.NtkScaling(factor=4.0)), 64)
    assert float((frequency / theirs.inv_freq.double() - 1).abs().max()) < 1e-6
    unscaled, _ = frequencies(config.Rotary(), 64)
    assert float(unscaled[0] / frequency[0]) == 1.0
    assert float(unscaled[-1] / frequency[-1]) == pytest.approx(4.0, rel=1e-12)
    assert cos.shape == sin.shape == (1, 2 * longest, 64)


def test_the_scalings_are_their_papers_formulas() -> None:
    width, base, factor, original = 32, 10_000.0, 6.0, 512
    plain = [base ** (-2 * i / width) for i in range(width // 2)]

    def assert_is(scaling: config.RotaryScaling, expected: list[float]) -> None:
        frequency, _ = frequencies(config.Rotary(base=base, scaling=scaling), width)
        assert frequency.tolist() == pytest.approx(expected, rel=1e-12)

    assert_is(config.Unscaled(), plain)
    assert_is(config.LinearScaling(factor=factor), [f / factor for f in plain])

    raised = base * factor ** (width / (width - 2))
    assert_is(config.NtkScaling(factor=factor), [raised ** (-2 * i / width) for i in range(width // 2)])

    def llama3(frequency: float) -> float:
        wavelength = 2 * math.pi / frequency
        if wavelength < original / 4.0:
            return frequency
        if wavelength > original / 1.0:
            return frequency / factor
        smooth = (original / wavelength - 1.0) / (4.0 - 1.0)
        return (1 - smooth) * frequency / factor + smooth * frequency

    kinds = {llama3(f) == f for f in plain} | {llama3(f) == f / factor for f in plain}
    assert kinds == {True, False}
    assert_is(config.Llama3Scaling(factor=factor, original_length=original), [llama3(f) for f in plain])

    def pair(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = math.floor(pair(32.0)), math.ceil(pair(1.0))
    assert 0 < low < high < width // 2
    ramp = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(width // 2)]
    yarn = config.YarnScaling(factor=factor, original_length=original)
    assert_is(yarn, [(1 - r) * f + r * f / factor for f, r in zip(plain, ramp)])
    assert frequencies(config.Rotary(scaling=yarn), width)[1] == pytest.approx(0.1 * math.log(factor) + 1, rel=1e-12)


def test_ntk_keeps_a_single_pair() -> None:
    frequency, _ = frequencies(config.Rotary(scaling=config.NtkScaling(factor=4.0)), 2)
    assert frequency.tolist() == [1.0]


def test_interleaved_and_partial_is_gptjs() -> None:
    width, rotated, length = 32, 16, 20
    table = create_sinusoidal_positions(length, rotated)
    sin, cos = table.chunk(2, dim=-1)
    x = torch.randn(2, length, 4, width)  # GPT-J's heads stand after the positions
    theirs = torch.cat((gptj_apply(x[..., :rotated], sin[None], cos[None]), x[..., rotated:]), dim=-1)
    module = Rotary(config.Rotary(layout="interleaved", fraction=0.5), width, length)
    ours = module.rotation(torch.arange(length), torch.float32).apply(x.transpose(1, 2)).transpose(1, 2)
    assert error(ours, theirs) < 1e-6


def test_halves_and_partial_is_gptneoxs() -> None:
    width, length = 32, 20
    neox = GPTNeoXConfig(
        hidden_size=4 * width,
        num_attention_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
    )
    x = torch.randn(2, 4, length, width)
    cos, sin = GPTNeoXRotaryEmbedding(neox)(x, torch.arange(length)[None])
    theirs, _ = neox_apply(x, x, cos, sin)
    ours = Rotary(config.Rotary(fraction=0.25), width, length).rotation(torch.arange(length), torch.float32).apply(x)
    assert error(ours, theirs) < 1e-6


def test_far_positions_are_exact_in_float32() -> None:
    # transformers multiplies position and frequency in float32, which is off by a hundredth of a radian out here.
    module = Rotary(config.Rotary(), 4, 200_001)
    turned = module.rotation(torch.tensor([200_000]), torch.float32).apply(torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    slow = 200_000 * 10_000 ** (-2 / 4)
    expected = [math.cos(200_000), math.cos(slow), math.sin(200_000), math.sin(slow)]
    assert turned.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_low_precision_is_turned_in_the_wider_type(layout: Any, fraction: float) -> None:
    module = Rotary(config.Rotary(layout=layout, fraction=fraction), 16, 40)
    x = torch.randn(2, 3, 40, 16).bfloat16()
    turned = module.rotation(torch.arange(40), torch.float32).apply(x)
    exact = copy.deepcopy(module).double().rotation(torch.arange(40), DOUBLE).apply(x.double())
    assert turned.dtype == torch.bfloat16
    # Rounded once, at the end: but for a tie broken the other way, each number is the nearest there is.
    assert float((turned == exact.bfloat16()).double().mean()) > 0.99


# --- biases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
def test_alibi_slopes_are_blooms(heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]  # slope * 1
    assert error(torch.tensor(slopes(heads)), theirs) < 1e-6


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 16])
def test_alibi_of_the_last_query_is_mpts(heads: int) -> None:
    theirs = build_mpt_alibi_tensor(heads, 9)
    ours = Alibi(heads).bias(torch.tensor([8]), torch.arange(9), torch.float32)
    assert error(ours, theirs) < 1e-6


def test_alibi_slopes_of_a_power_of_two_are_geometric() -> None:
    assert slopes(8) == [2.0**-h for h in range(1, 9)]
    assert slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]


def test_alibi_is_the_slope_times_the_distance() -> None:
    module = Alibi(6).double()
    queries, keys = torch.tensor([[3, 9], [0, 5]]), torch.arange(7)
    bias = module.bias(queries, keys, DOUBLE)
    expected = [[[[-slope * abs(int(i) - j) for j in range(7)] for i in row] for slope in slopes(6)] for row in queries]
    assert error(bias, torch.tensor(expected, dtype=DOUBLE)) < 1e-12


def test_kerple_is_its_formula_and_learns() -> None:
    module = Kerple(3).double()
    nn.init.normal_(module.weight)
    queries, keys = torch.tensor([[3, 9], [0, 5]]), torch.arange(7)
    heads = list(zip(*module.weight.exp().tolist()))
    expected = [
        [[[-r * math.log(1 + s * abs(int(i) - j)) for j in range(7)] for i in row] for r, s in heads] for row in queries
    ]
    bias = module.bias(queries, keys, DOUBLE)
    assert error(bias, torch.tensor(expected, dtype=DOUBLE)) < 1e-12
    bias.sum().backward()
    assert module.weight.grad is not None
    assert (module.weight.grad != 0).all()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (8, 20), (33, 100), (4, 3), (64, 300)])
def test_relative_bias_is_t5s(buckets: int, reach: int, bidirectional: bool) -> None:
    heads, size = 3, 2 * reach + 40
    t5 = T5Config(
        d_model=24,
        d_kv=8,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=reach,
        is_decoder=not bidirectional,
    )
    theirs = T5Attention(t5, has_relative_attention_bias=True, layer_idx=0).double()
    ours = RelativeBias(config.RelativeBias(buckets=buckets, max_distance=reach), heads, bidirectional).double()
    nn.init.normal_(ours.weight, std=5.0)
    theirs.relative_attention_bias.load_state_dict(ours.state_dict())
    queries, keys = torch.arange(0, size, 3), torch.arange(size)
    bias, expected = ours.bias(queries, keys, DOUBLE), theirs.compute_bias(size, size)[0, :, ::3]
    assert torch.equal(bias, expected)
    assert bias.is_contiguous()

    weights = torch.randn_like(bias)
    ours_gradient, theirs_gradient = (
        torch.autograd.grad((value * weights).sum(), weight)[0]
        for value, weight in ((bias, ours.weight), (expected, theirs.relative_attention_bias.weight))
    )
    assert error(ours_gradient, theirs_gradient) < 1e-12


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_bias_depends_on_the_distance_only(bidirectional: bool) -> None:
    module = RelativeBias(config.RelativeBias(buckets=8, max_distance=16), 2, bidirectional)
    nn.init.normal_(module.weight)
    positions = torch.tensor([[0, 1, 2, 3], [50, 51, 52, 53]])
    bias = module.bias(positions, positions, torch.float32)
    assert bias.shape == (2, 2, 4, 4)
    assert torch.equal(bias[0], bias[1])
    assert torch.equal(bias[0], module.bias(positions[0], positions[0], torch.float32))
    ahead, behind = bias[0, :, 0, 1], bias[0, :, 1, 0]
    assert not torch.equal(ahead, behind)


@pytest.mark.parametrize(("buckets", "reach", "bidirectional"), [(32, 8, True), (32, 16, False), (8, 4, False)])
def test_relative_bias_without_room_for_its_buckets_is_refused(buckets: int, reach: int, bidirectional: bool) -> None:
    c = config.RelativeBias(buckets=buckets, max_distance=reach)
    with pytest.raises(ConfigError, match=rf"max_distance = {reach}.*buckets = {buckets}"):
        RelativeBias(c, 2, bidirectional)
    RelativeBias(c.model_copy(update={"max_distance": reach + 1}), 2, bidirectional)


# --- one interface -----------------------------------------------------------------------------------------------


def test_each_configuration_builds_its_part() -> None:
    kinds = [Sinusoidal, Sinusoidal, Learned, Rotary, Rotary, Alibi, Kerple, RelativeBias, NoPosition]
    assert [type(built(c)) for c in CONFIGS] == kinds


@pytest.mark.parametrize("c", CONFIGS, ids=lambda c: c.type)
def test_positions_of_each_row_equal_each_row_alone(c: config.Position) -> None:
    module = built(c)
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [40, 41, 42, 7, 8]])
    x, q = torch.randn(3, 5, 48), torch.randn(3, 6, 5, 8)
    added, rotation = module.add(x, positions), module.rotation(positions, torch.float32)
    bias = module.bias(positions[:, 3:], positions, torch.float32)
    acted = not torch.equal(added, x) or rotation is not None or bias is not None
    assert acted == (c.type != "none")
    for row in range(3):
        alone = positions[row]
        assert torch.equal(added[row : row + 1], module.add(x[row : row + 1], alone))
        one = module.rotation(alone, torch.float32)
        if rotation is not None and one is not None:
            assert torch.equal(rotation.apply(q)[row : row + 1], one.apply(q[row : row + 1]))
        if bias is not None:
            expected = module.bias(alone[3:], alone, torch.float32)
            assert expected is not None
            assert expected.shape == (6, 2, 5)
            assert torch.equal(bias[row], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("c", CONFIGS, ids=lambda c: c.type)
def test_types_are_those_asked_for(c: config.Position, dtype: torch.dtype) -> None:
    module, positions = built(c), torch.arange(5)
    assert module.add(torch.randn(2, 5, 48, dtype=dtype), positions).dtype == dtype
    rotation, bias = module.rotation(positions, dtype), module.bias(positions, positions, dtype)
    if rotation is not None:
        assert rotation.cos.dtype == rotation.sin.dtype == dtype
        assert rotation.apply(torch.randn(2, 6, 5, 8, dtype=dtype)).dtype == dtype
    if bias is not None:
        assert bias.dtype == dtype


@pytest.mark.parametrize("c", CONFIGS, ids=lambda c: c.type)
def test_tables_survive_casts_and_the_meta_device_and_stay_out_of_checkpoints(c: config.Position) -> None:
    module = built(c)
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}
    tables = dict(module.named_buffers())
    for changed in (
        copy.deepcopy(module).bfloat16(),
        copy.deepcopy(module).half().float(),
        copy.deepcopy(module).double().float(),
    ):
        assert all(torch.equal(tables[name], table) for name, table in changed.named_buffers())
        assert all(table.dtype == tables[name].dtype for name, table in changed.named_buffers())

    with torch.device("meta"):
        bare = built(c)
        assert all(table.is_meta for table in bare.buffers())
    emptied = copy.deepcopy(bare).to_empty(device="cpu")
    bare.load_state_dict(module.state_dict(), assign=True)
    bare.reset_buffers()
    for restored in (emptied, bare):
        assert dict(restored.named_buffers()).keys() == tables.keys()
        assert all(torch.equal(tables[name], table) for name, table in restored.named_buffers())


def test_in_float64_tables_are_not_rounded_to_float32() -> None:
    table = Sinusoidal(config.Sinusoidal(), 4, 10).double().table
    assert float(table[3, 0]) == pytest.approx(math.sin(3), rel=1e-15)
