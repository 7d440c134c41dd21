"""Laws of who can see whom, by gradient: what may not be seen has a gradient of exactly zero, what may has not.

A mask that lets too much through shows as a gradient where there must be none; one that hides too much shows as a
gradient that is missing. Both are silent otherwise: a model that sees the future trains very well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sublayer.laws.feeding import Decodes, Encodes
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Apart, law
from sublayer.models.stack import Stack


@law("causality", Decodes)
@torch.enable_grad()
def target_sees_its_past(fed: Decodes, inputs: Inputs) -> Apart:
    """The logits at t depend on the tokens at t' exactly where t' <= t, and no farther than the windows reach."""
    size = inputs.target.shape[1]
    seen = _Leaf(fed.model.decoder.embedding)
    with seen:
        logits = fed.answer(inputs.alone(-1).repeated(size))
    found = seen.gradient(_diagonal(logits))
    # The target is the end of what the decoder reads, which may begin with the source.
    distance = _distance(found.shape[1], found.device)[-size:]
    allowed = (distance >= 0) & (distance <= _reach(fed.model.decoder))
    return _judge(found, allowed, f"d logits / d embedding, {size} positions")


@law("the encoder's view", Encodes)
@torch.enable_grad()
def source_sees_its_window(fed: Encodes, inputs: Inputs) -> Apart:
    """The encoder's states depend on the source on both sides, and no farther than the windows reach."""
    size = inputs.source.shape[1]
    seen = _Leaf(fed.model.encoder.embedding)
    with seen:
        states = fed.states(inputs.alone(-1).repeated(size))
    found = seen.gradient(_diagonal(states))
    allowed = _distance(size, found.device).abs() <= _reach(fed.model.encoder)
    return _judge(found, allowed, f"d states / d embedding, {size} positions")


@law("padding is unseen", Encodes)
@torch.enable_grad()
def source_padding_is_unseen(fed: Encodes, inputs: Inputs) -> Apart:
    """What a source is read for depends on every real token of it and on no padding."""
    seen = _Leaf(fed.model.encoder.embedding)
    with seen:
        read = fed.reading(inputs)
    found = seen.gradient(_weighed(read))
    return _judge(found, inputs.source_real, "d what is read / d embedding")


class _Leaf:
    """Cuts the graph at a module's output, so that gradients with respect to it can be asked for."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.output: Tensor | None = None

    def __enter__(self) -> None:
        self.handle = self.module.register_forward_hook(self._cut)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _cut(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        self.output = output.detach().requires_grad_()
        return self.output

    def gradient(self, value: Tensor) -> Tensor:
        """The largest |d value / d output[b, s, :]|: [B, S]."""
        assert self.output is not None
        (gradient,) = torch.autograd.grad(value, self.output)
        return gradient.abs().amax(-1)


def _weighed(x: Tensor) -> Tensor:
    """A sum with random weights: the plain sum of a normalized vector is constant, and has no gradient."""
    weights = torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(0)).to(x)
    return (x * weights).sum()


def _diagonal(x: Tensor) -> Tensor:
    """Row b weighed at position b only, so that one backward pass answers for every position. x: [S, S, ...]."""
    each = torch.arange(x.shape[0], device=x.device)
    return _weighed(x[each, each])


def _distance(size: int, device: torch.device) -> Tensor:
    """query - key for every pair: [S, S]."""
    positions = torch.arange(size, device=device)
    return positions.unsqueeze(1) - positions


def _reach(stack: Stack) -> float:
    """How far a stack sees: every layer passes on what the one below has seen."""
    windows = [stack.kinds[kind][0] for kind in stack.kind_of_layer]
    return sum(float("inf") if window is None else window - 1 for window in windows)


def _judge(found: Tensor, allowed: Tensor, detail: str) -> Apart:
    """Exactly zero where not allowed, more where allowed; the error is the largest leak, in units of the largest."""
    largest = found.max().item()
    leak = found.masked_fill(allowed, 0.0).max().item()
    blind = int((allowed & (found == 0.0)).sum())
    fault = f"{blind} of {int(allowed.sum())} gradients are zero that must not be: {detail}" if blind else ""
    if not bool(found.isfinite().all()):
        fault, leak = f"gradients that are not finite: {detail}", float("inf")
    return Apart(leak / largest if largest else 0.0, detail, fault, tolerance=0.0)
