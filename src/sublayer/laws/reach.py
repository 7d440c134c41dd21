"""Laws of who can see whom, by gradient: what may not be seen has a gradient of exactly zero, what may has not.

A mask that lets too much through shows as a gradient where there must be none; one that hides too much shows as a
gradient that is missing. Both are silent otherwise: a model that sees the future trains very well.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, law
from sublayer.laws.model_adapter import Decodes, Encodes, Stacked
from sublayer.models.recurrent.encoder_decoder import RecurrentEncoder
from sublayer.models.stack import Stack
from sublayer.nn.tap import Hook, hooked


@law("causality", Decodes)
@torch.enable_grad()
def target_sees_its_past(adapter: Decodes, inputs: Inputs) -> Discrepancy:
    """The logits at t depend on the tokens at t' exactly where t' <= t, and no farther than the windows reach."""
    size = inputs.target.shape[1]
    with _cut({"embedding": adapter.model.decoder.embedding}) as cuts:
        logits = adapter.answer(inputs.alone(-1).repeated(size))
    found = _gradient(_diagonal(logits), cuts["embedding"].after)
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
    stacks = {"decoder" if stack.causal else "encoder": stack for stack in adapter.stacks}
    # Behind the embedding and behind each layer: layer n stands between cut n and cut n + 1.
    cut = {
        f"{name} {place}": module
        for name, stack in stacks.items()
        for place, module in enumerate((stack.embedding, *stack.layers))
    }
    with _cut(cut) as cuts:
        # As many rows as any stack has positions.
        adapter.answer(alone.repeated(alone.source.shape[1] + alone.target.shape[1]))
    found = [
        _of_layer(stack, layer, cuts[f"{name} {layer}"].after, cuts[f"{name} {layer + 1}"].before)
        for name, stack in stacks.items()
        for layer in range(len(stack.layers))
    ]
    if not found:
        return Discrepancy(0.0, "the model has no layers")
    worst = max(found, key=lambda each: (bool(each.fault), each.error))
    fine = worst.error == 0.0 and not worst.fault
    return replace(worst, detail=f"d out / d in, {len(found)} layers") if fine else worst


@law("the encoder's view", Encodes)
@torch.enable_grad()
def source_sees_its_window(adapter: Encodes, inputs: Inputs) -> Discrepancy:
    """The encoder's states depend on the source on both sides, and no farther than the windows reach.

    Those of a recurrent encoder that reads one way depend on what it has read.
    """
    size = inputs.source.shape[1]
    with _cut({"embedding": adapter.model.encoder.embedding}) as cuts:
        states = adapter.states(inputs.alone(-1).repeated(size))
    found = _gradient(_diagonal(states), cuts["embedding"].after)
    distance = _distance(size, found.device)
    allowed = distance.abs() <= _reach(adapter.model.encoder)
    if isinstance(adapter.model.encoder, RecurrentEncoder) and adapter.model.encoder.recurrence.directions == 1:
        allowed = allowed & (distance >= 0)
    return _judge(found, allowed, f"d states / d embedding, {size} positions")


@law("padding is unseen", Encodes)
@torch.enable_grad()
def source_padding_is_unseen(adapter: Encodes, inputs: Inputs) -> Discrepancy:
    """What a source is read for depends on every real token of it and on no padding."""
    with _cut({"embedding": adapter.model.encoder.embedding}) as cuts:
        read = adapter.reading(inputs)
    found = _gradient(_weighed(read), cuts["embedding"].after)
    return _judge(found, inputs.source_real, "d what is read / d embedding")


LAWS = (layers_see_their_windows, target_sees_its_past, source_sees_its_window, source_padding_is_unseen)


class _Cut(NamedTuple):
    """What a module gave in one pass, and what went on in its place: the same numbers, at which gradients end."""

    before: Tensor
    after: Tensor


@contextmanager
def _cut(modules: Mapping[str, nn.Module]) -> Generator[dict[str, _Cut]]:
    """Cut the graph behind each module; yields the cuts by name, once the modules have run."""
    cuts: dict[str, _Cut] = {}

    def hook(name: str) -> Hook:
        def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            cuts[name] = _Cut(output, output.detach().requires_grad_())
            return cuts[name].after

        return cut

    with hooked(modules, hook):
        yield cuts


def _gradient(value: Tensor, cut: Tensor) -> Tensor:
    """The largest |d value / d cut[b, s, :]|: [B, S]."""
    (gradient,) = torch.autograd.grad(value, cut)
    return gradient.abs().amax(-1)


def _of_layer(stack: Stack, layer: int, entered: Tensor, left: Tensor) -> Discrepancy:
    """Whether what left a layer depends on what entered it as its window, and causality, have it."""
    window, size = stack.kinds[stack.kind_of_layer[layer]][0], left.shape[1]
    found = _gradient(_diagonal(left[:size]), entered)[:size]
    distance = _distance(size, found.device)
    allowed = (distance if stack.causal else distance.abs()) < (size if window is None else window)
    name = f"layer {layer} of the {'decoder' if stack.causal else 'encoder'}"
    return _judge(found, allowed & (distance >= 0) if stack.causal else allowed, f"d out / d in, {name}")


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
