"""The lens, what a logit is made of, and which words it comes from: laws, finite differences, the model itself."""

from __future__ import annotations

import copy

import pytest
import torch

from inspection.test_heads import examples
from inspection.three_shapes import (
    HEADS,
    MAKERS,
    VOCABULARY,
    decoder_only,
    drawn,
    encoder_decoder,
    encoder_only,
    relative,
    stack,
)
from sublayer import config
from sublayer.errors import InputError
from sublayer.inspection.attention import text_maps
from sublayer.inspection.attribution import gradient_times_input, rollout
from sublayer.inspection.contributions import contributions
from sublayer.inspection.editing import edit, zero_ablate
from sublayer.inspection.lens import logit_lens
from sublayer.inspection.recording import record
from sublayer.models import DecoderOnly
from sublayer.nn.adapter import adapt

WIRINGS = ["pre", "post", "sandwich", "output", "parallel", "parallel-shared"]
NORMS = [config.LayerNorm(), config.LayerNorm(bias=False), config.RMSNorm(), config.RMSNorm(plus_one=True)]
SHAPES = list(MAKERS)
LABELS = ("a", "b", "c")
FORWARD = [
    config.PositionWise(hidden=24, activation="gelu"),
    config.Gated(hidden=20),
    config.MixtureOfExperts(experts=3, active=2, hidden=12),
]


def _asked(model, example) -> torch.Tensor:
    """What the model says of one example, through its front door, without a cap. Shape: [S, V]."""
    tokens = torch.tensor([example.tokens])
    with torch.no_grad():
        found = model(tokens, None, torch.tensor([example.fed])) if example.fed else model(tokens)
    return found[0]


def _assert_sums(found, logit: float) -> None:
    size = max(abs(share.value) for share in found.shares)
    assert found.logit == pytest.approx(logit, rel=1e-10, abs=1e-10 * size)
    assert sum(share.value for share in found.shares) == pytest.approx(logit, rel=1e-10, abs=1e-10 * size)
    assert sum(value for _, value in found.of_layers()) == pytest.approx(logit, rel=1e-10, abs=1e-10 * size)


@pytest.mark.parametrize("shape", ["decoder-only", "encoder-decoder"])
@pytest.mark.parametrize("norm_placement", WIRINGS)
@pytest.mark.parametrize("norm", NORMS, ids=["layer", "layer-no-bias", "rms", "rms-plus-one"])
def test_the_shares_sum_to_the_logit(shape, norm_placement, norm):
    if shape == "encoder-decoder" and norm_placement.startswith("parallel"):
        norm_placement = "pre"
    model = MAKERS[shape](
        norm_placement=norm_placement, norm=norm, feed_forward=FORWARD[WIRINGS.index(norm_placement) % 2]
    )
    example = examples(shape)[0]
    logits = _asked(model, example)
    for position, token in ((-1, 5), (3, 17)):
        _assert_sums(contributions(model, example, token, position), logits[position, token].item())


def test_the_parts_are_named_and_counted():
    model, example = encoder_decoder(), examples("encoder-decoder")[0]
    names = [share.name for share in contributions(model, example, 5).shares]
    heads = [f"{which} head {head}" for which in ("self", "cross") for head in range(HEADS)]
    for layer in (0, 1):
        for part in (*heads, "self attention bias", "cross attention bias", "feed-forward"):
            assert names.count(f"layer {layer} {part}") == 1
    assert names[0] == "embedding"
    assert names[-2:] == ["norm bias", "output bias"]
    assert len(set(names)) == len(names) == 1 + 2 * (2 * HEADS + 3) + 2


@pytest.mark.parametrize("forward", FORWARD, ids=["position-wise", "gated", "experts"])
def test_the_last_layers_share_is_what_is_lost_without_it_at_the_same_scale(forward):
    """In a pre-norm model, the last layer's parts act on the logit by their direct path alone."""
    attention = config.Attention(heads=HEADS, kv_heads=2, bias=False)
    block = {"attention": attention, "feed_forward": forward, "norm": config.RMSNorm()}
    model = decoder_only(layers=1, **block) if not isinstance(forward, config.MixtureOfExperts) else _experts(block)
    example = examples("decoder-only")[0]
    token, position = 9, 4
    found = contributions(model, example, token, position)
    with record(model, "decoder.norm") as seen:
        _asked(model, example)
    stream = {}
    hook = model.decoder.norm.register_forward_pre_hook(lambda module, given: stream.update(now=given[0]))
    _asked(model, example)
    hook.remove()
    scale = seen["decoder.norm"][0][0, position] / stream["now"][0, position]
    with (
        edit(model, "decoder.layers.0.feed_forward_sublayer.output", zero_ablate()),
        record(model, "*layers.0.stream") as cut,
    ):
        _asked(model, example)
    lost = (stream["now"] - cut["decoder.layers.0.stream"][0])[0, position] * scale
    [share] = [share for share in found.shares if share.kind == "feed-forward"]
    assert share.value == pytest.approx((lost @ model.output.weight[token]).item(), rel=1e-9)


