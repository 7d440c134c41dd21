"""Muon against the singular value decomposition, and against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sublayer import config
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.feed_forward import Gated, PositionWise, build_feed_forward
from sublayer.training.muon import CACHED, JORDAN, POLAR_EXPRESS, STRIP, Muon, Polynomials, orthogonal

SHAPES = [(16, 16), (48, 16), (16, 48), (20, 24), (24, 20), (1, 7), (7, 1), (1, 1), (96, 32), (32, 130)]
BY_STRIPS = [(2 * STRIP, 3 * STRIP), (3 * STRIP + 5, 2 * STRIP + 1), (2 * STRIP + 9, 6 * STRIP)]
BOTH = pytest.mark.parametrize("polynomials", [JORDAN, POLAR_EXPRESS], ids=["jordan", "polar-express"])
BOUNDS: dict[Polynomials, tuple[float, float, float]] = {
    JORDAN: (0.0016, 0.68, 1.21),
    POLAR_EXPRESS: (0.003, 0.79, 1.21),
}
"""What is at least so much of the matrix' norm ends between these."""


def polynomial(values: Tensor, polynomials: Polynomials = JORDAN) -> Tensor:
    """What the iterations make of singular values, by the formula."""
    for a, b, c in polynomials:
        values = a * values + b * values**3 + c * values**5
    return values


def by_svd(matrix: Tensor, polynomials: Polynomials = JORDAN) -> Tensor:
    """The same matrix, its singular values taken through the formula one by one."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return left @ torch.diag(polynomial(values / values.norm(), polynomials)) @ right


def matrix_of(values: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix with these singular values, in double precision."""
    count = len(values)
    left = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))[0][:, :count]
    right = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64))[0][:count]
    return left @ torch.diag(values.double()) @ right


def distance(one: Tensor, other: Tensor) -> float:
    """Relative, by the Frobenius norm."""
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


# --- the update is the orthogonal factor -------------------------------------------------------------------------


@BOTH
def test_the_bounds_that_are_promised_are_those_of_the_polynomials(polynomials: Polynomials) -> None:
    least, low, high = BOUNDS[polynomials]
    values = torch.logspace(math.log10(least), 0, 200_001, dtype=torch.float64)
    made = polynomial(values, polynomials)
    assert low < made.min() < made.max() < high
    # No iteration leaves what the next one can take: beyond its last turning point a polynomial of degree 5 runs away.
    for taken in range(len(polynomials)):
        before, after = (polynomial(values, polynomials[: taken + more]) for more in (0, 1))
        assert after.max() < 2 * before.max().clamp(min=1)


def test_four_iterations_are_nearer_to_one_than_jordans_five() -> None:
    """Over values spread evenly by their logarithm, from where the bounds begin."""
    values = torch.logspace(math.log10(0.003), 0, 20_001, dtype=torch.float64)
    errors = [(polynomial(values, each) - 1).square().mean().sqrt() for each in (POLAR_EXPRESS, JORDAN)]
    assert errors[0] < 0.8 * errors[1]


@BOTH
@pytest.mark.parametrize("shape", [*SHAPES, *BY_STRIPS], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 5e-5)], ids=str)
def test_singular_vectors_stay_and_values_follow_the_polynomial(
    shape: tuple[int, int], dtype: torch.dtype, tolerance: float, polynomials: Polynomials
) -> None:
    matrices = [torch.randn(shape, dtype=dtype) for _ in range(3)]
    for matrix, found in zip(matrices, orthogonal(matrices, polynomials=polynomials), strict=True):
        assert found.shape == shape
        assert found.dtype == dtype
        assert distance(found, by_svd(matrix, polynomials)) < tolerance


