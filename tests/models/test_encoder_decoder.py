"""The whole model against torch's and Marian's, how it begins, what it ties, and the paper's sizes."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

import twins
from laws.models import build
from sublayer import config
from sublayer.errors import InputError
from sublayer.laws import Inputs, relative_error
from sublayer.laws.measure import listening
from sublayer.models import EncoderDecoder


def sinusoids(length: int, dim: int) -> Tensor:
    """Section 3.5, number by number."""
    table = torch.empty(length, dim, dtype=torch.float64)
    for position in range(length):
        for i in range(dim // 2):
            angle = position / 10_000 ** (2 * i / dim)
            table[position, 2 * i], table[position, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


@pytest.mark.parametrize("norm_placement", ["post", "pre"])
def test_against_torch_transformer(norm_placement: str) -> None:
    model = build(twins.tree(norm_placement=norm_placement, layout="interleaved", layers=3))
    theirs, inputs = twins.torch_transformer(model), Inputs.draw(model, 1)
    weight = model.decoder.embedding.tokens.weight
    dim = model.config.dim

    def embed(tokens: Tensor) -> Tensor:
        return weight[tokens] * math.sqrt(dim) + sinusoids(tokens.shape[1], dim)

    hidden = torch.arange(inputs.source.shape[1]) >= inputs.source_lengths[:, None]
    size = inputs.target.shape[1]
    with torch.no_grad():
        states = theirs(
            embed(inputs.source),
            embed(inputs.target),
            tgt_mask=torch.ones(size, size, dtype=torch.bool).triu(1),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
        found = model(inputs.source, inputs.source_lengths, inputs.target)
    assert relative_error(found, states @ weight.T) < 1e-10


def test_against_marian() -> None:
    model = build(twins.tree(layers=3))
    theirs, inputs = twins.marian(model, start=1, end=2, pad=0), Inputs.draw(model, 1)
    real = (torch.arange(inputs.source.shape[1]) < inputs.source_lengths[:, None]).long()
    with torch.no_grad():
        expected = theirs(input_ids=inputs.source, attention_mask=real, decoder_input_ids=inputs.target).logits
        found = model(inputs.source, inputs.source_lengths, inputs.target)
    assert relative_error(found, expected) < 1e-10


def test_gradients_against_marian() -> None:
    """Every weight learns the same: what a forward pass alone would not show."""
    model = build(twins.tree())
    theirs, inputs = twins.marian(model, start=1, end=2, pad=0), Inputs.draw(model, 1)
    real = (torch.arange(inputs.source.shape[1]) < inputs.source_lengths[:, None]).long()
    theirs(
        input_ids=inputs.source, attention_mask=real, decoder_input_ids=inputs.target
    ).logits.square().sum().backward()
    model(inputs.source, inputs.source_lengths, inputs.target).square().sum().backward()
    # Marian learns nothing from the embedding of its padding token, which is a token like any other here.
    embedding = model.decoder.embedding.tokens.weight.grad
    assert relative_error(embedding[1:], theirs.model.shared.weight.grad[1:]) < 1e-10
    for ours, other in (
        (model.encoder.layers[0], theirs.model.encoder.layers[0]),
        (model.decoder.layers[0], theirs.model.decoder.layers[0]),
    ):
        parts = (other.self_attn.q_proj, other.self_attn.k_proj, other.self_attn.v_proj)
        expected = torch.cat([part.weight.grad for part in parts])
        assert relative_error(ours.self_attention.qkv.weight.grad, expected) < 1e-10
        assert relative_error(ours.feed_forward.up.weight.grad, other.fc1.weight.grad) < 1e-10
        norm, expected = ours.feed_forward_sublayer.outer, other.final_layer_norm
        assert relative_error(norm.weight.grad, expected.weight.grad) < 1e-10


def test_forward_is_the_projection_of_hidden() -> None:
    model = build(twins.tree())
    inputs = Inputs.draw(model)
    arguments = (inputs.source, inputs.source_lengths, inputs.target)
    assert torch.equal(model(*arguments), model.project(model.hidden(*arguments)))


@pytest.mark.parametrize(("norm_placement", "last_norm"), [("post", False), ("pre", True), ("sandwich", True)])
def test_a_stream_that_is_left_unnormalized_ends_with_a_norm(norm_placement: str, last_norm: bool) -> None:
    model = build(twins.tree(norm_placement=norm_placement))
    inputs = Inputs.draw(model)
    with torch.no_grad(), listening(model, "stream") as seen:
        states = model.encode(inputs.source, inputs.source_lengths).states
        hidden = model.hidden(inputs.source, inputs.source_lengths, inputs.target)
    for name, stack, found in (("encoder", model.encoder, states), ("decoder", model.decoder, hidden)):
        stream = seen[f"{name}.layers.1.stream"][0]
        if last_norm:
            norm = stack.norm
            expected = nn.functional.layer_norm(stream, stream.shape[-1:], norm.weight, norm.bias)
            assert relative_error(found, expected.detach()) < 1e-12
        else:
            assert torch.equal(found, stream)


# --- how weights begin -------------------------------------------------------------------------------------------

DIM, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 96, 160, 6, 2, 24, 3


def initialized(
    norm_placement: str, feed_forward: config.FeedForward, tied: str, position: config.Position | None = None
) -> EncoderDecoder:
    norm = config.LayerNorm()
    attention = config.Attention(heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, query_key_norm=norm)
    block = config.Block(attention=attention, feed_forward=feed_forward, norm_placement=norm_placement)
    stack = config.Stack(layers=LAYERS, block=block, position=position or config.Learned())
    return EncoderDecoder(
        config.EncoderDecoder(
            dim=DIM, vocab_size=400, max_length=64, tied=tied, output_bias=True, encoder=stack, decoder=stack
        )
    )


def assert_normal(name: str, values: Tensor, std: float) -> None:
    """Mean 0 and this standard deviation, within five standard errors of each, and tails as a normal has."""
    n = values.numel()
    assert abs(values.mean().item()) < 5 * std / n**0.5, name
    assert abs(values.std().item() / std - 1) < 5 / (2 * n) ** 0.5, f"{name}: {values.std().item()}, not {std}"
    if n > 3000:
        assert values.abs().max() > 3 * std, f"{name} is not normal: no tails"


@pytest.mark.parametrize("norm_placement", ["post", "pre", "sandwich"])
@pytest.mark.parametrize("feed_forward", [config.PositionWise(hidden=HIDDEN), config.Gated(hidden=HIDDEN, bias=True)])
@pytest.mark.parametrize("tied", ["all", "none"])
def test_initialization_is_the_table(norm_placement: str, feed_forward: config.FeedForward, tied: str) -> None:
    """Every parameter, by its name: the table at the head of `models.initialization`, written again."""
    model = initialized(norm_placement, feed_forward, tied)
    wide, narrow = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM

    def glorot(fan_in: int, fan_out: int) -> float:
        return math.sqrt(2 / (fan_in + fan_out))

    unseen = dict(model.named_parameters())
    for name, parameter in model.named_parameters():
        written = (2 if name.startswith("encoder") else 3) * LAYERS if norm_placement == "pre" else 1
        values = parameter.detach()
        if name.endswith(".tokens.weight") or name == "output.weight":
            assert_normal(name, values, DIM**-0.5)
        elif name.endswith("position.weight"):
            assert_normal(name, values, 0.02)
        elif name.endswith("qkv.weight"):
            query, key_value = values.split([wide, 2 * narrow])
            assert_normal(name, query, glorot(DIM, wide))
            assert_normal(name, key_value, glorot(DIM, narrow))
        elif name.endswith("cross_attention.query.weight"):
            assert_normal(name, values, glorot(DIM, wide))
        elif name.endswith("key_value.weight"):
            assert_normal(name, values, glorot(DIM, narrow))
        elif name.endswith("attention.output.weight"):
            assert_normal(name, values, glorot(wide, DIM) / written**0.5)
        elif name.endswith((".up.weight", ".gate_up.weight")):
            assert_normal(name, values, glorot(DIM, HIDDEN))
        elif name.endswith(".down.weight"):
            assert_normal(name, values, glorot(HIDDEN, DIM) / written**0.5)
        elif name.endswith(".bias"):
            assert (values == 0).all(), name
        elif re.search(r"(_sublayer\.(before|after|outer)|_norm|\.norm)\.weight$", name):
            assert (values == 1).all(), name
        else:
            continue
        del unseen[name]
    assert not unseen, "parameters that the table does not know"


def test_relative_bias_begins_small() -> None:
    model = initialized("post", config.PositionWise(hidden=HIDDEN), "all", config.RelativeBias())
    assert_normal("relative bias", model.encoder.position.weight.detach(), 0.02)
    assert_normal("relative bias", model.decoder.position.weight.detach(), 0.02)


# --- what is tied ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tied", "matrices"), [("all", 1), ("target", 2), ("none", 3)])
def test_tying(tied: str, matrices: int) -> None:
    c = twins.tree().model_copy(update={"tied": tied})
    model = EncoderDecoder(c)
    source, target = model.encoder.embedding.tokens.weight, model.decoder.embedding.tokens.weight
    assert (source is target) == (tied == "all")
    assert (model.output.weight is target) == (tied in ("all", "target"))
    addresses = {weight.data_ptr() for weight in (source, target, model.output.weight)}
    assert len(addresses) == matrices
    untied = sum(parameter.numel() for parameter in EncoderDecoder(c.model_copy(update={"tied": "none"})).parameters())
    found = sum(parameter.numel() for parameter in model.parameters())
    assert untied - found == (3 - matrices) * c.vocab_size * c.dim


@pytest.mark.parametrize("tied", ["all", "target"])
def test_tied_weights_stay_tied_through_casts(tied: str) -> None:
    model = EncoderDecoder(twins.tree().model_copy(update={"tied": tied})).double()
    assert model.output.weight.data_ptr() == model.decoder.embedding.tokens.weight.data_ptr()


# --- the paper's models ------------------------------------------------------------------------------------------


def parameters_of_the_paper(dim: int, hidden: int, layers: int, vocab_size: int) -> int:
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * hidden + hidden + hidden * dim + dim
    norm = 2 * dim
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    return layers * (encoder + decoder) + vocab_size * dim


@pytest.mark.parametrize(
    ("name", "dim", "hidden", "heads", "dropout", "millions"),
    [("base", 512, 2048, 8, 0.1, 65), ("big", 1024, 4096, 16, 0.3, 213)],
)
def test_presets_are_the_rows_of_table_3(
    name: str, dim: int, hidden: int, heads: int, dropout: float, millions: int
) -> None:
    c = config.preset(name)
    with torch.device("meta"):
        model = EncoderDecoder(c)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == parameters_of_the_paper(dim, hidden, 6, c.vocab_size)
    # The table rounds, and the size of the vocabulary ("about 37000") is not exact.
    assert abs(found / 1e6 - millions) < 0.03 * millions
    for stack in (c.encoder, c.decoder):
        assert stack.block.attention.heads == heads
        assert stack.block.dropout == dropout
        assert stack.block.norm_placement == "post"
        assert stack.position == config.Sinusoidal()
    assert c.embedding == config.Embedding(scale=True, dropout=dropout)


# --- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target", "side"), [(33, 5, "source"), (5, 33, "target")])
def test_more_tokens_than_positions_are_refused(source: int, target: int, side: str) -> None:
    model = EncoderDecoder(twins.tree(max_length=32))
    with pytest.raises(InputError, match=f"the {side} has 33 tokens, but this model's positions end at 32"):
        model(torch.zeros(1, source, dtype=torch.int64), None, torch.zeros(1, target, dtype=torch.int64))


def test_decoding_works_where_gradients_are_recorded() -> None:
    """Whoever forgets `torch.no_grad()` pays with memory, not with an error from within."""
    model = build(twins.tree())
    inputs = Inputs.draw(model)
    state = model.start(inputs.source, inputs.source_lengths, num_beams=1)
    steps = torch.cat([model.step(token, state) for token in inputs.target.split(1, dim=1)], dim=1)
    assert steps.requires_grad
    assert relative_error(steps.detach(), model(inputs.source, inputs.source_lengths, inputs.target).detach()) < 1e-10


def test_decoding_past_the_capacity_is_refused() -> None:
    model = EncoderDecoder(twins.tree(max_length=32))
    state = model.start(torch.zeros(1, 3, dtype=torch.int64), capacity=99)
    model.step(torch.zeros(1, 32, dtype=torch.int64), state)
    with pytest.raises(InputError, match="the text has 33 tokens, but this model's positions end at 32"):
        model.step(torch.zeros(1, 1, dtype=torch.int64), state)
