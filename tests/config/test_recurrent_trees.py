"""Recurrent models in a recipe: what `kind = "lstm"` means, what they cost, how an editor sees them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from config.test_cost import PARTS, kept_by_autograd
from config.test_schema import SCHEMA, fits
from recurrent_models import PAIRS, TEXTS, name
from small_run import recipe
from small_task import plain
from sublayer import config
from sublayer.config.cost import decoding_memory, total_parameters, training_memory
from sublayer.config.load import dump_toml, load_recipe
from sublayer.errors import ConfigError
from sublayer.models import build_model

ALL = [*PAIRS, *TEXTS]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def of_task(task: str, **model: Any) -> dict[str, Any]:
    data = recipe() if task == "translation" else plain(task)
    return {**data, "model": {"dim": 16, "max_length": 32, **model}}


# --- kind = "lstm" -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", config.CELLS)
@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("translation", "recurrent-encoder-decoder"),
        ("denoising", "recurrent-encoder-decoder"),
        ("span-corruption", "recurrent-encoder-decoder"),
        ("causal", "recurrent-decoder-only"),
        ("instructions", "recurrent-decoder-only"),
    ],
)
def test_a_cells_name_is_the_network_that_the_task_asks_for(tmp_path: Any, cell: str, task: str, kind: str) -> None:
    data = of_task(task, kind=cell)
    found = config.Recipe.parse(data, "r")
    assert (found.model.kind, getattr(found.model, "cell", None)) == (kind, cell)
    assert found == config.Recipe.parse(of_task(task, kind=kind, cell=cell), "r")
    assert fits({**data, "name": "a"}, SCHEMA)
    (tmp_path / "r.toml").write_text(dump_toml(found))
    assert load_recipe(str(tmp_path / "r.toml")).recipe == found


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (of_task("masked", kind="gru"), "model.kind = 'gru': no recurrent network does what task 'masked' asks"),
        (
            of_task("translation", kind="lstm", cell="gru"),
            "model.cell = 'gru' is not model.kind = 'lstm'; leave it out",
        ),
        (of_task("translation", kind="lstm", preset="tiny"), "'lstm' is not the kind of preset 'tiny'"),
        (of_task("translation", kind="lstm", decoder={"layers": 3}), "encoder.layers = 2 is not decoder.layers = 3"),
        (of_task("translation", kind="lstn"), "model.kind: unknown kind 'lstn'"),
        (
            of_task("causal", kind="recurrent-encoder-decoder"),
            "task 'causal' trains model.kind = 'recurrent-decoder-only', not 'recurrent-encoder-decoder'",
        ),
        (of_task("causal", kind="lstm", encoder={"layers": 2}), "model.encoder: unknown key"),
    ],
)
def test_what_cannot_be_is_one_line(data: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.Recipe.parse(data, "r")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_schema_refuses_what_loading_refuses() -> None:
    assert not fits(of_task("translation", kind="lstm", cell="gru"), SCHEMA)
    assert not fits(of_task("translation", kind="lstm", decoder={"attention": {"type": "luong"}}), SCHEMA)
    assert fits(of_task("translation", kind="lstm", decoder={"attention": {"type": "additive"}}), SCHEMA)


# --- what they cost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", ALL, ids=name)
def test_parameters_are_the_models(tree: config.Recurrent) -> None:
    with torch.device("meta"):
        real = build_model(tree)
    parts = {"recurrence.": "recurrence", **PARTS}
    found: dict[str, int] = {}
    for path, parameter in real.named_parameters():
        part = next((part for key, part in parts.items() if key in path), "norms")
        found[part] = found.get(part, 0) + parameter.numel()
    counted: dict[str, int] = {}
    for path, count in tree.parameters().items():
        part = path.rpartition(".")[2]
        part = {"source_embedding": "embedding", "target_embedding": "embedding", "embedding_norms": "norms"}.get(
            part, part
        )
        counted[part] = counted.get(part, 0) + count
    assert {part: count for part, count in counted.items() if count} == found
    assert total_parameters(tree) == sum(parameter.numel() for parameter in real.parameters())


@pytest.mark.parametrize("tree", ALL, ids=name)
def test_forward_flops_are_those_that_torch_counts(tree: config.Recurrent) -> None:
    """torch's counter sees the products of its own recurrent kernels, but not what oneDNN does."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    real = build_model(tree).eval()
    source, target = torch.zeros(1, 7, dtype=torch.int64), torch.zeros(1, 9, dtype=torch.int64)
    told = (target,) if isinstance(tree, config.RecurrentDecoderOnly) else (source, None, target)
    # Not by `torch.backends.mkldnn.flags`, which warns of graphics cards.
    torch._C._set_mkldnn_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            real(*told)
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert counter.get_total_flops() == pytest.approx(tree.flops(7, 9).training * 9 / 3, rel=1e-9)