@BOTH
@pytest.mark.parametrize("shape", [(64, 64), (64, 80), (64, 256), (256, 64), (200, 170)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_singular_values_are_near_one(shape: tuple[int, int], dtype: torch.dtype, polynomials: Polynomials) -> None:
    """Of a matrix whose smallest is a fiftieth of its largest; rounding in bfloat16 adds what it adds."""
    least, low, high = BOUNDS[polynomials]
    values = torch.logspace(0, -1.7, min(shape))
    assert values[-1] / values.norm() > least
    matrix = matrix_of(values, *shape).float()
    [found] = orthogonal([matrix], dtype, polynomials)
    assert found.dtype == dtype
    after = torch.linalg.svdvals(found.double())
    slack = 1e-4 if dtype == torch.float32 else 0.1
    assert low - slack < after.min() <= after.max() < high + slack
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    # Every direction is kept: where U V^T goes, the update goes, by as much at least.
    along = torch.diag(left.mT @ found.double() @ right.mT)
    assert along.min() > low - slack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@BOTH
def test_a_matrix_of_rank_one_does_not_run_away(dtype: torch.dtype, polynomials: Polynomials) -> None:
    """Its one singular value is the norm itself, where the first polynomial is steepest."""
    for seed in range(20):
        torch.manual_seed(seed)
        [found] = orthogonal([torch.randn(40, 1) @ torch.randn(1, 70)], dtype, polynomials)
        assert 0.6 < torch.linalg.matrix_norm(found.double(), 2) < 1.4


@BOTH
@pytest.mark.parametrize("shape", [(40, 40), (40, 160), (160, 40)], ids=str)
def test_singular_values_over_many_orders(shape: tuple[int, int], polynomials: Polynomials) -> None:
    """What is nearly nothing is neither blown up nor turned: also where only the products X X^T are iterated."""
    matrix = matrix_of(torch.logspace(0, -7, 40), *shape)
    for given, tolerance in ((matrix, 1e-9), (matrix.float(), 1e-3)):
        assert distance(orthogonal([given], polynomials=polynomials)[0], by_svd(given, polynomials)) < tolerance


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)], ids=str)
def test_a_matrix_of_low_rank_keeps_its_rank(shape: tuple[int, int]) -> None:
    matrix = matrix_of(torch.linspace(1, 0.5, 5), *shape)
    for given, tolerance in ((matrix, 1e-9), (matrix.float(), 1e-3)):
        after = torch.linalg.svdvals(orthogonal([given])[0].double())
        assert after[:5].min() > 0.68
        assert after[5:].max() < tolerance


