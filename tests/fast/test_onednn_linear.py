"""Products through oneDNN against the equation in float64: values, gradients, and where torch's own way is taken."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from machines import ONE_DNN_FASTER
from sublayer.fast import choices, custom_autograd, onednn_linear
from sublayer.fast import products as ways
from sublayer.fast.machine import machine_is
from sublayer.nn.linear import Linear

HERE = ways.ONE_DNN is not None and torch.backends.mkl.is_available() and torch.backends.mkldnn.enabled
pytestmark = pytest.mark.skipif(not HERE, reason="this torch has no oneDNN beside MKL, or it is switched off")


@pytest.fixture(autouse=True)
def _one_dnn_is_faster() -> Generator[None]:
    """Whatever this machine is."""
    with machine_is(ONE_DNN_FASTER):
        yield


# What torch itself uses the first time that it pushes a tangent forward.
TORCHS_OWN_JVP = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")

# Above `onednn_linear.LEAST` multiplications; the weight's gradient goes another way where O > I.
SIZES = [(700, 40, 100), (700, 100, 40), (257, 96, 96), (9, 500, 500)]


def drawn(rows: int, width: int, out: int, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """x, W, b and the upstream gradient; large."""
    assert rows * width * out >= onednn_linear.LEAST
    return (
        (torch.randn(rows, width) * 5 + 1).requires_grad_(),
        (torch.randn(out, width) * 3).requires_grad_(),
        (torch.randn(out) * 10).requires_grad_() if bias else None,
        torch.randn(rows, out) * 2 + 1,
    )


def error(found: Tensor | None, expected: Tensor | None) -> float:
    """The largest difference, relative to the largest expected value."""
    assert found is not None
    assert expected is not None
    assert found.shape == expected.shape
    return float(((found.double() - expected).abs().max() / expected.abs().max()).detach())


def by_equation(x: Tensor, weight: Tensor, bias: Tensor | None, g: Tensor) -> list[Tensor]:
    """y, dL/dx, dL/dW, dL/db in float64."""
    x, weight, g = (t.detach().double() for t in (x, weight, g))
    y = torch.einsum("...i,oi->...o", x, weight) + (0 if bias is None else bias.detach().double())
    rows = tuple(range(g.dim() - 1))
    return [
        y,
        torch.einsum("...o,oi->...i", g, weight),
        torch.einsum("no,ni->oi", g.flatten(0, -2), x.flatten(0, -2)),
        g.sum(rows),
    ]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the products that oneDNN is asked for from now on."""
    real, asked = ways.ONE_DNN, list[str]()
    assert real is not None

    def noted(name: str) -> Callable[..., Tensor]:
        def call(*operands: Tensor) -> Tensor:
            asked.append(name)
            return getattr(real, name)(*operands)

        return call

    monkeypatch.setattr(choices, "ONE_DNN", ways.Products(*map(noted, real._fields)))
    monkeypatch.setattr(choices, "_made", None)
    return asked


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_are_the_equations(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int], bias: bool
) -> None:
    asked = watched(monkeypatch)
    x, weight, offset, g = drawn(*size, bias)
    y = onednn_linear.linear(x, weight, offset)
    y.backward(g)
    expected = by_equation(x, weight, offset, g)
    leaves = [x, weight, *([offset] if offset is not None else [])]
    for found, wanted in zip([y, *(leaf.grad for leaf in leaves)], expected, strict=False):
        assert error(found, wanted) < 1e-5
    assert asked == ["forward", "to_input", "to_weight"]
    assert all(leaf.grad is not None and leaf.grad.is_contiguous() for leaf in leaves)


def test_gradients_that_cancel_are_as_near_as_torchs() -> None:
    """Rows that almost add up to nothing, where an order of additions shows most."""
    x, weight, offset, g = drawn(700, 64, 96)
    with torch.no_grad():
        x[350:] = x[:350]
        g[350:] = -g[:350] * (1 + 1e-3)
    expected = by_equation(x, weight, offset, g)[2]
    ours = torch.autograd.grad(onednn_linear.linear(x, weight, offset), weight, g)[0]
    theirs = torch.autograd.grad(F.linear(x, weight, offset), weight, g)[0]
    assert error(ours, expected) < 5 * max(error(theirs, expected), 1e-6)