@pytest.mark.parametrize("tree", ALL, ids=name)
def test_a_token_more_costs_the_same_wherever_it_stands(tree: config.Recurrent) -> None:
    near, far = tree.flops(5, 3), tree.flops(5, 30)
    assert near.decoding == far.decoding
    projection = 2 * tree.dim * tree.vocab_size
    if isinstance(tree, config.RecurrentDecoderOnly):
        products = 2 * tree.decoder.layers * GATES[tree.cell] * 2 * tree.dim**2
        assert (near.decoding, near.encoding) == (products + projection, 5 * products)
    else:
        assert near.training * 3 == pytest.approx(3 * (near.encoding + 3 * near.decoding), rel=1e-9)


@pytest.mark.parametrize("cell", config.CELLS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_about_what_autograd_keeps(cell: config.Cell, dropout: float) -> None:
    """Within 12%: the kernels keep what they keep, and another version of torch may keep something else."""
    text = config.RecurrentDecoderOnly(
        cell=cell, dim=128, vocab_size=50, decoder=config.Recurrence(layers=2, dropout=dropout)
    )
    tokens = torch.randint(50, (12, 20))
    found = kept_by_autograd(text, lambda real: real.hidden(tokens))
    assert training_memory(text, config.Training(steps=1), tokens=240)["activations"] == pytest.approx(found, rel=0.12)
    for attention in (config.NoAttention(), config.Multiplicative()):
        pair = config.RecurrentEncoderDecoder(
            cell=cell,
            dim=128,
            vocab_size=50,
            encoder=config.RecurrentEncoder(dropout=dropout),
            decoder=config.RecurrentDecoder(attention=attention, dropout=dropout),
        )
        found = kept_by_autograd(pair, lambda real: real.hidden(tokens, None, tokens))
        counted = training_memory(pair, config.Training(steps=1), tokens=480)["activations"]
        assert counted == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize("tree", ALL, ids=name)
def test_decoding_memory_is_what_the_state_holds(tree: config.Recurrent) -> None:
    state = build_model(tree).eval().start(torch.zeros(3, 7, dtype=torch.int64), num_beams=2, capacity=11)
    found = decoding_memory(tree, batch=3, beam=2, length=11, source_length=7)
    assert found["state"] + found.get("cross_cache", 0) == state.bytes
    assert decoding_memory(tree, batch=3, beam=2, length=110, source_length=7)["state"] == found["state"]
    assert found["weights"] == 4 * total_parameters(tree)


@pytest.mark.parametrize("tree", [PAIRS[1], TEXTS[0]], ids=name)
@pytest.mark.parametrize("optimizer", [config.AdamW(), config.Muon()], ids=["adamw", "muon"])
def test_optimizers_remember_so_many_numbers(tree: config.Recurrent, optimizer: config.AdamW | config.Muon) -> None:
    """Muon takes the matrices of the layers, and decay is for matrices."""
    from sublayer.training.optimizers import Optimizers

    training = config.Training(steps=1, optimizer=optimizer)
    real = build_model(tree)
    optimizers = Optimizers(real, training, tree.dim)
    for parameter in real.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(1.0)
    found = sum(value.numel() for value in optimizers.state().values() if value.dim())
    assert training_memory(tree, training)["optimizer"] == 4 * found
    decaying = {
        p for part in optimizers.parts for group in part.param_groups if group["weight_decay"] for p in group["params"]
    }
    recurrent = {p for key, p in real.named_parameters() if "kernel.weight" in key}
    assert recurrent <= decaying
    assert not any("bias" in key for key, p in real.named_parameters() if p in decaying)
