"""The weights of a model by name, those that are tied once; and back into a model, every one accounted for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.nn.tap import put


def nonfinite(tensors: Mapping[str, Tensor], looked_at: Callable[[Tensor], object] | None = None) -> list[str]:
    """Return the tensors that have a number that is not finite, each with how many.

    Args:
        looked_at: told each tensor after it was looked at.
    """
    wrong: list[str] = []
    for name, tensor in tensors.items():
        # One pass without a copy; only where the sum is not finite each number is looked at.
        if tensor.is_floating_point() and not math.isfinite(_sum(tensor)):
            count = int((~torch.isfinite(tensor)).sum())
            wrong += [f"{name} ({count:,} of {tensor.numel():,})"] * (count > 0)
        if looked_at is not None:
            looked_at(tensor)
    return wrong


def refuse_nonfinite(wrong: Sequence[str], where: str) -> None:
    """Raise a `CheckpointError` that names the tensors of `nonfinite`, if there are any."""
    if wrong:
        more = f" and {len(wrong) - 10} more" * (len(wrong) > 10)
        raise CheckpointError(
            f"{where} has numbers that are not finite: {', '.join(wrong[:10])}{more}",
            "Take another copy, or allow them: allow_nonfinite=True (`sublayer pull --allow-nonfinite`).",
        )


def _sum(tensor: Tensor) -> float:
    return tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32).item()


def require_layers(tree: config.Model, count: int, where: str) -> None:
    """Raise where a tree describes more layers than there are tensors, before a model of it is built.

    Raises:
        CheckpointError: it does.
    """
    stacks = [getattr(tree, name) for name in ("encoder", "decoder") if hasattr(tree, name)]
    layers = sum(stack.layers for stack in stacks)
    if layers > count:
        raise CheckpointError(
            f"config.json describes {layers:,} layers, and {where} holds {count:,} tensors",
            "They do not belong together: copy the folder again, whole.",
        )


def untied(model: torch.nn.Module) -> tuple[dict[str, torch.nn.Parameter], dict[str, str]]:
    """The parameters by name, each once, and for every other name of a tied one the name it stands under."""
    parameters: dict[str, torch.nn.Parameter] = {}
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            ties[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
            parameters[name] = parameter
    return parameters, ties


def fill(model: torch.nn.Module, tensors: dict[str, Tensor], ties: dict[str, str], path: Path) -> None:
    """Give every parameter its tensor, and account for every tensor.

    Raises:
        CheckpointError: names every missing, unexpected and misshapen tensor at once.
    """
    expected, expected_ties = untied(model)
    wrong = [f"missing: {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected: {name}" for name in tensors if name not in expected]
    wrong += [
        f"misshapen: {name} is {tuple(tensors[name].shape)} and should be {tuple(parameter.shape)}"
        for name, parameter in expected.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if ties != expected_ties:
        wrong.append(f"tied weights are {ties} and should be {expected_ties}")
    if wrong:
        raise CheckpointError(f"{path} does not fit its config.json: " + "; ".join(wrong), "Copy the folder again.")
    complete = {**tensors, **{name: tensors[source] for name, source in ties.items()}}
    model.load_state_dict(complete, strict=True, assign=True)
    settle(model, ties)
    model.requires_grad_(True)


def settle(model: torch.nn.Module, ties: dict[str, str], device: str | torch.device | None = None) -> None:
    """Make a model whole whose weights have been assigned: the names of a tied weight are one parameter again, and the
    fixed tables, which no checkpoint has, are computed (`Position.reset_buffers`)."""
    for name, source in ties.items():
        put(model, name, model.get_parameter(source))
    for module in model.modules():
        reset = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset(device)