@pytest.mark.parametrize("view", ["3-D", "transposed", "every other", "expanded", "4-D"])
def test_inputs_of_any_strides(view: str) -> None:
    base, weight, offset, _ = drawn(1400, 40, 100)
    x = {
        "3-D": base.view(20, 70, 40),
        "transposed": base.view(20, 70, 40).transpose(0, 1),
        "every other": base[::2],
        "expanded": base[:1].expand(600, 40),
        "4-D": base.view(7, 20, 10, 40),
    }[view]
    g = torch.randn(100, *x.shape[:-1]).movedim(0, -1)  # not contiguous either
    y = onednn_linear.linear(x, weight, offset)
    expected = by_equation(x, weight, offset, g)
    found = torch.autograd.grad(y, [x, weight, offset], g)
    for ours, wanted in zip([y, *found], expected, strict=True):
        assert error(ours, wanted) < 1e-5


@pytest.mark.parametrize("frozen", ["input", "weight", "bias", "all but the bias"])
def test_what_is_frozen_costs_nothing(monkeypatch: pytest.MonkeyPatch, frozen: str) -> None:
    asked = watched(monkeypatch)
    x, weight, offset, g = drawn(*SIZES[0])
    assert offset is not None
    names = {"input": x, "weight": weight, "bias": offset}
    still = {"input", "weight"} if frozen == "all but the bias" else {frozen}
    for name in still:
        names[name].requires_grad_(False)
    onednn_linear.linear(x, weight, offset).backward(g)
    expected = dict(zip(names, by_equation(x, weight, offset, g)[1:], strict=True))
    for name, leaf in names.items():
        if name in still:
            assert leaf.grad is None
        else:
            assert error(leaf.grad, expected[name]) < 1e-5
    assert ("to_input" in asked) == ("input" not in still)
    assert ("to_weight" in asked) == ("weight" not in still)


def test_gradients_add_up_in_grad() -> None:
    x, weight, offset, g = drawn(*SIZES[0])
    assert offset is not None
    for _ in range(2):
        onednn_linear.linear(x, weight, offset).backward(g)
    for leaf, wanted in zip((x, weight, offset), by_equation(x, weight, offset, g)[1:], strict=True):
        assert error(leaf.grad, 2 * wanted) < 1e-5


def test_the_same_numbers_give_the_same_bits() -> None:
    """Also from other addresses, and after other products: resumed = uninterrupted stands on it."""
    x, weight, offset, g = drawn(*SIZES[0])

    def results(shift: int) -> list[Tensor]:
        moved = [torch.empty(t.numel() + shift)[shift:].view_as(t).copy_(t.detach()) for t in (x, weight)]
        leaves = [t.requires_grad_() for t in moved]
        y = onednn_linear.linear(*leaves, offset)
        return [y.detach(), *torch.autograd.grad(y, leaves, g)]

    first = results(0)
    onednn_linear.linear(torch.randn(900, 40), weight, offset)
    for shift in (0, 1, 5):
        assert all(torch.equal(a, b) for a, b in zip(first, results(shift), strict=True))


def test_a_gradient_can_be_differentiated_again() -> None:
    x, weight, offset, g = drawn(*SIZES[0])
    g.requires_grad_()
    results: list[tuple[Tensor, ...]] = []
    for function in (onednn_linear.linear, F.linear):
        y = function(x, weight, offset)
        first = torch.autograd.grad(y.sin(), [x, weight], g, create_graph=True)
        results.append(torch.autograd.grad(sum((t * t).mean() for t in first), [x, weight, offset, g]))
    exact = [t.detach().double().requires_grad_() for t in (x, weight, offset, g)]
    first = torch.autograd.grad(F.linear(*exact[:3]).sin(), exact[:2], exact[3], create_graph=True)
    expected = torch.autograd.grad(sum((t * t).mean() for t in first), exact)
    # sin(y) of a large y forgets digits of y: no nearer than torch's own can be asked for.
    for ours, theirs, wanted in zip(*results, expected, strict=True):
        assert error(ours, wanted) < 5 * error(theirs, wanted) + 1e-5


def test_hooks_see_what_they_should() -> None:
    x, weight, offset, g = drawn(*SIZES[0])
    seen: list[Tensor] = []
    weight.register_hook(seen.append)
    y = onednn_linear.linear(x, weight, offset)
    y.register_hook(lambda gradient: gradient * 3)
    y.backward(g)
    expected = by_equation(x, weight, offset, 3 * g)
    assert error(seen[0], expected[2]) < 1e-5
    assert error(x.grad, expected[1]) < 1e-5


