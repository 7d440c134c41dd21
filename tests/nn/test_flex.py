"""Flex attention is the equation itself, over the intervals of a mask. On a CPU it runs uncompiled, forward only."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import sublayer.nn.attend as module
from sublayer.nn import flex
from sublayer.nn.attend import attend, explicit
from sublayer.nn.mask import Causal, Mask, ResolvedMask
from sublayer.nn.tap import Tap

CPU = torch.device("cpu")
SIZE = 160
TEXTS = torch.arange(4).repeat_interleave(torch.tensor([20, 70, 1, 69]))
MASKS = {
    "packed": Mask.segments(TEXTS[None]) & Mask.causal(),
    "packed, both ways": Mask.segments(TEXTS[None]),
    "rows packed apart": Mask.segments(torch.stack((TEXTS, TEXTS.flip(0)))) & Mask.causal(),
    "windowed": Mask.causal() & Mask.window(9),
    "padded": Mask.padding(torch.tensor([3, 90])),
    "nothing seen": Mask.causal() & Mask.left_padding(torch.tensor([SIZE, 150])),
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked on the CPU too, and what failed in one test has not failed in the next."""

    def blocks(scope: ResolvedMask) -> flex.Blocks | None:
        interval = scope._interval()
        causal = any(isinstance(rule, Causal) for rule in scope.rules)
        return None if interval is None else flex.blocks(*interval, scope.keys, causal=causal)

    monkeypatch.setattr(ResolvedMask, "blocks", property(blocks))
    monkeypatch.setattr(flex, "_failed", set())
    warnings.filterwarnings("ignore", "flex_attention called without torch.compile")


def drawn(groups: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, SIZE, 16, generator=generator),
        torch.randn(2, groups, SIZE, 16, generator=generator),
        torch.randn(2, groups, SIZE, 16, generator=generator),
    )


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_flex_is_explicit(name: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "SPARSE", 1.0)
    calls: list[object] = []
    plain = module.flex

    def watched(*a: object, **k: object) -> Tensor | None:
        calls.append(a)
        return plain(*a, **k)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "flex", watched)
    scope = MASKS[name].resolve(SIZE, SIZE, device=CPU, dtype=torch.float32)
    found = attend(*drawn(groups), scope, scale=0.3, tap=Tap())
    assert len(calls) == 1
    torch.testing.assert_close(found, explicit(*drawn(groups), scope, scale=0.3), rtol=2e-5, atol=2e-5)


def test_a_wrong_interval_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = flex.blocks
    monkeypatch.setattr(flex, "blocks", lambda begin, end, keys, causal: plain(begin, end - 1, keys, causal=causal))
    scope = MASKS["windowed"].resolve(SIZE, SIZE, device=CPU, dtype=torch.float32)
    found = attend(*drawn(), scope, scale=0.3, tap=Tap())
    assert (found - explicit(*drawn(), scope, scale=0.3)).abs().max() > 1e-2


@pytest.mark.parametrize("mask", [Mask.causal(), Mask.everything(), Mask.causal() & Mask.window(150)])
def test_a_mask_that_leaves_little_out_is_left_to_the_fused_kernel(mask: Mask) -> None:
    assert mask.resolve(SIZE, SIZE, device=CPU, dtype=torch.float32).blocks is None


def test_where_it_fails_the_mask_is_used_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_a: object, **_k: object) -> None:
        raise RuntimeError("no such kernel\nand a long report")

    make, _ = flex._functions("cpu")
    monkeypatch.setattr(flex, "_functions", lambda kind: (make, fails))
    scope = MASKS["packed"].resolve(SIZE, SIZE, device=CPU, dtype=torch.float32)
    with pytest.warns(UserWarning, match=r"does not work on cpu \(no such kernel\); masks are used") as said:
        found = [attend(*drawn(), scope, scale=0.3, tap=Tap()) for _ in range(2)]
    assert len(said) == 1
    for each in found:
        torch.testing.assert_close(each, explicit(*drawn(), scope, scale=0.3), rtol=2e-5, atol=2e-5)
