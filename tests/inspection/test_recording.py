"""Recording: what is seen is what was computed, and nothing else changes."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from inspection.three_shapes import HEADS, MAKERS, ask, tokens
from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.request import DecodeRequest
from sublayer.inspection.recording import record
from sublayer.models import EncoderDecoder
from sublayer.nn import attend
from sublayer.nn.tap import Tap

VOCABULARY = 50
LENGTHS = torch.tensor([7, 4])


@pytest.fixture
def model() -> EncoderDecoder:
    """Random, with weights large enough that attention is far from uniform."""
    made = EncoderDecoder(config.preset("tiny").model_copy(update={"vocab_size": VOCABULARY})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source [2, 7] with three positions of padding in row 1, its lengths, target [2, 5]."""
    return torch.randint(4, VOCABULARY, (2, 7)), LENGTHS, torch.randint(4, VOCABULARY, (2, 5))


def _listened(model: EncoderDecoder) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Tap) and module.listened]


def test_a_pattern_takes_the_taps_that_it_names_in_the_models_order(model, batch):
    with record(model, "decoder.layers.*.cross_attention.weights", "logits") as seen:
        assert list(seen) == [
            "decoder.layers.0.cross_attention.weights",
            "decoder.layers.1.cross_attention.weights",
            "logits",
        ]
        assert _listened(model) == list(seen)
        logits = model(*batch)
    assert torch.equal(seen["logits"][0], logits)
    assert all(len(calls) == 1 for calls in seen.values())
    assert not any(value[0].requires_grad for value in seen.values())


def test_rows_sum_to_one_and_padding_gets_nothing(model, batch):
    with record(model, "*_attention.weights") as seen:
        model(*batch)
    assert len(seen) == 6
    for name, (weights,) in seen.items():
        assert torch.allclose(weights.sum(-1), torch.ones(())), name
        if name.startswith("encoder") or "cross" in name:
            assert (weights[1, :, :, LENGTHS[1] :] == 0).all(), name
        else:
            assert (weights.triu(1) == 0).all(), name


def test_the_hooks_go_when_the_block_ends_however_it_ends(model, batch):
    with record(model, "*"):
        assert _listened(model)
    assert not _listened(model)
    with pytest.raises(IndexError), record(model, "*") as seen:
        model(batch[0], None, batch[2] + VOCABULARY)
    assert not _listened(model)
    assert len(seen["encoder.layers.1.stream"]) == 1
    assert seen["logits"] == []
    with pytest.raises(InputError), record(model, "logits", "nothing"):
        pass
    assert not _listened(model)


def test_only_the_layers_that_are_listened_to_leave_the_fused_path(model, batch):
    with patch.object(attend, "fused", wraps=attend.fused) as fused:
        plain = model(*batch)
        assert fused.call_count == 6
        with record(model, "decoder.layers.1.cross_attention.weights"):
            fused.reset_mock()
            tapped = model(*batch)
            assert fused.call_count == 5
        with record(model, "*.stream", "*.output", "logits"):
            fused.reset_mock()
            model(*batch)
            assert fused.call_count == 6
    assert torch.allclose(tapped, plain, rtol=1e-4, atol=1e-4)


def test_tapped_is_untapped(model, batch):
    plain = model.double()(*batch)
    with record(model, "*"):
        tapped = model(*batch)
    assert (tapped - plain).abs().max() < 1e-10 * plain.abs().max()


def test_training_goes_on_under_a_recording(model, batch):
    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(*batch).logsumexp(-1).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    model.double().train()
    plain = gradients()
    with record(model, "*") as seen:
        recorded = gradients()
    assert len(plain) == len(recorded) > 0
    for one, other in zip(plain, recorded, strict=True):
        assert (one - other).norm() <= 1e-10 * one.norm()
    assert not seen["logits"][0].requires_grad


@torch.inference_mode()
def test_in_generation_every_step_appends(model, batch):
    source, lengths, _ = batch
    request = DecodeRequest(first=[1, 1], end_ids=frozenset(), steps=[4, 4])
    with record(model, "decoder.layers.0.*_attention.weights") as seen:
        greedy(model, source, lengths, request)
    own, cross = seen.values()
    assert [tuple(step.shape) for step in own] == [(2, 4, 1, so_far) for so_far in (1, 2, 3, 4)]
    assert [tuple(step.shape) for step in cross] == [(2, 4, 1, 7)] * 4
    with record(model, "decoder.layers.0.*_attention.weights") as seen:
        beam_search(model, source, lengths, request, beam=3, length_penalty=0.0)
    own, cross = seen.values()
    assert own[-1].shape == (6, 4, 1, 4)
    assert cross[-1].shape == (2, 4, 3, 7)


