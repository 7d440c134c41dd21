"""Several processes = one, on the same batches: the loss and the norm of the gradient, step for step.

However the model is laid out over them: DDP, FSDP2, matrices shared out, and these together. In float64 to 1e-9, in
float32 to 1e-5, over 20 steps. And the law can fail: what is broken on purpose is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
from group import groups

from sublayer.config.presets import merge

REPLICATED: dict[str, Any] = {"data": "replicate"}
SHARDED: dict[str, Any] = {"data": "shard"}
SHARED: dict[str, Any] = {"data": "replicate", "tensor": 2}
BOTH: dict[str, Any] = {"data": "shard", "tensor": 2}

MUON: dict[str, Any] = {"optimizer": {"type": "muon"}, "accumulate": 2}
LSTM: dict[str, Any] = {"kind": "lstm", "dim": 16, "max_length": 24}
LAST: dict[str, Any] = {"averaging": {"type": "last", "count": 2, "every": 3}, "accumulate": 2}


def case(
    shape: str, parallel: dict[str, Any] | None = None, *, over: dict[str, Any] | None = None, **other: Any
) -> Any:
    training = {**(over or {}), **({} if parallel is None else {"parallel": parallel})}
    return {"shape": shape, "training": training, **other}


def discrepancy(one: dict[str, list[float]], other: dict[str, list[float]], names: tuple[str, ...]) -> float:
    """The largest relative difference of any number; of those below a thousandth, in thousandths."""
    found = 0.0
    for name in names:
        assert len(one[name]) == len(other[name]) > 0
        found = max([found, *(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(one[name], other[name], strict=True))])
    return found


STEPS = ("loss", "norm")
ALL = ("loss", "norm", "weights", "validation")


def laid_out(one: dict[str, Any], layout: dict[str, Any]) -> dict[str, Any]:
    """The same case in a layout."""
    return merge(one, {"training": {"parallel": layout}})


def differ(
    cases: dict[str, Any], many: list[tuple[str, int, dict[str, Any]]], names: tuple[str, ...]
) -> dict[str, float]:
    """How much the runs of several processes differ from that of one.

    cases: by name, what is trained. many: the name of a case, how many processes, and their layout.
    """
    ones = dict(zip(cases, groups().answer(1, "train_cases", cases=list(cases.values())), strict=True))
    found: dict[str, float] = {}
    for size in sorted({size for _, size, _ in many}):
        asked = [(name, layout) for name, number, layout in many if number == size]
        given = [laid_out(cases[name], layout) for name, layout in asked]
        answers = groups().answer(size, "train_cases", cases=given)
        for (name, layout), answer in zip(asked, answers, strict=True):
            found[f"{name}, {size} processes, {layout}"] = discrepancy(ones[name], answer, names)
    return found


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only", "encoder-only"])
def test_in_float64(shape: str) -> None:
    cases = {"plain": case(shape), "muon": case(shape, over=MUON), "lora": case(shape, over=LAST, lora=True)}
    found = differ(
        cases,
        [
            ("plain", 2, REPLICATED),
            ("plain", 2, SHARDED),
            ("plain", 2, SHARED),
            ("lora", 2, SHARED),
            ("muon", 2, REPLICATED),
            ("plain", 4, BOTH),
            ("muon", 4, BOTH),
            ("lora", 4, SHARDED),
        ],
        ALL,
    )
    assert {name: value for name, value in found.items() if value > 1e-9} == {}


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only", "encoder-only"])
def test_in_float32(shape: str) -> None:
    # Adam divides a gradient by its size: of one that is nothing but rounding (that of a bias of keys) it makes a step
    # like any other, unless it is small beside eps.
    calm = {"optimizer": {"type": "adamw", "learning_rate": 1e-3, "eps": 1e-5}}
    found = differ(
        {"plain": case(shape, double=False, over=calm)}, [("plain", 4, BOTH), ("plain", 4, REPLICATED)], STEPS
    )
    assert {name: value for name, value in found.items() if value > 1e-5} == {}


def test_variants_of_the_parts() -> None:
    """Biases of positions, caps, biased and untied projections, what stays whole (experts, recurrent layers), a layer
    without a gradient, layers that are computed again."""
    heads = {"heads": 4}
    cases = {
        "alibi, cap, bias": case(
            "decoder-only",
            model={
                "logit_softcap": 5.0,
                "output_bias": True,
                "tied": True,
                "decoder": {"position": {"type": "alibi"}, "block": {"attention": {**heads, "softcap": 3.0}}},
            },
        ),
        "kerple, experts": case(
            "decoder-only",
            model={
                "decoder": {
                    "position": {"type": "kerple"},
                    "block": {"feed_forward": {"type": "mixture-of-experts", "experts": 3, "active": 2, "hidden": 8}},
                }
            },
        ),
        "a pooler that nobody trains": case("encoder-only", model={"pooler": True}),
        "lstm": case("encoder-decoder", model=LSTM),
        "untied, computed again": case(
            "encoder-decoder",
            over={"parallel": {"activation_checkpointing": "full"}},
            model={"tied": "none"},
        ),
    }
    others = {"kerple, experts": SHARDED, "untied, computed again": SHARDED}
    many = [(name, 2, layout) for name in cases for layout in (SHARED, others.get(name, REPLICATED))]
    found = differ(cases, many, STEPS)
    assert {name: value for name, value in found.items() if value > 1e-9} == {}


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_computed_again_is_the_same(how: str) -> None:
    """In one process, with dropout: to the bit."""
    dropped = {"decoder": {"block": {"dropout": 0.2}}}
    cases = [
        case("decoder-only", {"activation_checkpointing": each}, model=dropped, over={"steps": 5})
        for each in ("none", how)
    ]
    one, other = groups().answer(1, "train_cases", cases=cases)
    assert discrepancy(one, other, ALL) == 0.0


@pytest.mark.parametrize(
    ("mutation", "layout"),
    [
        ("own targets", REPLICATED),
        ("the same rows", REPLICATED),
        ("norm of a part", SHARDED),
        ("norm without the shared", SHARED),
        ("a bias from each", SHARED),
        ("no sum within", SHARED),
        ("no sum on the way back", SHARED),
    ],
)
def test_mutations_are_seen(mutation: str, layout: dict[str, Any]) -> None:
    shape = "encoder-decoder" if mutation == "a bias from each" else "decoder-only"
    short = case(shape, over={"steps": 3})
    [one] = groups().answer(1, "train_cases", cases=[short])
    mutant = case(shape, layout, over={"steps": 3})
    [other] = groups().answer(2, "train_cases", cases=[mutant], mutation=mutation)
    assert discrepancy(one, other, STEPS) > 1e-6


# Minutes, where torch has kept nothing that it compiled before and other programs run.
@pytest.mark.timeout(900)
def test_compiled_block_by_block() -> None:
    """`torch.compile` of each block, under FSDP2; that it does not work here would be an error (`NoWord`)."""
    plain = case("decoder-only", over={"steps": 3})
    compiled = merge(plain, {"training": {"compile": True}})
    one, alone = groups().answer(1, "train_cases", cases=[plain, compiled])
    [sharded] = groups().answer(2, "train_cases", cases=[laid_out(compiled, SHARDED)])
    assert discrepancy(one, alone, STEPS) < 1e-9
    assert discrepancy(one, sharded, STEPS) < 1e-9
