"""Laws of who can see whom, by gradient: what may not be seen has a gradient of exactly zero, what may has not.

A mask that lets too much through shows as a gradient where there must be none; one that hides too much shows as a
gradient that is missing. Both are silent otherwise: a model that sees the future trains very well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import Finding, evaluating, finding
from sublayer.models import EncoderDecoder


@torch.enable_grad()
def target_sees_its_past(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """The logits at t depend on the target at t' exactly where t' <= t, and no farther than the windows reach."""
    size = inputs.target.shape[1]
    source, target = inputs.source[-1:].expand(size, -1), inputs.target[-1:].expand(size, -1)
    with evaluating(model):
        seen = _Leaf(model.decoder.embedding)
        with seen:
            logits = model(source, None, target)
        found = seen.gradient(_diagonal(logits))
    distance = _distance(size, found.device)
    attention = model.config.decoder.block.attention
    allowed = (distance >= 0) & (distance <= _reach(attention.window, model.config.decoder.layers))
    return _judge("causality", found, allowed, f"d logits / d target embedding, {size} positions")


@torch.enable_grad()
def source_sees_its_window(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """The encoder's states depend on the source on both sides, and no farther than the windows reach."""
    size = inputs.source.shape[1]
    with evaluating(model):
        seen = _Leaf(model.encoder.embedding)
        with seen:
            states = model.encode(inputs.source[-1:].expand(size, -1)).states
        found = seen.gradient(_diagonal(states))
    attention = model.config.encoder.block.attention
    allowed = _distance(size, found.device).abs() <= _reach(attention.window, model.config.encoder.layers)
    return _judge("the encoder's view", found, allowed, f"d states / d source embedding, {size} positions")


@torch.enable_grad()
def source_padding_is_unseen(model: EncoderDecoder, inputs: Inputs) -> Finding:
    """The logits depend on every real source token and on no padding."""
    with evaluating(model):
        seen = _Leaf(model.encoder.embedding)
        with seen:
            logits = model(inputs.source, inputs.source_lengths, inputs.target)
        found = seen.gradient(_weighed(logits))
    positions = torch.arange(inputs.source.shape[1], device=found.device)
    allowed = positions < inputs.source_lengths.unsqueeze(1)
    return _judge("source padding is unseen", found, allowed, "d logits / d source embedding")


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


def _reach(window: int | None, layers: int) -> float:
    """How far a stack sees: every layer passes on what the one below has seen."""
    return float("inf") if window is None else layers * (window - 1)


def _judge(law: str, found: Tensor, allowed: Tensor, detail: str) -> Finding:
    """Exactly zero where not allowed, more where allowed; the error is the largest leak, in units of the largest."""
    largest = found.max().item()
    leak = found.masked_fill(allowed, 0.0).max().item()
    blind = int((allowed & (found == 0.0)).sum())
    fault = f"{blind} of {int(allowed.sum())} gradients are zero that must not be: {detail}" if blind else ""
    if not bool(found.isfinite().all()):
        fault, leak = f"gradients that are not finite: {detail}", float("inf")
    return finding(law, leak / largest if largest else 0.0, 0.0, detail, fault=fault)
