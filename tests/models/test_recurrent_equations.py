"""Recurrent models against their equations, written out number by number in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from recurrent_models import PAIRS, TEXTS, VOCAB, build, name
from sublayer import config
from sublayer.errors import InputError
from sublayer.laws import relative_error
from sublayer.models import build_model
from sublayer.models.empty import without_memory

# --- the equations -----------------------------------------------------------------------------------------------


def cell(kind: str, weights: dict[str, Tensor], x: Tensor, state: list[Tensor]) -> list[Tensor]:
    """One step of one cell; state is [h] or [h, c], a vector each."""
    h = state[0]
    given = weights["weight_ih"] @ x + weights["bias_ih"]
    held = weights["weight_hh"] @ h + weights["bias_hh"]
    if kind == "rnn":
        return [(given + held).tanh()]
    if kind == "gru":
        (r1, z1, n1), (r2, z2, n2) = given.chunk(3), held.chunk(3)
        reset, update = (r1 + r2).sigmoid(), (z1 + z2).sigmoid()
        return [(1 - update) * (n1 + reset * n2).tanh() + update * h]
    i, f, g, o = (given + held).chunk(4)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def layer_weights(kernel: nn.RNNBase, layer: int, suffix: str = "") -> dict[str, Tensor]:
    return {
        part: getattr(kernel, f"{part}_l{layer}{suffix}").detach()
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


def layers(recurrence: nn.Module, xs: list[Tensor], states: list[list[Tensor]] | None) -> tuple[list[Tensor], list]:
    """A sentence through all layers: what the last one gives, and the states of each; both ways where it is so."""
    kind, dim = recurrence.cell, recurrence.dim
    width = dim // recurrence.directions
    last = []
    for layer in range(recurrence.layers):
        begin = [torch.zeros(width, dtype=torch.float64) for _ in range(2 if kind == "lstm" else 1)]
        state = begin if states is None else states[layer]
        forth = []
        for x in xs:
            state = cell(kind, layer_weights(recurrence.kernel, layer), x, state)
            forth.append(state[0])
        if recurrence.directions == 2:
            other, back = begin, []
            for x in reversed(xs):
                other = cell(kind, layer_weights(recurrence.kernel, layer, "_reverse"), x, other)
                back.insert(0, other[0])
            xs = [torch.cat(both) for both in zip(forth, back, strict=True)]
            last.append([torch.cat(both) for both in zip(state, other, strict=True)])
        else:
            xs = forth
            last.append(state)
    return xs, last


def embed(reader: nn.Module, tokens: list[int]) -> list[Tensor]:
    embedding = reader.embedding
    return [embedding.norm(embedding.tokens.weight[token] * math.sqrt(embedding.width)) for token in tokens]


def look_back(attention: nn.Module, h: Tensor, memory: list[Tensor]) -> Tensor:
    """Luong et al. 2015, equations 4, 5 and 7, for one state."""
    if attention.query is None:
        scores = [h @ (attention.key.weight @ s) for s in memory]
    else:
        v = attention.score.weight[0]
        scores = [v @ (attention.query.weight @ h + attention.key.weight @ s).tanh() for s in memory]
    weights = torch.stack(scores).softmax(0)
    context = sum(w * s for w, s in zip(weights, memory, strict=True))
    return (attention.combine.weight @ torch.cat((context, h))).tanh()


def logits(model: nn.Module, hidden: list[Tensor]) -> Tensor:
    bias = 0 if model.output.bias is None else model.output.bias
    return torch.stack([model.output.weight @ h + bias for h in hidden])


@torch.no_grad()
def by_hand(model: nn.Module, target: list[int], source: list[int] | None = None) -> Tensor:
    states, memory = None, []
    if source is not None:
        memory, states = layers(model.encoder.recurrence, embed(model.encoder, source), None)
    hidden, _ = layers(model.decoder.recurrence, embed(model.decoder, target), states)
    if source is not None and model.decoder.cross_attention is not None:
        hidden = [look_back(model.decoder.cross_attention, h, memory) for h in hidden]
    return logits(model, hidden)


def draw(rows: int, size: int) -> Tensor:
    return torch.randint(VOCAB, (rows, size))


# Four different lengths, which are packed; `FEW` of them would be read one after the other.
LENGTHS = torch.tensor([7, 3, 1, 5])


@pytest.mark.parametrize("tree", PAIRS, ids=name)
@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([2, 7, 2, 7])], ids=["packed", "by size"])
def test_a_ragged_batch_is_the_equations_of_each_pair(tree: config.RecurrentEncoderDecoder, lengths: Tensor) -> None:
    model, source, target = build(tree), draw(4, 7), draw(4, 6)
    with torch.no_grad():
        found = model(source, lengths, target)
    for row, length in enumerate(lengths.tolist()):
        expected = by_hand(model, target[row].tolist(), source[row, :length].tolist())
        assert relative_error(found[row], expected) < 1e-12


@pytest.mark.parametrize("tree", TEXTS, ids=name)
def test_a_text_is_its_equations(tree: config.RecurrentDecoderOnly) -> None:
    model, tokens = build(tree), draw(2, 8)
    with torch.no_grad():
        found = model(tokens)
    for row in range(2):
        assert relative_error(found[row], by_hand(model, tokens[row].tolist())) < 1e-12


@pytest.mark.parametrize("tree", TEXTS, ids=name)
def test_packed_texts_are_separate(tree: config.RecurrentDecoderOnly) -> None:
    model, tokens = build(tree), draw(2, 8)
    # Two texts that stand in two rows may have one number, and a number may come again.
    segments = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 0], [0, 5, 5, 5, 5, 5, 5, 5]])
    with torch.no_grad():
        found = model(tokens, None, segments)
        for row, cuts in enumerate(([0, 3, 4, 7, 8], [0, 1, 8])):
            for begin, end in pairwise(cuts):
                alone = model(tokens[row : row + 1, begin:end])[0]
                assert relative_error(found[row, begin:end], alone) < 1e-12


@pytest.mark.parametrize("tree", PAIRS, ids=name)
@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([2, 7, 2, 7])], ids=["packed", "by size"])
def test_the_padding_of_a_source_is_unseen_and_unlearned(tree: config.RecurrentEncoderDecoder, lengths: Tensor) -> None:
    """Neither a number nor a gradient comes from it."""
    model, source, target = build(tree), draw(4, 7), draw(4, 6)
    embedded: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
        value.retain_grad()
        embedded.append(value)

    model.encoder.embedding.register_forward_hook(keep)
    found = model(source, lengths, target)
    found.square().sum().backward()
    real = torch.arange(7) < lengths[:, None]
    gradient = embedded[0].grad
    assert gradient is not None
    assert (gradient[~real] == 0).all()
    assert (gradient[real].abs().sum(-1) > 0).all()
    other = torch.where(real, source, (source + 1) % VOCAB)
    assert torch.equal(model(other, lengths, target), found)


def test_gradients_of_a_packed_batch_are_the_sum_of_the_pairs() -> None:
    """What is learned from a ragged batch is what is learned from its pairs one by one."""
    for tree, lengths in ((PAIRS[0], LENGTHS), (PAIRS[1], LENGTHS), (PAIRS[0], torch.tensor([2, 7, 2, 7]))):
        model, source, target = build(tree), draw(4, 7), draw(4, 6)
        model(source, lengths, target).square().sum().backward()
        together = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        for row, length in enumerate(lengths.tolist()):
            model(source[row : row + 1, :length], None, target[row : row + 1]).square().sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert relative_error(together[key], parameter.grad) < 1e-10, key


# --- how weights begin -------------------------------------------------------------------------------------------


def test_initialization_is_the_table() -> None:
    tree = config.RecurrentEncoderDecoder(
        dim=128, vocab_size=500, decoder=config.RecurrentDecoder(attention=config.Additive(hidden=96))
    )
    torch.manual_seed(3)
    model = build_model(tree)
    for key, parameter in model.named_parameters():
        values = parameter.detach()
        width = 64 if key.startswith("encoder") else 128
        if "weight_hh" in key:
            for gate in values.split(width):
                assert relative_error(gate @ gate.T, torch.eye(width)) < 1e-5, key
        elif "weight_ih" in key:
            assert values.std() == pytest.approx(math.sqrt(2 / (128 + width)), rel=0.03), key
        elif "bias_ih" in key:
            assert (values[width : 2 * width] == 1).all(), key
            assert values.sum() == width, key
        elif "bias_hh" in key:
            assert (values == 0).all(), key
        elif "cross_attention" in key:
            fan_out, fan_in = values.shape
            assert values.std() == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.15), key
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("tree", [*PAIRS[:2], TEXTS[0]], ids=name)
def test_built_without_memory(tree: config.RecurrentEncoderDecoder | config.RecurrentDecoderOnly) -> None:
    with without_memory():
        empty = build_model(tree)
    shapes = {key: parameter.shape for key, parameter in build_model(tree).named_parameters()}
    assert {key: parameter.shape for key, parameter in empty.named_parameters()} == shapes
    assert all(parameter.is_meta for parameter in empty.parameters())


# --- what it refuses ---------------------------------------------------------------------------------------------


def test_too_long_a_text_is_refused() -> None:
    pair, text = build(PAIRS[0]), build(TEXTS[0])
    with pytest.raises(InputError, match="the source has 41 tokens"):
        pair.encode(draw(1, 41))
    with pytest.raises(InputError, match="the target has 41 tokens"):
        pair.hidden(draw(1, 4), None, draw(1, 41))
    with pytest.raises(InputError, match="the text has 41 tokens"):
        text.hidden(draw(1, 41))
    with pytest.raises(InputError, match="the prompt has 41 tokens"):
        text.start(draw(1, 40))


def test_bad_trees_are_refused() -> None:
    from sublayer.errors import ConfigError

    def refused(says: str, **values: object) -> None:
        with pytest.raises(ConfigError, match=says):
            config.RecurrentEncoderDecoder.parse({"dim": 8, **values}, "t")

    refused("encoder.layers = 3 is not decoder.layers = 2", encoder={"layers": 3})
    refused("dim = 9 is odd", dim=9)
    refused("unknown key; did you mean 'bidirectional'", encoder={"bidirectonal": True})
    refused("unknown type 'luong'", decoder={"attention": {"type": "luong"}})
    refused("cell: cannot be 'lst'", cell="lst")
    refused("cannot be tied", embedding={"width": 4})
    config.RecurrentEncoderDecoder.parse({"dim": 9, "encoder": {"bidirectional": False}}, "t")