def test_of_zeros_nothing_is_made_and_the_size_of_a_gradient_does_not_matter() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        zeros, other = orthogonal([torch.zeros(4, 9), torch.randn(4, 9)], dtype)
        assert not zeros.any()
        assert torch.isfinite(other).all()
    matrix = torch.randn(6, 30)
    for factor in (1e-5, 1.0, 1e15):
        torch.testing.assert_close(orthogonal([factor * matrix]), orthogonal([matrix]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (300, 280)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_stack_is_its_matrices_one_by_one(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = [torch.randn(shape) for _ in range(5)]
    alone = [orthogonal([matrix], dtype)[0] for matrix in matrices]
    for cached in (CACHED, 2**30, 1, 2 * shape[0] * shape[1]):
        monkeypatch.setattr("sublayer.training.muon.CACHED", cached)
        for one, other in zip(orthogonal(matrices, dtype), alone, strict=True):
            assert distance(one, other) < (1e-5 if dtype == torch.float32 else 0.05)


class Products(TorchDispatchMode):
    """Notes the types of what is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            self.types |= {one.dtype for one in args if isinstance(one, Tensor)}
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_of_the_type_that_was_asked_for(products: torch.dtype) -> None:
    parameters = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    with Products() as seen:
        Muon(parameters, products=products).step()
    assert seen.types == {products}


# --- the optimizer is torch's ------------------------------------------------------------------------------------


def stepped(make: Any, steps: int = 4) -> list[Tensor]:
    """Parameters after some steps on gradients that depend on nothing else."""
    torch.manual_seed(7)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in [(32, 32), (32, 32), (96, 32), (32, 128)]]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def torchs(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Muon(parameters, lr=0.02, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16], ids=str)
def test_steps_are_those_of_torch_within_bfloat16(products: torch.dtype) -> None:
    """torch multiplies in bfloat16, whose numbers have 8 bits: what the steps change differs by a few of the last."""
    begun = stepped(torchs, steps=0)
    theirs = stepped(torchs)
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.3, "products": products}
    ours = stepped(lambda p: Muon(p, 0.02, **settings))
    for before, one, other in zip(begun, ours, theirs, strict=True):
        assert distance(one - before, other - before) < 4 * 2**-8


def test_what_is_asked_for_is_what_is_done() -> None:
    """Guards the test above: every setting moves the result by more than its tolerance."""
    begun, theirs = stepped(torchs, steps=0), stepped(torchs)
    for other in ({"lr": 0.021}, {"momentum": 0.8}, {"weight_decay": 0.0}, {"polynomials": POLAR_EXPRESS}):
        settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3, **other}
        ours = stepped(lambda p, settings=settings: Muon(p, **settings))
        assert any(
            distance(one - before, wanted - before) > 4 * 2**-8
            for before, one, wanted in zip(begun, ours, theirs, strict=True)
        ), other


def test_it_remembers_what_torch_remembers() -> None:
    """So that a checkpoint of a run that torch's Muon trained goes on."""
    states: list[Any] = []
    for make in (torchs, lambda p: Muon(p, 0.02, momentum=0.9, weight_decay=0.3)):
        parameter = nn.Parameter(torch.ones(3, 5))
        parameter.grad = torch.arange(15.0).view(3, 5)
        optimizer = make([parameter])
        optimizer.step()
        states.append(optimizer.state[parameter])
    assert states[0].keys() == states[1].keys() == {"momentum_buffer"}
    assert torch.equal(states[0]["momentum_buffer"], states[1]["momentum_buffer"])


def test_what_has_no_gradient_stays() -> None:
    still, moved = nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(3, 5))
    moved.grad = torch.randn(3, 5)
    optimizer = Muon([still, moved])
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(still, torch.ones(3, 5))
    assert not torch.equal(moved, torch.ones(3, 5))
    assert still not in optimizer.state


def test_only_matrices_are_taken() -> None:
    with pytest.raises(ValueError, match=r"the shape \(4,\)"):
        Muon([nn.Parameter(torch.ones(4))])


# --- several maps in one matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 16), (12, 8), (4, 8), (12, 16), (1, 1)], ids=str)
def test_maps_in_one_matrix_are_updated_as_matrices_of_their_own(shape: tuple[int, int]) -> None:
    together = nn.Parameter(torch.randn(12, 16, dtype=torch.float64))
    gradients = [torch.randn(12, 16, dtype=torch.float64) for _ in range(3)]
    rows, columns = shape
    places = [
        (slice(row, row + rows), slice(column, column + columns))
        for row in range(0, 12, rows)
        for column in range(0, 16, columns)
    ]
    apart = [nn.Parameter(together.detach()[place].clone()) for place in places]
    one, many = Muon([together], lr=0.1, maps={together: shape}), Muon(apart, lr=0.1)
    for gradient in gradients:
        together.grad = gradient
        for parameter, place in zip(apart, places, strict=True):
            parameter.grad = gradient[place].clone()
        one.step()
        many.step()
    for parameter, place in zip(apart, places, strict=True):
        torch.testing.assert_close(together.detach()[place], parameter.detach(), rtol=1e-12, atol=1e-14)


def test_maps_that_do_not_fit_are_refused() -> None:
    parameter = nn.Parameter(torch.randn(12, 16))
    with pytest.raises(ValueError, match=r"\(12, 16\) does not hold maps of \(5, 16\)"):
        Muon([parameter], maps={parameter: (5, 16)})


def test_the_maps_of_attention_are_those_of_its_heads() -> None:
    c = config.Attention(heads=4, kv_heads=2, head_dim=6)
    attention = SelfAttention(c, 16)
    assert dict(attention.head_maps()) == {attention.qkv.weight: (6, 16), attention.output.weight: (16, 6)}
    cross = CrossAttention(c, 16)
    assert dict(cross.head_maps()) == {
        cross.query.weight: (6, 16),
        cross.key_value.weight: (6, 16),
        cross.output.weight: (16, 6),
    }


@pytest.mark.parametrize(("kind", "rows"), [("position-wise", 12), ("squared", 12), ("gated", 24)])
def test_the_maps_of_a_feed_forward_network_are_networks_of_fewer_neurons(kind: str, rows: int) -> None:
    """What the network gives is the sum of what networks made of one map of each matrix give."""
    kinds = {"position-wise": config.PositionWise, "squared": config.Squared, "gated": config.Gated}

    def made(hidden: int) -> PositionWise | Gated:
        built = build_feed_forward(kinds[kind](hidden=hidden, bias=False), 8).double()
        assert isinstance(built, PositionWise | Gated)
        return built

    network = made(12)
    first, down = (m.weight for m in network.modules() if isinstance(m, nn.Linear))
    assert dict(network.hidden_maps(4)) == {first: (4, 8), down: (8, 4)}
    assert first.shape == (rows, 8)
    x = torch.randn(5, 8, dtype=torch.float64)
    parts = torch.zeros_like(x)
    for block in range(3):
        small = made(4)
        small_first, small_down = (m.weight for m in small.modules() if isinstance(m, nn.Linear))
        taken = slice(4 * block, 4 * block + 4)
        with torch.no_grad():
            small_first.copy_(first.unflatten(0, (-1, 12))[:, taken].flatten(0, 1))
            small_down.copy_(down[:, taken])
        parts = parts + small(x)
    torch.testing.assert_close(network(x), parts, rtol=1e-12, atol=1e-12)
