"""What a model lowers itself to computes what its modules compute, of every tree; what is not lowered is refused."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from config.covering import covering
from laws.models import build
from sublayer import config, fast, laws
from sublayer.fast.decoding.runner import Runner
from sublayer.fast.engine.packing import Matrices, executable
from sublayer.fast.engine.program import placed
from sublayer.models import DecoderOnly, EncoderDecoder
from sublayer.nn.feed_forward import PositionWise

KINDS = "encoder-decoder", "decoder-only"


@cache
def trees(kind: str) -> list[Any]:
    # With room for a source and a few tokens.
    return [tree.model_copy(update={"max_length": 16}) for tree in covering(config.KINDS[kind])]


def lower(model: EncoderDecoder | DecoderOnly) -> None:
    model.lower()
    if isinstance(model, EncoderDecoder):
        model.lower_encoder()


@torch.no_grad()
def decoded(backend: Any, inputs: laws.Inputs) -> Tensor:
    """The logits of two tokens one by one, and of three at once, of ragged sources with two hypotheses each."""
    state = backend.start(inputs.source, inputs.source_lengths, num_beams=2, capacity=5)
    tokens = inputs.target[:, :5].repeat_interleave(2, 0)
    return torch.cat([backend.step(part.contiguous(), state) for part in tokens.split([1, 1, 3], dim=1)], dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_every_field_is_lowered_or_refused_by_name(kind: str) -> None:
    for index, tree in enumerate(trees(kind)):
        embedding = tree.embedding
        if embedding.convolution is not None:
            with pytest.raises(fast.NotLowered, match="an embedding with a convolution"):
                lower(build(tree, dtype=torch.float32, seed=index))
            tree = tree.model_copy(update={"embedding": embedding.model_copy(update={"convolution": None})})
        model = build(tree, dtype=torch.float32, seed=index)
        runner = Runner(model)
        assert runner.prepare()
        inputs = laws.Inputs.draw(model, seed=index)
        exact = decoded(copy.deepcopy(model).double(), inputs)
        error, modules = (laws.relative_error(decoded(one, inputs).double(), exact) for one in (runner, model))
        # Some of these scores are so large that the last bit decides what is seen.
        assert error < max(1e-5, 10 * modules), (error, modules, repr(tree))


class Doubled(PositionWise):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_subclass_does_not_speak_for_its_base() -> None:
    program = fast.Program()
    x = program.new(4)
    with pytest.raises(fast.NotLowered, match="Doubled does not say how it is lowered"):
        program.lower(Doubled(config.PositionWise(hidden=4), 4), x)


def test_buffers_share_tables_only_when_nobody_reads_them_any_more() -> None:
    program = fast.Program()
    weight = torch.ones(8, 8)
    first = program.linear(program.embed(weight, 1.0, fast.Positions(4)), weight)
    second = program.linear(first, weight)
    third = program.linear(second, weight)
    program.add(first, third)
    program.mark("found", first)
    tables, widths = placed(program)
    # `third` is added by its own product, so it needs no table; the embedding's is free once `first` is made.
    assert tables[first.number] != tables[second.number]
    assert len(widths) == 2
    assert widths == [8, 8]


def test_a_product_that_is_added_to_the_stream_is_one_operation() -> None:
    program = fast.Program()
    weight = torch.ones(8, 8)
    stream = program.embed(weight, 1.0, fast.Positions(4))
    hidden = program.linear(stream, weight)
    program.add(stream, program.linear(hidden, weight))
    assert [operation.code for operation in program.operations] == ["embed", "linear", "linear"]
    assert "ACCUMULATE" in program.operations[-1].flags
    # Of the stream itself nothing may be added before all of it has been read.
    program.add(stream, program.linear(stream, weight))
    assert [operation.code for operation in program.operations][-2:] == ["linear", "add"]


def test_four_bits_leave_the_vocabulary_in_int8_and_what_does_not_come_in_32s_in_float32() -> None:
    program = fast.Program()
    table, square, odd = torch.randn(40, 32), torch.randn(32, 32), torch.randn(32, 24)
    x = program.embed(table, 1.0, fast.Positions(4))
    x = program.linear(x, square)
    program.linear(x.columns(0, 24), odd)
    program.mark("logits", program.linear(x, table))
    formats = [matrix.kept_as for matrix in executable(program, Matrices("int4")).matrices]
    assert formats == ["int8", "int4", "float32", "int8"]
