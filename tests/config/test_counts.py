"""What the parts say of themselves is true of the real model, over trees that show every value of every field."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from covering import covering, draw_part, required, shown, uncovered
from torch import nn

from sublayer import config
from sublayer.config.cost import active_parameters, total_parameters, training_memory
from sublayer.models import build_model
from sublayer.models.initialization import initialize

KINDS = tuple(config.KINDS)


@cache
def trees(kind: str) -> list[Any]:
    return covering(config.KINDS[kind])


def everything() -> list[Any]:
    return [tree for kind in KINDS for tree in trees(kind)]


def name(tree: Any) -> str:
    """What to look for where a test fails: the tree itself."""
    return repr(tree)


def test_every_value_of_every_field_is_there() -> None:
    have = {item for tree in everything() for item in shown(tree)}
    for root in config.KINDS.values():
        assert not uncovered(root, have)


def test_a_field_that_nobody_thought_of_is_missed() -> None:
    """The set is as good as its ruler: without the trees that show a value, the value is named."""
    have = {item for tree in trees("encoder-only") for item in shown(tree)}
    for item in sorted(item for item in required(config.EncoderOnly) if item[2] != "number"):
        assert uncovered(config.EncoderOnly, have - {item}) == [item]


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_models(kind: str) -> None:
    for tree in trees(kind):
        with torch.device("meta"):
            real = build_model(tree)
        assert total_parameters(tree) == sum(p.numel() for p in real.parameters()), name(tree)
        assert active_parameters(tree) <= total_parameters(tree)
        # By part as well, for those that stand under a name of their own.
        counted = tree.parameters()
        for part in ("self_attention", "cross_attention", "feed_forward", "recurrence"):
            for side in ("encoder", "decoder"):
                inside = {
                    path: p.numel()
                    for path, p in real.named_parameters()
                    if path.startswith(f"{side}.") and f".{part}." in path
                }
                assert counted.get(f"{side}.{part}", 0) == sum(inside.values()), (side, part, name(tree))


@pytest.mark.parametrize("kind", KINDS)
def test_what_muon_remembers_is_what_is_counted(kind: str) -> None:
    from sublayer.training.optimizers import Optimizers

    training = config.Training(steps=1, optimizer=config.Muon())
    for tree in trees(kind)[:20]:
        real = build_model(tree)
        optimizers = Optimizers(real, training, 32)
        for parameter in real.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.step(1.0)
        found = sum(value.numel() for value in optimizers.state().values() if value.dim())
        assert training_memory(tree, training)["optimizer"] == 4 * found, name(tree)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("recurrent")])
def test_operations_are_those_that_torch_counts(kind: str) -> None:
    """torch's counter sees whole squares where a mask lets only some pairs attend."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for tree in trees(kind):
        length = tree.max_length
        tokens = torch.zeros(1, length, dtype=torch.int64)
        given = (tokens, None, tokens) if kind == "encoder-decoder" else (tokens,)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            build_model(tree).eval()(*given)
        missed = 0
        for side, (stack, _) in tree.stacks.items():
            for block in stack.blocks:
                one = block.attention
                seen = sum(
                    abs(i - j) < (one.window or length) and (j <= i or side == "encoder")
                    for i in range(length)
                    for j in range(length)
                )
                missed += 4 * one.heads * one.width(tree.dim) * (length**2 - seen)
        found = tree.flops(length, length).training * length / 3
        assert counter.get_total_flops() - missed == pytest.approx(found, rel=1e-12), name(tree)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "encoder-only"])
def test_a_state_holds_what_is_counted(kind: str) -> None:
    for tree in trees(kind):
        if tree.max_length < 4:
            continue
        state: Any = build_model(tree).eval().start(torch.zeros(3, 2, dtype=torch.int64), num_beams=2, capacity=2)
        counted = tree.decoding(3, 6, 2, 2)
        held = counted.get("self_cache", 0) + counted.get("state", 0) + counted.get("cross_cache", 0)
        assert state.bytes == 4 * held, name(tree)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_told_how_to_begin(kind: str) -> None:
    """After what torch draws by itself is overwritten, `initialize` leaves nothing as it was."""
    for tree in trees(kind):
        real: nn.Module = build_model(tree)
        with torch.no_grad():
            for parameter in real.parameters():
                parameter.fill_(torch.nan)
        initialize(real)
        assert [path for path, p in real.named_parameters() if p.isnan().any()] == [], name(tree)


def test_trees_are_drawn_the_same_each_time() -> None:
    import random

    root = config.KINDS["encoder-only"]
    assert draw_part(root, random.Random(3)) == draw_part(root, random.Random(3))