def _experts(block) -> DecoderOnly:
    model = DecoderOnly(config.DecoderOnly(dim=16, vocab_size=VOCABULARY, max_length=24, decoder=stack(1, **block)))
    for parameter in model.double().eval().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_a_silent_head_has_no_share_and_leaves_the_others_heads_alone():
    model, example = decoder_only(layers=1), examples("decoder-only")[0]
    with edit(model, "decoder.layers.0.self_attention.heads", zero_ablate(2)):
        found = contributions(model, example, 5)
        _assert_sums(found, _asked(model, example)[-1, 5].item())
    values = {share.head: share.value for share in found.shares if share.kind == "head"}
    assert values[2] == 0
    assert all(values[head] != 0 for head in (0, 1, 3))


def test_a_cap_and_a_factor_on_the_output():
    model, example = decoder_only(softcap=3.0), examples("decoder-only")[0]
    found = contributions(model, example, 5)
    capped = _asked(model, example)[-1, 5].item()
    assert 3.0 * torch.tensor(found.logit / 3.0).double().tanh().item() == pytest.approx(capped, rel=1e-10)
    _assert_sums(found, found.logit)
    model, example = encoder_decoder(output_scale=0.25), examples("encoder-decoder")[0]
    _assert_sums(contributions(model, example, 5), _asked(model, example)[-1, 5].item())
    lens = logit_lens(model, example)
    assert relative(lens.logits[-1], _asked(model, example)) < 1e-12


def test_adapters_are_a_part_of_their_heads():
    model, example = decoder_only(), examples("decoder-only")[0]
    adapt(model, config.LowRank(rank=2, targets=("*.self_attention.output",)))
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    _assert_sums(contributions(model, example, 5), _asked(model, example)[-1, 5].item())


@pytest.mark.parametrize("pooling", ["class", "mean", "last"])
def test_a_label_is_taken_apart_where_its_head_is_linear(pooling):
    model = encoder_only(config.Classification(labels=LABELS, pooling=pooling, activation=None))
    example = examples("encoder-only")[0]
    _assert_sums(contributions(model, example, 1), _asked(model, example)[1].item())
    tagger = encoder_only(config.Tagging(labels=LABELS), norm_placement="post")
    _assert_sums(contributions(tagger, example, 2, 3), _asked(tagger, example)[3, 2].item())


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (config.MaskedLanguage(), r"masked-language head's own layer \(gelu\)"),
        (config.Tagging(labels=LABELS, activation="relu"), r"tagging head's own layer \(relu\)"),
        (config.Classification(labels=LABELS), r"classification head's own layer \(tanh\)"),
        (config.Classification(labels=LABELS, pooling="max", activation=None), "pooling by maximum"),
        (config.SentenceEmbedding(), "gives no logits"),
        (config.NoHead(), "gives no logits"),
    ],
)
def test_what_is_not_linear_is_refused_by_name(head, message):
    with pytest.raises(InputError, match=message):
        contributions(encoder_only(head), examples("encoder-only")[0], 1)


def test_a_model_without_layers_has_nothing_to_look_at():
    model = encoder_only(config.Classification(labels=LABELS, activation=None), layers=0)
    example = examples("encoder-only")[0]
    asked = [
        lambda: logit_lens(model, example),
        lambda: contributions(model, example, 1),
        lambda: text_maps(model, example),
        lambda: rollout(model, example),
    ]
    for ask in asked:
        with pytest.raises(InputError, match=r"no layers \(encoder\.layers = 0\)"):
            ask()


def test_positions_and_tokens_that_are_not_there():
    model, example = decoder_only(), examples("decoder-only")[0]
    for ask in (contributions, gradient_times_input):
        with pytest.raises(InputError, match=r"no position 10.*0 to 9"):
            ask(model, example, 5, 10)
        with pytest.raises(InputError, match=rf"no token \(or label\) {VOCABULARY}.*0 to {VOCABULARY - 1}"):
            ask(model, example, VOCABULARY)
        with pytest.raises(InputError, match="one thing of a text"):
            ask(encoder_only(config.Classification(labels=LABELS, activation=None)), examples("encoder-only")[0], 1, 2)