def test_what_was_recorded_is_safe_from_changes_in_place(model, batch):
    with torch.no_grad(), record(model, "logits") as seen:
        logits = model(*batch)
        kept = logits.clone()
        logits.fill_(0.0)
    assert torch.equal(seen["logits"][0], kept)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["decoder.layer.*.cross_attention.weights"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["decoder.layers.7.cross_attention.weights"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["decoder.layers.0.cross_attention"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["qqq"], "encoder.*stream.*logits"),
        ([], "no pattern"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(model, patterns, message):
    with pytest.raises(InputError, match=message), record(model, *patterns):
        pass


# --- every shape -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(MAKERS))
@pytest.mark.parametrize("norm_placement", ["pre", "post", "sandwich", "parallel-shared"])
def test_the_stream_is_the_sum_of_what_is_written_to_it(shape, norm_placement):
    if norm_placement.startswith("parallel") and shape == "encoder-decoder":
        norm_placement = "output"
    made = MAKERS[shape](norm_placement=norm_placement)
    with record(made, "*coder.*", "logits") as seen:
        said = ask(made, tokens(), torch.tensor([7, 4]))
    assert torch.equal(seen["logits"][0], said.detach())
    for name, stack in ((name, getattr(made, name, None)) for name in ("encoder", "decoder")):
        if stack is None:
            continue
        x = seen[f"{name}.embedding.stream"][0]
        for layer in range(2):
            where = f"{name}.layers.{layer}"
            for part in ("self_attention", "cross_attention", "feed_forward"):
                written = seen.get(f"{where}.{part}_sublayer.output")
                if written is not None:
                    x = x + written[0]
                    x = seen[f"{where}.{part}_sublayer.outer"][0] if norm_placement == "post" else x
            torch.testing.assert_close(seen[f"{where}.stream"][0], x)
        if norm_placement != "post":
            torch.testing.assert_close(seen[f"{name}.norm"][0], stack.norm(x))


@pytest.mark.parametrize("shape", list(MAKERS))
def test_what_heads_have_found_is_their_weights_over_values_and_what_the_output_map_reads(shape):
    made = MAKERS[shape](attention=config.Attention(heads=HEADS))
    name = next(n for n, _ in made.named_modules() if n.endswith("layers.1.self_attention"))
    attention = made.get_submodule(name)
    inputs: list[torch.Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    with record(made, f"{name}.heads", f"{name}.weights", f"{name}_sublayer.output") as seen:
        ask(made, tokens())
    hook.remove()
    value = attention.qkv(inputs[0])[..., -16:].unflatten(-1, (HEADS, 4)).detach()
    expected = torch.einsum("bhst,bthd->bshd", seen[f"{name}.weights"][0], value)
    torch.testing.assert_close(seen[f"{name}.heads"][0], expected)
    written = attention.output(expected.flatten(2)).detach()
    torch.testing.assert_close(seen[f"{name}_sublayer.output"][0], written)


@pytest.mark.parametrize("shape", ["decoder-only", "encoder-only"])
def test_texts_packed_in_a_row_are_recorded_as_they_are_alone(shape):
    made = MAKERS[shape]()
    one, other = tokens(5, 1), tokens(4, 1)
    packed, segments = torch.cat((one, other), 1), torch.tensor([[0] * 5 + [1] * 4])
    with record(made, "*.stream", "*.weights", "*.heads", "*.norm") as seen:
        made(packed, segments=segments)
    for text, part in ((one, slice(0, 5)), (other, slice(5, 9))):
        with record(made, *seen) as alone:
            made(text)
        for name, (value,) in seen.items():
            if name.endswith("weights"):
                torch.testing.assert_close(value[:, :, part, part], alone[name][0])
                outside = value[:, :, part].clone()
                outside[..., part] = 0
                assert (outside == 0).all()
            else:
                torch.testing.assert_close(value[:, part], alone[name][0])


def test_prompts_of_unlike_length_are_recorded_as_they_are_alone():
    """Padding stands on the left while texts are made; its columns get nothing."""
    made = MAKERS["decoder-only"]()
    prompts, lengths, names = tokens(6, 2), torch.tensor([6, 3]), ("*.weights", "*.layers.1.stream")
    with torch.no_grad(), record(made, *names) as seen:
        state = made.start(prompts, lengths)
        made.step(prompts[:, :1], state)
    with torch.no_grad(), record(made, *names) as alone:
        state = made.start(prompts[1:, :3])
        made.step(prompts[1:, :1], state)
    for name in seen:
        for together, single in zip(seen[name], alone[name], strict=True):
            if name.endswith("weights"):
                queries = single.shape[2]
                torch.testing.assert_close(together[1:, :, -queries:, 3:], single)
                assert (together[1, :, -queries:, :3] == 0).all()
            else:
                torch.testing.assert_close(together[1:, -single.shape[1] :], single)


@pytest.mark.parametrize("shape", ["decoder-only", "encoder-decoder"])
@pytest.mark.parametrize("pattern", ["*.norm", "*.heads", "*.embedding.stream", "logits", "*_sublayer.before"])
def test_the_runner_hands_over_what_is_listened_to_and_says_the_same(shape, pattern):
    made = MAKERS[shape]().float()
    given, runner = tokens(), Runner(made)
    assert runner.prepare()

    @torch.inference_mode()
    def steps(backend) -> torch.Tensor:
        state = backend.start(given[:, :3])
        return torch.cat([backend.step(given[:, at : at + 1], state) for at in (3, 4, 5)], dim=1)

    quiet = steps(runner)
    with record(made, pattern) as seen:
        heard = steps(runner)
    assert all(len(calls) >= 3 for name, calls in seen.items() if not name.startswith("encoder"))
    torch.testing.assert_close(heard, quiet, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(steps(made), quiet, rtol=1e-4, atol=1e-4)
