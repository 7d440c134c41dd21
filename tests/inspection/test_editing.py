"""Editing: what takes a value's place is what is computed with, everywhere, and only there."""

from __future__ import annotations

import pytest
import torch

import sublayer
from inspection.three_shapes import HEADS, MAKERS, ask, decoder_only, encoder_decoder, relative, tokens
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner
from sublayer.generation.beam import beam_search
from sublayer.generation.request import DecodeRequest
from sublayer.inspection.editing import edit, patched, scaled, zero_ablate
from sublayer.inspection.recording import record
from sublayer.nn.tap import Tap

SHAPES = list(MAKERS)
WIRINGS = ["pre", "post", "sandwich"]


def _first_attention(model) -> str:
    """The self-attention of layer 1."""
    return next(n for n, _ in model.named_modules() if n.endswith("layers.1.self_attention"))


def _without_head(model, name: str, head: int) -> None:
    """Take the head out of the weights: the columns of the output map that read it."""
    attention = model.get_submodule(name)
    with torch.no_grad():
        attention.output.weight[:, head * attention.width : (head + 1) * attention.width] = 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm_placement", WIRINGS)
def test_a_silent_head_is_one_that_the_output_map_does_not_read(shape, norm_placement):
    model, given = MAKERS[shape](norm_placement=norm_placement), tokens()
    name = _first_attention(model)
    plain = ask(model, given)
    for tap in ("heads", "weights"):
        with edit(model, f"{name}.{tap}", zero_ablate(2)):
            found = ask(model, given)
        assert relative(found, plain) > 1e-3
        if tap == "heads":
            by_heads = found
    assert relative(by_heads, found) < 1e-12
    assert torch.equal(ask(model, given), plain)
    _without_head(model, name, 2)
    assert relative(ask(model, given), found) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_patching_every_layers_stream_with_another_run_gives_the_other_runs_answer(shape):
    model = MAKERS[shape]()
    one, other = tokens(), tokens()
    with record(model, "*.stream", "*.heads", "*.norm") as seen:
        wanted = ask(model, other)
    stream = "decoder.layers.1.stream" if shape != "encoder-only" else "encoder.layers.1.stream"
    with edit(model, stream, patched(seen)):
        assert relative(ask(model, one), wanted) < 1e-12
    with edit(model, stream.replace("layers.1.stream", "norm"), patched(seen)):
        assert relative(ask(model, one), wanted) < 1e-12


def test_a_patch_of_positions_and_heads_touches_only_these():
    model, one, other = decoder_only(), tokens(), tokens()
    name = "decoder.layers.0.self_attention.heads"
    with record(model, name) as theirs:
        ask(model, other)
    patch = patched(theirs, heads=[1, 3], positions=[2, -1])
    with record(model, name) as before, edit(model, name, patch), record(model, name) as after:
        ask(model, one)
    expected = before[name][0].clone()
    for head in (1, 3):
        for place in (2, 6):
            expected[:, place, head] = theirs[name][0][:, place, head]
    assert torch.equal(after[name][0], expected)
    assert not torch.equal(before[name][0], expected)


def test_a_scale_is_a_product_and_several_edits_follow_each_other():
    model, given = decoder_only(), tokens()
    name = "decoder.layers.1.feed_forward_sublayer.output"
    edits = {name: scaled(3.0), "*.1.feed*.output": scaled(0.5)}
    with record(model, name) as before, edit(model, edits), record(model, name) as after:
        ask(model, given)
    torch.testing.assert_close(after[name][0], before[name][0] * 1.5)
    heads = "decoder.layers.1.self_attention.heads"
    with record(model, heads) as before, edit(model, heads, scaled(-2.0, 0)), record(model, heads) as after:
        ask(model, given)
    torch.testing.assert_close(after[heads][0][:, :, 0], before[heads][0][:, :, 0] * -2)
    assert torch.equal(after[heads][0][:, :, 1:], before[heads][0][:, :, 1:])


def test_gradients_flow_through_an_edit_and_not_into_a_silent_head():
    model, given = decoder_only(layers=1).train(), tokens()
    with edit(model, "decoder.layers.0.self_attention.heads", zero_ablate(1)):
        ask(model, given).logsumexp(-1).sum().backward()
    gradient = model.decoder.layers[0].self_attention.output.weight.grad.view(-1, HEADS, 4)
    assert gradient[:, 1].abs().max() == 0
    assert gradient[:, 0].abs().max() > 0


