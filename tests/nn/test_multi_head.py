"""Multi-head attention against torch's, and grouped heads, norms and shared sources against what they stand for."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.context import LayerContext
from sublayer.nn.mask import Mask, ResolvedMask
from sublayer.nn.normalization import LayerNorm, RMSNorm
from sublayer.nn.tap import Tap

DIM, HEADS, BATCH, QUERIES, KEYS = 12, 3, 2, 5, 7
M = TypeVar("M", bound=nn.Module)
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def redrawn(module: M) -> M:
    """In float64, with every parameter large and random."""
    generator = torch.Generator().manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def resolve(mask: Mask, queries: int, keys: int) -> ResolvedMask:
    return mask.resolve(queries, keys, device=torch.device("cpu"), dtype=torch.float64)


def looking(keys_values: tuple[Tensor, Tensor], mask: ResolvedMask) -> LayerContext:
    """What cross-attention reads, whatever self-attention would."""
    return LayerContext(mask, memory=keys_values, memory_mask=mask)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def torch_attention(weight: Tensor, bias: Tensor | None, output: nn.Linear) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(DIM, HEADS, bias=bias is not None, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(weight)
        theirs.out_proj.weight.copy_(output.weight)
        if bias is not None:
            theirs.in_proj_bias.copy_(bias)
            theirs.out_proj.bias.copy_(output.bias)
    return theirs


@pytest.mark.parametrize("listened", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_against_torch(bias: bool, causal: bool, listened: bool) -> None:
    ours = redrawn(SelfAttention(config.Attention(heads=HEADS, bias=bias), DIM))
    theirs = torch_attention(ours.qkv.weight, ours.qkv.bias, ours.output)
    x, lengths = normal(BATCH, QUERIES, DIM), torch.tensor([5, 3])
    mask = Mask.padding(lengths) & (Mask.causal() if causal else Mask.everything())
    hidden = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(
        x,
        x,
        x,
        key_padding_mask=torch.arange(QUERIES) >= lengths[:, None],
        attn_mask=hidden,
        average_attn_weights=False,
    )
    shown: list[Tensor] = []
    if listened:
        ours.weights.register_forward_hook(lambda _m, _i, output: shown.append(output))
    torch.testing.assert_close(ours(x, LayerContext(resolve(mask, QUERIES, QUERIES))), expected, **TIGHT)
    for seen in shown:
        torch.testing.assert_close(seen, weights, **TIGHT)


@pytest.mark.parametrize("bias", [False, True])
def test_cross_attention_against_torch(bias: bool) -> None:
    ours = redrawn(CrossAttention(config.Attention(heads=HEADS, bias=bias), DIM))
    weight = torch.cat((ours.query.weight, ours.key_value.weight))
    theirs = torch_attention(weight, torch.cat((ours.query.bias, ours.key_value.bias)) if bias else None, ours.output)
    x, memory, lengths = normal(BATCH, QUERIES, DIM), normal(BATCH, KEYS, DIM), torch.tensor([4, 7])
    expected, _ = theirs(x, memory, memory, key_padding_mask=torch.arange(KEYS) >= lengths[:, None])
    found = ours(x, looking(ours.keys_values(memory), resolve(Mask.padding(lengths), QUERIES, KEYS)))
    torch.testing.assert_close(found, expected, **TIGHT)


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("listened", [False, True], ids=["fused", "explicit"])
def test_grouped_heads_are_full_heads_with_equal_keys_and_values(kv_heads: int, listened: bool) -> None:
    heads, width = 4, 5
    grouped = redrawn(SelfAttention(config.Attention(heads=heads, kv_heads=kv_heads, head_dim=width), DIM))
    full = redrawn(SelfAttention(config.Attention(heads=heads, head_dim=width), DIM))

    def repeated(x: Tensor) -> Tensor:
        query, key, value = x.split([heads * width, kv_heads * width, kv_heads * width])

        def each(part: Tensor) -> Tensor:
            # Query heads 0 and 1 share the first of two, 2 and 3 the second.
            return part.unflatten(0, (kv_heads, width)).repeat_interleave(heads // kv_heads, 0).flatten(0, 1)

        return torch.cat((query, each(key), each(value)))

    with torch.no_grad():
        full.qkv.weight.copy_(repeated(grouped.qkv.weight))
        full.qkv.bias.copy_(repeated(grouped.qkv.bias))
        full.output.load_state_dict(grouped.output.state_dict())
    x, scope = normal(BATCH, QUERIES, DIM), resolve(Mask.causal(), QUERIES, QUERIES)
    if listened:
        grouped.weights.register_forward_hook(lambda _m, _i, _o: None)
    torch.testing.assert_close(grouped(x, LayerContext(scope)), full(x, LayerContext(scope)), **TIGHT)


@pytest.mark.parametrize(("norm", "kind"), [(config.LayerNorm(), LayerNorm), (config.RMSNorm(), RMSNorm)])
def test_queries_and_keys_are_normalized_head_by_head(norm: config.Norm, kind: type[nn.Module]) -> None:
    """q -> norm(q), k -> norm(k) over each head, before the scores; values as they are."""
    c = config.Attention(heads=HEADS, query_key_norm=norm)
    x, memory = normal(BATCH, QUERIES, DIM), normal(BATCH, KEYS, DIM)
    ours = redrawn(CrossAttention(c, DIM))
    assert isinstance(ours.query_norm, kind)
    assert isinstance(ours.key_norm, kind)
    assert ours.query_norm.weight.shape == (DIM // HEADS,)

    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    query = ours.query_norm(heads(ours.query(x)))
    key, value = heads(ours.key_value(memory)[..., :DIM]), heads(ours.key_value(memory)[..., DIM:])
    weights = (query @ ours.key_norm(key).transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
    expected = ours.output((weights @ value).transpose(1, 2).flatten(2))
    found = ours(x, looking(ours.keys_values(memory), resolve(Mask.everything(), QUERIES, KEYS)))
    torch.testing.assert_close(found, expected, **TIGHT)


def test_self_attention_with_norms_is_cross_attention_to_itself() -> None:
    c = config.Attention(heads=4, kv_heads=2, head_dim=6, query_key_norm=config.RMSNorm())
    one, other = redrawn(SelfAttention(c, DIM)), redrawn(CrossAttention(c, DIM))
    with torch.no_grad():
        for name in ("weight", "bias"):
            query, key_value = getattr(one.qkv, name).split([24, 24])
            getattr(other.query, name).copy_(query)
            getattr(other.key_value, name).copy_(key_value)
    for part in ("output", "query_norm", "key_norm"):
        getattr(other, part).load_state_dict(getattr(one, part).state_dict())
    x, scope = normal(BATCH, QUERIES, DIM), resolve(Mask.window(3), QUERIES, QUERIES)
    torch.testing.assert_close(one(x, LayerContext(scope)), other(x, looking(other.keys_values(x), scope)), **TIGHT)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("queries", [1, 4])
def test_rows_that_share_a_source_are_rows_with_a_source_each(rows: int, queries: int) -> None:
    ours = redrawn(CrossAttention(config.Attention(heads=4, kv_heads=2, head_dim=6), DIM))
    x, memory, lengths = normal(BATCH * rows, queries, DIM), normal(BATCH, KEYS, DIM), torch.tensor([4, 7])
    shared = ours(x, looking(ours.keys_values(memory), resolve(Mask.padding(lengths), queries, KEYS)))
    expanded = ours(
        x,
        looking(
            ours.keys_values(memory.repeat_interleave(rows, 0)),
            resolve(Mask.padding(lengths.repeat_interleave(rows)), queries, KEYS),
        ),
    )
    torch.testing.assert_close(shared, expanded, **TIGHT)


def test_a_query_with_nothing_to_attend_to_gets_the_bias_of_the_output() -> None:
    ours = redrawn(CrossAttention(config.Attention(heads=HEADS), DIM))
    scope = resolve(Mask.padding(torch.tensor([0, KEYS])), QUERIES, KEYS)
    found = ours(normal(BATCH, QUERIES, DIM), looking(ours.keys_values(normal(BATCH, KEYS, DIM)), scope))
    assert torch.equal(found[0], ours.output.bias.expand(QUERIES, -1))
    assert not torch.equal(found[1], ours.output.bias.expand(QUERIES, -1))


def test_dropout_acts_in_training_only() -> None:
    ours = redrawn(SelfAttention(config.Attention(heads=HEADS, dropout=0.5), DIM))
    x, scope = normal(BATCH, QUERIES, DIM), resolve(Mask.everything(), QUERIES, QUERIES)
    assert not torch.equal(ours(x, LayerContext(scope)), ours(x, LayerContext(scope)))
    ours.eval()
    assert torch.equal(ours(x, LayerContext(scope)), ours(x, LayerContext(scope)))


def test_weights_are_a_tap_of_every_attention() -> None:
    for attention in (SelfAttention, CrossAttention):
        assert isinstance(attention(config.Attention(heads=HEADS), DIM).weights, Tap)
