"""Which parameter is updated by what, and that the updates are torch's own."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from sublayer import config
from sublayer.config.presets import merge
from sublayer.errors import CheckpointError
from sublayer.models import EncoderDecoder
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.feed_forward import Gated
from sublayer.training.muon import JORDAN, POLAR_EXPRESS, Muon
from sublayer.training.optimizers import Optimizers
from sublayer.training.schedules import paper_peak


def model(**over: Any) -> EncoderDecoder:
    stack = {
        "layers": 2,
        "block": {"attention": {"heads": 2}, "feed_forward": {"type": "gated", "hidden": 12}, "norm_placement": "pre"},
    }
    tree = {"dim": 8, "vocab_size": 17, "max_length": 10, "encoder": stack, "decoder": stack}
    built = EncoderDecoder(config.EncoderDecoder.parse(merge(tree, over), "test"))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return built


def training(optimizer: config.Adam | config.AdamW | config.Muon, warmup: int = 100) -> config.Training:
    return config.Training(steps=10, optimizer=optimizer, schedule=config.InverseSquareRoot(warmup=warmup))


TABLES = {"encoder": {"position": {"type": "learned"}}, "decoder": {"position": {"type": "relative", "buckets": 8}}}
MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": "none", "output_bias": True},
    "tables": TABLES,
    "tables untied": {"tied": "none", **TABLES},
}
OPTIMIZERS: dict[str, Any] = {
    "adam": config.Adam(),
    "adamw": config.AdamW(weight_decay=0.3),
    "muon": config.Muon(weight_decay=0.2, others=config.AdamW(weight_decay=0.3)),
    "muon, fused": config.Muon(weight_decay=0.2, others=config.AdamW(weight_decay=0.3), each_head=False),
    "muon, polar express": config.Muon(
        weight_decay=0.2, others=config.AdamW(weight_decay=0.3), polynomials="polar-express"
    ),
    "muon, blocks": config.Muon(weight_decay=0.2, others=config.AdamW(weight_decay=0.3), hidden_block=4),
}


def groups(built: nn.Module, optimizer: Any) -> dict[str, tuple[str, float]]:
    """For each parameter the optimizer that has it and its weight decay."""
    names = {parameter: name for name, parameter in built.named_parameters()}
    found: dict[str, tuple[str, float]] = {}
    for part in Optimizers(built, training(optimizer), 8).parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in found
                found[names[parameter]] = (type(part).__name__, group["weight_decay"])
    return found


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_parameter_once_and_only_matrices_decay(shape: str, optimizer: str) -> None:
    built = model(**MODELS[shape])
    found = groups(built, OPTIMIZERS[optimizer])
    assert set(found) == {name for name, _ in built.named_parameters()}
    for name, (kind, decay) in found.items():
        in_blocks = ".layers." in name and name.endswith(".weight") and "norm" not in name and "sublayer" not in name
        matrix = in_blocks or (name == "output.weight" and "untied" in shape)
        expected = {
            "adam": ("Adam", 0.0),
            "adamw": ("AdamW", 0.3 if matrix else 0.0),
            "muon": ("Muon", 0.2) if in_blocks else ("AdamW", 0.3 if matrix else 0.0),
        }[optimizer.partition(",")[0]]
        assert (kind, decay) == expected, name


def test_the_names_that_decide_are_what_they_say() -> None:
    """Guards the test above: what it takes for a matrix inside a block has two dimensions, and nothing else there."""
    for name, parameter in model(**TABLES).named_parameters():
        if ".layers." in name:
            looks_it = name.endswith(".weight") and "norm" not in name and "sublayer" not in name
            assert looks_it == (parameter.dim() == 2), name


def loss_of(built: EncoderDecoder, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    source = torch.randint(17, (3, 5), generator=generator)
    target = torch.randint(17, (3, 4), generator=generator)
    return built(source, None, target).logsumexp(dim=-1).square().mean()


def twin(built: EncoderDecoder) -> EncoderDecoder:
    other = EncoderDecoder(built.config)
    other.load_state_dict(built.state_dict())
    return other


def plain(built: EncoderDecoder, optimizer: str) -> list[torch.optim.Optimizer]:
    """What one would write in torch, with the learning rates of three steps by hand further down."""
    everything = dict(built.named_parameters())
    inside = [p for n, p in everything.items() if ".layers." in n and p.dim() == 2]
    embedded = [everything["encoder.embedding.tokens.weight"]]
    vectors = [p for p in everything.values() if p.dim() == 1]
    if optimizer == "adam":
        rate = paper_peak(8, 100)
        return [torch.optim.Adam(everything.values(), lr=rate, betas=(0.9, 0.98), eps=1e-9, foreach=False)]
    both: Any = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-8, "foreach": False}
    rest = {"params": [*embedded, *vectors], "weight_decay": 0.0}
    if optimizer == "adamw":
        return [torch.optim.AdamW([{"params": inside, "weight_decay": 0.3}, rest], **both)]
    # Ours, which keeps float64: that it is torch's, but for bfloat16, is shown in test_muon.py.
    attentions = [m for m in built.modules() if isinstance(m, SelfAttention | CrossAttention)]
    heads = {} if optimizer == "muon, fused" else {w: shape for m in attentions for w, shape in m.head_maps()}
    if optimizer == "muon, blocks":
        networks = [m for m in built.modules() if isinstance(m, Gated)]
        heads |= {w: shape for m in networks for w, shape in m.hidden_maps(4)}
        assert len(networks) == 4
    polynomials = POLAR_EXPRESS if optimizer == "muon, polar express" else JORDAN
    muon = Muon(inside, 2e-3, momentum=0.95, weight_decay=0.2, maps=heads, polynomials=polynomials)
    return [muon, torch.optim.AdamW([rest], **both)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_torch(optimizer: str) -> None:
    # In float64: Adam divides by a gradient's size, and that of the keys' biases is nothing but rounding.
    ours = model().double()
    theirs = twin(ours).double()
    optimizers, plain_ones = Optimizers(ours, training(OPTIMIZERS[optimizer]), 8), plain(theirs, optimizer)
    peaks = [one.param_groups[0]["lr"] for one in plain_ones]
    for step, factor in enumerate((0.5, 1.0, 0.25), start=1):
        loss_of(ours, step).backward()
        optimizers.step(factor)
        optimizers.zero_grad()
        loss_of(theirs, step).backward()
        for one, peak in zip(plain_ones, peaks, strict=True):
            for group in one.param_groups:
                group["lr"] = peak * factor
            one.step()
            one.zero_grad()
        assert optimizers.learning_rate == pytest.approx(peaks[0] * factor)
    for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_adam_takes_the_papers_rate_unless_told() -> None:
    given = Optimizers(model(), training(config.Adam(learning_rate=0.5)), 8)
    papers = Optimizers(model(), training(config.Adam(), warmup=25), 8)
    assert (given.learning_rate, papers.learning_rate) == (0.5, pytest.approx((8 * 25) ** -0.5))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_put_back_goes_on_to_the_bit(optimizer: str) -> None:
    ours = model(tied="none")
    first = Optimizers(ours, training(OPTIMIZERS[optimizer]), 8)

    def steps(built: EncoderDecoder, optimizers: Optimizers, numbers: range) -> None:
        for step in numbers:
            loss_of(built, step).backward()
            optimizers.step(1.0)
            optimizers.zero_grad()

    steps(ours, first, range(3))
    other = twin(ours)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {name.rpartition("/")[0] for name in state} == {name for name, _ in ours.named_parameters()}
    second = Optimizers(other, training(OPTIMIZERS[optimizer]), 8)
    second.load_state(state)
    steps(ours, first, range(3, 6))
    steps(other, second, range(3, 6))
    for (name, found), wanted in zip(other.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(found, wanted), name


def test_state_of_another_model_is_refused() -> None:
    optimizers = Optimizers(model(), training(config.AdamW()), 8)
    with pytest.raises(CheckpointError, match=r"'other\.weight/exp_avg' of shape \(2, 2\)"):
        optimizers.load_state({"other.weight/exp_avg": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match=r"encoder\.embedding\.tokens\.weight/exp_avg' of shape \(2, 2\)"):
        optimizers.load_state({"encoder.embedding.tokens.weight/exp_avg": torch.zeros(2, 2)})


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("asked", ["auto", "float32"])
def test_muon_multiplies_in_the_type_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, fast: torch.dtype, asked: Literal["auto", "float32"]
) -> None:
    def fastest(device: torch.device) -> torch.dtype:
        return fast

    monkeypatch.setattr("sublayer.training.optimizers.multiply_dtype", fastest)
    muon = Optimizers(model(), training(config.Muon(products=asked)), 8).parts[0]
    assert isinstance(muon, Muon)
    assert muon.param_groups[0]["products"] is (fast if asked == "auto" else torch.float32)
