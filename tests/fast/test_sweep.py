"""Nothing that is offered takes ten times as long as the best known way, whatever the layout, the type and the size.

The best known way is made of dense copies and torch's own functions, the copies counted, in the same process. Time is
the processor's, of one thread; a case that fails is measured again, so that a busy machine does not fail it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from machines import ONE_DNN_FASTER, TORCH_FASTER
from sublayer import config
from sublayer.fast import onednn_linear, products
from sublayer.fast.machine import machine, machine_is
from sublayer.fast.measure import USED
from sublayer.nn.attend import attend
from sublayer.nn.linear import Linear
from sublayer.nn.mask import Mask
from sublayer.nn.normalization import build_norm
from sublayer.nn.tap import Tap
from sublayer.tasks.losses import CrossEntropy

MOST = 10.0
AGAIN = 4
MACHINES = {"torch": TORCH_FASTER, "oneDNN": ONE_DNN_FASTER, "as measured": None}
SIZES = {"a batch": (300, 96, 192), "odd": (257, 95, 131), "few rows": (9, 512, 512), "narrowing": (300, 192, 96)}

Call = Callable[[], object]


def dense(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width)


LAYOUTS: Mapping[str, Callable[[int, int], Tensor]] = {
    "dense": dense,
    "transposed": lambda r, c: dense(c, r).t(),
    "columns of a wider one": lambda r, c: dense(r, 3 * c)[:, c : 2 * c],
    "odd columns of a wider one": lambda r, c: dense(r, c + 7)[:, 3 : 3 + c],
    "every other column": lambda r, c: dense(r, 2 * c)[:, ::2],
    "every other row": lambda r, c: dense(2 * r, c)[::2],
    "one row expanded": lambda r, c: dense(1, c).expand(r, c),
    "one column expanded": lambda r, c: dense(r, 1).expand(r, c),
    "one number expanded": lambda r, c: dense(1, 1).expand(r, c),
    "columns, transposed": lambda r, c: dense(c, 3 * r)[:, r : 2 * r].t(),
    "not aligned": lambda r, c: dense(1, r * c + 1)[0, 1:].view(r, c),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=MACHINES)
def kind(request: pytest.FixtureRequest) -> Generator[str]:
    """Both libraries, and what this machine chooses."""
    with machine_is(MACHINES[request.param] or machine()):
        yield request.param


by_any_library = pytest.mark.usefixtures("kind")


def seconds(call: Call) -> float:
    start = USED()
    call()
    return USED() - start


def times_slower(ours: Call, theirs: Call) -> float:
    """The shortest time of ours over the shortest of theirs, in turn; several tries only where it looks slow."""
    theirs()
    mine, other = float("inf"), float("inf")
    for turn in range(AGAIN + 1):
        # What a library prepares at its first call is not counted; a call of seconds is not made twice for it.
        mine, other = min(mine, seconds(ours)), min(other, seconds(theirs))
        if mine < MOST * other or (turn and mine > 100 * MOST * other):
            break
    return mine / other


def check(ours: Call, theirs: Call) -> None:
    ratio = times_slower(ours, theirs)
    assert ratio < MOST, f"{ratio:.0f} times as long as the best known way"


@by_any_library
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["input", "weight", "gradient"])
def test_linear_with_its_gradients(size: str, layout: str, operand: str) -> None:
    rows, width, out = SIZES[size]
    shapes = {"input": (rows, width), "weight": (out, width), "gradient": (rows, out)}
    x, weight, g = (LAYOUTS[layout if name == operand else "dense"](*shape) for name, shape in shapes.items())
    x.requires_grad_()
    weight.requires_grad_()

    def ours() -> None:
        torch.autograd.grad(onednn_linear.linear(x, weight, None), [x, weight], g)

    def theirs() -> None:
        a, w, d = (t.detach().clone(memory_format=torch.contiguous_format) for t in (x, weight, g))
        F.linear(a, w), d @ w, d.t() @ a

    check(ours, theirs)


@pytest.mark.skipif(
    products.ONE_DNN is None or not torch.backends.mkldnn.enabled, reason="oneDNN is not there, or is switched off"
)
@pytest.mark.parametrize("kind", ["oneDNN"], indirect=True)
@pytest.mark.parametrize("operand", ["weight", "gradient"])
def test_this_finds_what_it_is_for(kind: str, operand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the copies that `products.dense` makes, an expanded operand is found to be slow."""
    monkeypatch.setattr(products, "dense", lambda matrix: matrix)
    with pytest.raises(AssertionError, match="times as long"):
        test_linear_with_its_gradients("a batch", "one number expanded", operand)


@by_any_library
@pytest.mark.parametrize("shape", [(1, 1500, 1500), (800, 1, 3000), (3000, 700, 1), (1, 1, 2**21)])
@pytest.mark.parametrize("end", ["sum", "mean"])
def test_a_loss_that_ends_in_a_sum(shape: tuple[int, int, int], end: str) -> None:
    rows, width, out = shape
    x, weight = dense(rows, width).requires_grad_(), dense(out, width).requires_grad_()

    def ours() -> None:
        torch.autograd.grad(getattr(onednn_linear.linear(x, weight, None), end)(), [x, weight])

    def theirs() -> None:
        torch.autograd.grad(getattr(F.linear(x, weight) * 1, end)(), [x, weight])

    check(ours, theirs)


