"""Laws of who can see whom, by gradient: what may not be seen has a gradient of exactly zero, what may has not.

A mask that lets too much through shows as a gradient where there must be none; one that hides too much shows as a
gradient that is missing. Both are silent otherwise: a model that sees the future trains very well.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, law
from sublayer.laws.model_adapter import Decodes, Encodes, Stacked
from sublayer.models.recurrent.encoder_decoder import RecurrentEncoder
from sublayer.models.stack import Stack

__all__ = ["layers_see_their_windows", "target_sees_its_past", "source_sees_its_window", "source_padding_is_unseen"]


@law("causality", Decodes)
@torch.enable_grad()
def target_sees_its_past(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """The logits at t depend on the tokens at t' exactly where t' <= t, and no farther than the windows reach."""
    size = inputs.target.shape[1]
    seen = _Leaf(adapter.model.decoder.embedding)
    with seen:
        logits = adapter.answer(inputs.alone(-1).repeated(size))
    found = seen.gradient(_diagonal(logits))
    # The target is the end of what the decoder reads, which may begin with the source.
    distance = _distance(found.shape[1], found.device)[-size:]
    allowed = (distance >= 0) & (distance <= _reach(adapter.model.decoder))
    return _judge(found, allowed, f"d logits / d embedding, {size} positions")


@law("each layer's window", Stacked)
@torch.enable_grad()
def layers_see_their_windows(adapter: Stacked, inputs: Inputs) -> Discrepancy:
    """What leaves a layer depends on what entered it exactly where the window of that layer, and causality, allow.

    A layer by itself, because one that sees everything hides from the whole what another may not see.
    """
    alone = inputs.alone(-1)
    layers = [_Layer(stack, index) for stack in adapter.stacks for index in range(len(stack.layers))]
    if not layers:
        return Discrepancy(0.0, "the model has no layers")
    with ExitStack() as entered:
        for layer in layers:
            entered.enter_context(layer)
        # As many rows as any stack has positions.
        adapter.answer(alone.repeated(alone.source.shape[1] + alone.target.shape[1]))
    worst = max((layer.judge() for layer in layers), key=lambda each: (bool(each.fault), each.error))
    fine = worst.error == 0.0 and not worst.fault
    return replace(worst, detail=f"d out / d in, {len(layers)} layers") if fine else worst


@law("the encoder's view", Encodes)
@torch.enable_grad()
def source_sees_its_window(adapter: Encodes, inputs: Inputs) -> Discrepancy:
    """The encoder's states depend on the source on both sides, and no farther than the windows reach.

    Those of a recurrent encoder that reads one way depend on what it has read.
    """
    size = inputs.source.shape[1]
    seen = _Leaf(adapter.model.encoder.embedding)
    with seen:
        states = adapter.states(inputs.alone(-1).repeated(size))
    found = seen.gradient(_diagonal(states))
    distance = _distance(size, found.device)
    allowed = distance.abs() <= _reach(adapter.model.encoder)
    if isinstance(adapter.model.encoder, RecurrentEncoder) and adapter.model.encoder.recurrence.directions == 1:
        allowed = allowed & (distance >= 0)
    return _judge(found, allowed, f"d states / d embedding, {size} positions")


@law("padding is unseen", Encodes)
@torch.enable_grad()
def source_padding_is_unseen(adapter: Encodes, inputs: Inputs) -> Discrepancy:
    """What a source is read for depends on every real token of it and on no padding."""
    seen = _Leaf(adapter.model.encoder.embedding)
    with seen:
        read = adapter.reading(inputs)
    found = seen.gradient(_weighed(read))
    return _judge(found, inputs.source_real, "d what is read / d embedding")


class _Leaf:
    """Cuts the graph at what leaves a module, or enters it, so that gradients with respect to it can be asked for."""

    def __init__(self, module: nn.Module, *, entering: bool = False) -> None:
        self.module, self.entering = module, entering
        self.cut: Tensor | None = None

    def __enter__(self) -> None:
        if self.entering:
            self.handle = self.module.register_forward_pre_hook(self._cut_input)
        else:
            self.handle = self.module.register_forward_hook(self._cut_output)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _cut_output(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        self.cut = output.detach().requires_grad_()
        return self.cut

    def _cut_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self.cut = inputs[0].detach().requires_grad_()
        return (self.cut, *inputs[1:])

    def gradient(self, value: Tensor) -> Tensor:
        """The largest |d value / d cut[b, s, :]|: [B, S]."""
        assert self.cut is not None
        (gradient,) = torch.autograd.grad(value, self.cut)
        return gradient.abs().amax(-1)


class _Layer:
    """One layer of a stack, cut from the others, so that gradients pass through it alone."""

    def __init__(self, stack: Stack, index: int) -> None:
        self.block = stack.layers[index]
        self.window, self.causal = stack.kinds[stack.kind_of_layer[index]][0], stack.causal
        self.name = f"layer {index} of the {'decoder' if stack.causal else 'encoder'}"
        self.before = _Leaf(self.block, entering=True)
        self.after: Tensor | None = None

    def __enter__(self) -> None:
        self.before.__enter__()
        self.handle = self.block.register_forward_hook(self._keep)

    def __exit__(self, *_: object) -> None:
        self.before.__exit__()
        self.handle.remove()

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.after = output

    def judge(self) -> Discrepancy:
        assert self.after is not None
        size = self.after.shape[1]
        found = self.before.gradient(_diagonal(self.after[:size]))[:size]
        distance = _distance(size, found.device)
        allowed = (distance if self.causal else distance.abs()) < (size if self.window is None else self.window)
        return _judge(found, allowed & (distance >= 0) if self.causal else allowed, f"d out / d in, {self.name}")


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


def _reach(reader: nn.Module) -> float:
    """How far a stack sees: every layer passes on what the one below has seen. A recurrent network sees everything."""
    if not isinstance(reader, Stack):
        return float("inf")
    stack = reader
    windows = [stack.kinds[kind][0] for kind in stack.kind_of_layer]
    return sum(float("inf") if window is None else window - 1 for window in windows)


def _judge(found: Tensor, allowed: Tensor, detail: str) -> Discrepancy:
    """Exactly zero where not allowed, more where allowed; the error is the largest leak, in units of the largest."""
    largest = found.max().item()
    leak = found.masked_fill(allowed, 0.0).max().item()
    blind = int((allowed & (found == 0.0)).sum())
    fault = f"{blind} of {int(allowed.sum())} gradients are zero that must not be: {detail}" if blind else ""
    if not bool(found.isfinite().all()):
        fault, leak = f"gradients that are not finite: {detail}", float("inf")
    return Discrepancy(leak / largest if largest else 0.0, detail, fault, tolerance=0.0)