@pytest.mark.parametrize("beam", [1, 3])
def test_search_is_of_the_edited_model_through_the_runner_too(beam):
    model = encoder_decoder().float()
    source, request = tokens(), DecodeRequest([1, 1], frozenset({2}), [9, 9])

    @torch.inference_mode()
    def found(backend):
        return [
            [h.tokens for h in some]
            for some in beam_search(backend, source, None, request, beam=beam, length_penalty=0.0)
        ]

    runner = Runner(model)
    assert runner.prepare()
    plain = found(runner)
    edits = {"decoder.layers.*.cross_attention.heads": zero_ablate(0, 1), "decoder.layers.1.*.output": scaled(-1.0)}
    with edit(model, edits):
        edited = found(runner)
        assert edited == found(model)
    assert edited != plain
    assert found(runner) == plain
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.cross_attention.output.weight[:, :8] = 0
        last = model.decoder.layers[1]
        for part in (last.cross_attention.output, last.self_attention.output, last.feed_forward.down):
            part.weight.neg_()
            part.bias.neg_()
    assert found(model) == edited


@torch.inference_mode()
def test_a_patch_follows_the_steps_of_a_generation_and_each_edit_begins_anew():
    model, one, other = decoder_only(), tokens(5, 1), tokens(5, 1)
    name = "decoder.layers.1.stream"

    def steps(given):
        state = model.start(given[:, :2])
        return torch.cat([model.step(given[:, place : place + 1], state) for place in (2, 3, 4)], dim=1)

    with record(model, name) as seen:
        wanted = steps(other)
    patch = patched(seen)
    for _ in range(2):
        with edit(model, name, patch):
            assert relative(steps(one), wanted) < 1e-12
    assert [tuple(value.shape) for value in seen[name]] == [(1, 2, 16), *[(1, 1, 16)] * 3]


def test_a_recording_made_in_inference_can_be_patched_into_a_training_run():
    model, given = decoder_only(), tokens()
    name = "decoder.layers.0.stream"
    with torch.inference_mode(), record(model, name) as seen:
        ask(model, given)
    with edit(model, name, patched(seen)):
        ask(model, given).sum().backward()
    assert model.decoder.layers[1].feed_forward.down.weight.grad is not None


HEADS_OF_0 = "decoder.layers.0.self_attention.heads"


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        (HEADS_OF_0, zero_ablate(4), r"no head 4 at 'decoder.layers.0.self_attention.heads'. The heads are 0 to 3"),
        ("decoder.layers.0.self_attention.weights", scaled(2.0, 0, -1), "no head -1 .* 0 to 3"),
        ("decoder.layers.0.stream", zero_ablate(0), "has no heads"),
        ("decoder.layers.0.self_attention_sublayer.before", zero_ablate(0), "has no heads"),
        (HEADS_OF_0, lambda value, name: None, "gave NoneType, not a tensor"),
        (HEADS_OF_0, lambda value, name: value[:, :1], r"\(2, 1, 4, 4\), but the value has \(2, 7, 4, 4\)"),
        (HEADS_OF_0, patched({}), "does not hold"),
        (HEADS_OF_0, patched({HEADS_OF_0: []}), "0 calls .* number 1"),
        (HEADS_OF_0, patched({HEADS_OF_0: [torch.zeros(1)]}), "equal lengths"),
        (HEADS_OF_0, patched({HEADS_OF_0: [torch.zeros(2, 7, 4, 4)]}, positions=[7]), "no position 7 .* 0 to 6"),
    ],
)
def test_what_cannot_be_put_in_a_values_place(name, function, message):
    model = decoder_only()
    with pytest.raises(InputError, match=message), edit(model, name, function):
        ask(model, tokens())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (({"logits": zero_ablate(), "nothing": zero_ablate()},), "'nothing' matches no tap"),
        (("logits",), "no function"),
        (({"logits": zero_ablate()}, zero_ablate()), "beside a mapping"),
        (({},), "no pattern"),
    ],
)
def test_what_is_refused_before_anything_is_edited(given, message):
    model = decoder_only()
    with pytest.raises(InputError, match=message), edit(model, *given):
        pass
    assert not any(module.listened for module in model.modules() if isinstance(module, Tap))


def test_the_names_at_hand():
    assert (sublayer.edit, sublayer.zero_ablate, sublayer.scaled, sublayer.patched) == (
        edit,
        zero_ablate,
        scaled,
        patched,
    )