@by_any_library
@pytest.mark.parametrize("layout", ["transposed", "every other", "expanded", "sliced"])
def test_a_batch_of_any_strides(layout: str) -> None:
    base, weight = torch.randn(20, 30, 96), torch.randn(192, 96).requires_grad_()
    x = {
        "transposed": base.transpose(0, 1),
        "every other": torch.randn(40, 30, 96)[::2],
        "expanded": torch.randn(20, 1, 96).expand(20, 30, 96),
        "sliced": torch.randn(20, 30, 300)[..., 100:196],
    }[layout].requires_grad_()
    g = torch.randn(20, 1, 192).expand(*x.shape[:-1], 192) if layout != "transposed" else torch.randn(30, 20, 192)

    def ours() -> None:
        torch.autograd.grad(onednn_linear.linear(x, weight, None), [x, weight], g)

    def theirs() -> None:
        a, d = x.detach().contiguous().clone(), g.contiguous().clone()
        torch.autograd.grad(F.linear(a, weight), [weight], d), d @ weight.detach()

    check(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_in_other_types(dtype: torch.dtype, layout: str) -> None:
    """Against float32, casts counted, which every processor multiplies fast: only layouts may not cost more."""
    rows, width, out = 64, 96, 128
    x, weight = LAYOUTS[layout](rows, width).to(dtype), LAYOUTS[layout](out, width).to(dtype)

    def theirs() -> None:
        F.linear(x.contiguous().clone(), weight.contiguous().clone())

    check(lambda: onednn_linear.linear(x, weight, None), theirs)


@by_any_library
@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("size", [(96, 192), (95, 131), (512, 2048)])
@pytest.mark.parametrize("layout", ["dense", "columns of a wider one", "one row expanded"])
def test_prepared_linear(rows: int, size: tuple[int, int], layout: str) -> None:
    linear = Linear(*size)
    linear.prepare()
    x = LAYOUTS[layout](rows, size[0])
    with torch.inference_mode():
        linear(x)  # the copy of the weight is made once
        check(lambda: linear(x), lambda: F.linear(x.contiguous().clone(), linear.weight, linear.bias))


@by_any_library
@pytest.mark.parametrize("layout", ["dense", "transposed", "columns of a wider one", "one row expanded"])
@pytest.mark.parametrize("operand", ["hidden", "weight"])
def test_projected_cross_entropy(layout: str, operand: str) -> None:
    tokens, width, vocabulary = 130, 48, 1001
    layer = nn.Linear(width, vocabulary, bias=False)
    if operand == "weight":
        layer.weight = nn.Parameter(LAYOUTS[layout](vocabulary, width))
    hidden = LAYOUTS[layout if operand == "hidden" else "dense"](tokens, width).unsqueeze(0).requires_grad_()
    target = torch.randint(1, vocabulary, (1, tokens))
    leaves = [hidden, layer.weight]

    def ours() -> None:
        torch.autograd.grad(CrossEntropy(0.1, 0)(layer, hidden, target, tokens), leaves)

    def theirs() -> None:
        a, w = (t.detach().contiguous().clone().requires_grad_() for t in leaves)
        torch.autograd.grad(F.cross_entropy(F.linear(a[0], w), target[0], label_smoothing=0.1), [a, w])

    check(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 4, 64, 32), (1, 3, 33, 24), (4, 2, 1, 16)])
@pytest.mark.parametrize("layout", ["heads before places", "places before heads", "one row expanded"])
def test_attention_with_its_gradients(dtype: torch.dtype, shape: tuple[int, ...], layout: str) -> None:
    batch, heads, length, width = shape
    keys = max(length, 32)

    def drawn(places: int) -> Tensor:
        made = {
            "heads before places": lambda: torch.randn(batch, heads, places, width),
            "places before heads": lambda: torch.randn(batch, places, heads, width).transpose(1, 2),
            "one row expanded": lambda: torch.randn(1, heads, places, width).expand(batch, -1, -1, -1),
        }[layout]()
        return made.to(dtype).requires_grad_()

    query, key, value = drawn(length), drawn(keys), drawn(keys)
    scope = Mask.causal().resolve(length, keys, device=torch.device("cpu"), dtype=dtype)

    def ours() -> None:
        y = attend(query, key, value, scope, scale=0.2, tap=Tap())
        torch.autograd.grad(y.sum(), [query, key, value])

    def theirs() -> None:
        """In float32, with casts: a processor without half precision multiplies it in a plain loop."""
        q, k, v = (t.detach().to(torch.float32).contiguous().clone().requires_grad_() for t in (query, key, value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=scope.allowed, scale=0.2)
        torch.autograd.grad(y.sum(), [q, k, v])

    if dtype is torch.float32:
        check(ours, theirs)
    else:
        # The type is the caller's: of the two ways in it, the one that is taken must not be the slow one.
        def other() -> None:
            q, k, v = (t.detach().contiguous().clone().requires_grad_() for t in (query, key, value))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=scope.allowed, scale=0.2)
            torch.autograd.grad(y.sum(), [q, k, v])

        check(ours, other)


@pytest.mark.parametrize("norm", [config.LayerNorm(), config.RMSNorm()])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["input", "gradient"])
@pytest.mark.parametrize("size", [(300, 128), (1, 4000), (257, 95)])
def test_norms(norm: config.Norm, layout: str, operand: str, size: tuple[int, int]) -> None:
    module = build_norm(norm, size[1])
    x, g = (LAYOUTS[layout if name == operand else "dense"](*size) for name in ("input", "gradient"))
    x.requires_grad_()

    def ours() -> None:
        torch.autograd.grad(module(x), [x, *module.parameters()], g)

    def theirs() -> None:
        a, d = (t.detach().clone(memory_format=torch.contiguous_format) for t in (x, g))
        weight = torch.ones(size[1], requires_grad=True)
        torch.autograd.grad(F.layer_norm(a.requires_grad_(), size[1:], weight), [a, weight], d)

    check(ours, theirs)