def test_a_change_in_place_is_noticed() -> None:
    x, weight, offset, g = drawn(*SIZES[0])
    y = onednn_linear.linear(x, weight, offset)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(g)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_gradient_it_is_the_same_value(monkeypatch: pytest.MonkeyPatch, mode: Callable[[], object]) -> None:
    asked = watched(monkeypatch)
    x, weight, offset, _ = drawn(*SIZES[0])
    with mode():  # type: ignore[attr-defined]
        value = onednn_linear.linear(x, weight, offset)
    assert not value.requires_grad
    assert torch.equal(value, onednn_linear.linear(x, weight, offset).detach())
    assert asked == ["forward"] * 2


class _Own(Tensor):
    """A tensor that may mean something else by a onednn_linear."""


@contextmanager
def _switched_off() -> Generator[None]:
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True


def _under(context: object, *operands: Tensor | None) -> Tensor:
    with context:  # type: ignore[attr-defined]
        return onednn_linear.linear(*operands)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w, b: onednn_linear.linear(x.double(), w.double(), b.double()),
        lambda x, w, b: onednn_linear.linear(x.bfloat16(), w.bfloat16(), b.bfloat16()),
        lambda x, w, b: onednn_linear.linear(x[:30], w, b),
        lambda x, w, b: onednn_linear.linear(x[0], w, b),
        lambda x, w, b: onednn_linear.linear(x[:0], w, b),
        lambda x, w, b: onednn_linear.linear(x.as_subclass(_Own), w, b),
        lambda x, w, b: _under(torch.autocast("cpu", torch.bfloat16), x, w, b),
        lambda x, w, b: _under(_switched_off(), x, w, b),
        lambda x, w, b: torch.func.vmap(onednn_linear.linear, (0, None, None))(
            x.detach().view(2, 350, 40), w.detach(), b
        ),
        lambda x, w, b: torch.func.grad(lambda v: onednn_linear.linear(x, v, b).sum())(w),
        lambda x, w, b: torch.func.jvp(lambda v: onednn_linear.linear(x, v, b), (w,), (w,))[1],
        lambda x, w, b: torch.compile(onednn_linear.linear, backend="eager", fullgraph=True)(x, w, b),
    ],
    ids=[
        "float64",
        "bfloat16",
        "little",
        "one row",
        "empty",
        "subclass",
        "autocast",
        "switched off",
        "vmap",
        "func.grad",
        "func.jvp",
        "compiled",
    ],
)
@TORCHS_OWN_JVP
def test_elsewhere_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Tensor]) -> None:
    asked = watched(monkeypatch)
    x, weight, offset, _ = drawn(*SIZES[0])
    found = call(x, weight, offset)
    assert asked == []
    monkeypatch.setattr(onednn_linear, "ONE_DNN", None)
    expected = call(x, weight, offset)
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype


def test_on_other_devices_it_is_torchs_own() -> None:
    x, weight, _, _ = (None if t is None else t.to("meta") for t in drawn(*SIZES[0]))
    assert x is not None
    assert weight is not None
    assert onednn_linear.fastest_products(x, weight) is ways.TORCH
    assert not custom_autograd.may_replace(x, weight)


@TORCHS_OWN_JVP
def test_forward_mode_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watched(monkeypatch)
    x, weight, offset, _ = drawn(*SIZES[0])
    tangent = torch.randn_like(weight)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weight, tangent)
        y = torch.autograd.forward_ad.unpack_dual(onednn_linear.linear(x, dual, offset))
    assert asked == []
    assert error(y.tangent, x.double() @ tangent.double().t()) < 1e-5


def test_a_torch_without_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert ways._one_dnn() is None
    monkeypatch.undo()
    monkeypatch.setattr(onednn_linear, "ONE_DNN", None)
    x, weight, offset, g = drawn(*SIZES[0])
    onednn_linear.linear(x, weight, offset).backward(g)
    assert torch.equal(x.grad, torch.autograd.grad(F.linear(x, weight, offset), x, g)[0])


def test_a_linear_module_trains_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watched(monkeypatch)
    model = nn.Sequential(Linear(40, 100), nn.ReLU(), Linear(100, 40, bias=False))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(10, 70, 40)
    exact = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 40, bias=False)).double()
    exact.load_state_dict(model.state_dict())
    model(x).square().sum().backward()
    exact(x.double()).square().sum().backward()
    for ours, wanted in zip(model.parameters(), exact.parameters(), strict=True):
        assert error(ours.grad, wanted.grad) < 1e-5
    # The input is frozen.
    assert sorted(asked) == ["forward"] * 2 + ["to_input"] + ["to_weight"] * 2