# --- the lens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm_placement", ["pre", "post"])
def test_the_lens_of_a_layer_is_the_model_cut_off_there(shape, norm_placement):
    model, example = MAKERS[shape](norm_placement=norm_placement), examples(shape)[0]
    lens = logit_lens(model, example)
    assert lens.names == ["embedding", "layer 0", "layer 1"]
    assert relative(lens.logits[2], _asked(model, example)) < 1e-12
    shorter = copy.deepcopy(model)
    last = shorter.encoder if shape == "encoder-only" else shorter.decoder
    del last.layers[1]
    last.kind_of_layer = last.kind_of_layer[:1]
    assert relative(lens.logits[1], _asked(shorter, example)) < 1e-12
    assert torch.allclose(lens.probabilities.sum(-1), torch.ones((), dtype=torch.float64))
    best = lens.logits[2].argmax(-1)
    assert (lens.ranks(best)[2] == 0).all()
    worst = lens.logits[1].argmin(-1)
    assert (lens.ranks(worst)[1] == VOCABULARY - 1).all()


def test_a_model_in_training_stays_so_and_says_what_it_says_without_dropout():
    model = drawn(DecoderOnly(config.DecoderOnly(dim=16, vocab_size=VOCABULARY, decoder=stack(dropout=0.5))))
    example = examples("decoder-only")[0]
    quiet = _asked(model, example)
    model.train()
    assert relative(logit_lens(model, example).logits[-1], quiet) < 1e-12
    _assert_sums(contributions(model, example, 5), quiet[-1, 5].item())
    assert model.training
    with pytest.raises(InputError, match="says nothing of a single token"):
        logit_lens(encoder_only(config.SentenceEmbedding()), examples("encoder-only")[0])


# --- which words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_rollout_follows_all_ways_through_the_layers(shape):
    model, example = MAKERS[shape](), examples(shape)[0]
    flow = rollout(model, example)
    kind = "decoder" if shape == "decoder-only" else "encoder"
    with record(model, f"{kind}.layers.*.self_attention.weights") as seen:
        _asked(model, example)
    first, second = (seen[name][0][0].mean(0).tolist() for name in seen)
    size = len(example.tokens)
    # Every way from the top to the bottom, in two steps: along an attention, or staying, with one half each.
    for top, bottom in ((size - 1, 0), (2, 2), (4, 1)):
        total = 0.0
        for middle in range(size):
            above = 0.5 * second[top][middle] + 0.5 * (top == middle)
            total += above * (0.5 * first[middle][bottom] + 0.5 * (middle == bottom))
        assert flow[top, bottom].item() == pytest.approx(total, rel=1e-10)
    torch.testing.assert_close(flow.sum(-1), torch.ones(size, dtype=flow.dtype))


@pytest.mark.parametrize("shape", [*SHAPES, "classifier"])
def test_gradient_times_input_is_the_slope_along_each_embedding(shape):
    if shape == "classifier":
        model, example, position = encoder_only(config.Classification(labels=LABELS)), examples("encoder-only")[0], None
    else:
        model, example, position = MAKERS[shape](), examples(shape)[0], 2
    token = 1

    def logit() -> float:
        said = _asked(model, example)
        return (said[token] if position is None else said[position, token]).item()

    found = gradient_times_input(model, example, token, position)
    assert found.logit == pytest.approx(logit(), rel=1e-12)
    sides = {"encoder": found.tokens} if shape in ("encoder-only", "classifier") else {"decoder": found.tokens}
    if shape == "encoder-decoder":
        sides = {"encoder": found.tokens, "decoder": found.fed}
    for stack_name, given in sides.items():
        for at in (0, 2):

            def slope(step: float, name=f"{stack_name}.embedding.stream", at=at) -> float:
                def grown(value, name):
                    value = value.clone()
                    value[:, at] *= 1 + step
                    return value

                with edit(model, name, grown):
                    return logit()

            step = 1e-5
            assert given[at].item() == pytest.approx((slope(step) - slope(-step)) / (2 * step), rel=1e-5, abs=1e-7)
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.inference_mode()
def test_gradients_are_had_in_inference_mode_too():
    with torch.inference_mode(False):
        model = decoder_only()
    found = gradient_times_input(model, examples("decoder-only")[0], 5)
    assert found.tokens.abs().sum() > 0
    assert found.fed is None
