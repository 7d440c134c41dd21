"""Optimizers from the recipe, and their state as plain tensors.

Every parameter that learns is in exactly one group: the matrices of linear maps and of their adapters (which decay),
and the rest: biases, norms, embeddings of tokens and of positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.fast.machine import multiply_dtype
from sublayer.nn.adapter import adapters
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.block import Block
from sublayer.nn.feed_forward import Gated, PositionWise
from sublayer.training.muon import POLYNOMIALS, Across, Muon
from sublayer.training.schedules import paper_peak
from sublayer.training.trainable import trainable_parameters


class Optimizers:
    """One or two optimizers that share the parameters, driven as one. across: as `Muon` has it."""

    def __init__(self, model: nn.Module, training: config.Training, dim: int, across: Across | None = None) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in trainable_parameters(model).items()}
        self.parts = _build(model, training, dim, across)
        grouped = [(p, part) for part in self.parts for group in part.param_groups for p in group["params"]]
        self._owner: dict[Tensor, Optimizer] = dict(grouped)
        assert len(grouped) == len(self._owner) == len(self._names), "a parameter is in no group, or in two"
        self._peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """One update at `factor` of every group's peak learning rate."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """That of the first group, as last used."""
        return self.parts[0].param_groups[0]["lr"]

    def state(self) -> dict[str, Tensor]:
        """Every number that the optimizers remember, as "parameter/what".

        The settings are not among them: they are the recipe's.
        """
        tensors: dict[str, Tensor] = {}
        for part in self.parts:
            for parameter, values in part.state.items():
                for what, value in values.items():
                    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                    tensors[f"{self._names[parameter]}/{what}"] = tensor.detach()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            CheckpointError: a tensor belongs to no parameter, or has another shape.
        """
        by_name = {name: parameter for parameter, name in self._names.items()}
        for key, tensor in tensors.items():
            name, _, what = key.rpartition("/")
            parameter = by_name.get(name)
            if parameter is None or (tensor.dim() and tensor.shape != parameter.shape):
                raise CheckpointError(
                    f"the optimizer's state has '{key}' of shape {tuple(tensor.shape)}, which this model has not",
                    "Resume with the recipe that the run began with.",
                )
            # A step counter stays on the CPU unless the fused kernel wants it beside the parameter.
            device = parameter.device if tensor.dim() or parameter.device.type != "cpu" else tensor.device
            self._owner[parameter].state[parameter][what] = tensor.to(device)


def _build(model: nn.Module, training: config.Training, dim: int, across: Across | None) -> list[Optimizer]:
    choice = training.optimizer
    everything = list(trainable_parameters(model).values())
    # By what a parameter does, not by its shape: tables of positions and of relative biases have two dimensions too,
    # and a projection to the vocabulary that is tied is an embedding.
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    linear = {m.weight for m in model.modules() if isinstance(m, nn.Linear)} - embeddings
    recurrent = {p for m in model.modules() if isinstance(m, nn.RNNBase) for p in m.parameters() if p.dim() == 2}
    # Those of a mixture's experts are stacks of matrices, and learn as the experts do.
    linear |= recurrent | {p for p in adapters(model).values() if p.dim() == 2}
    matrices = [p for p in everything if p in linear]
    rest = [p for p in everything if p not in linear]
    match choice:
        case config.Adam():
            peak = choice.learning_rate or paper_peak(dim, training.schedule.warmup)
            return [torch.optim.Adam(everything, lr=peak, betas=choice.betas, eps=choice.eps, fused=_fused(everything))]
        case config.AdamW():
            return [_adamw(choice, matrices, rest)]
        case config.Muon():
            blocks = [m for m in model.modules() if isinstance(m, Block)]
            within = {p for block in blocks for p in block.parameters()} | recurrent
            inner = [p for p in matrices if p in within]
            outer = [p for p in matrices if p not in within]
            found: list[Optimizer] = []
            if inner:
                found.append(
                    Muon(
                        inner,
                        choice.learning_rate,
                        momentum=choice.momentum,
                        weight_decay=choice.weight_decay,
                        products=torch.float32 if choice.products == "float32" else multiply_dtype(inner[0].device),
                        maps=_maps(model, choice),
                        across=across,
                        polynomials=POLYNOMIALS[choice.polynomials],
                    )
                )
            # Where adapters learn and nothing else, there are no others.
            return [*found, _adamw(choice.others, outer, rest)] if outer or rest else found


def _maps(model: nn.Module, choice: config.Muon) -> dict[Tensor, tuple[int, int]]:
    """For each matrix that is made orthogonal in parts the shape of one."""
    found: dict[Tensor, tuple[int, int]] = {}
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention) and choice.each_head:
            found |= module.head_maps()
        elif isinstance(module, PositionWise | Gated) and choice.hidden_block is not None:
            found |= module.hidden_maps(choice.hidden_block)
    return found


def _adamw(choice: config.AdamW, decaying: list[nn.Parameter], rest: list[nn.Parameter]) -> Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": choice.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=choice.learning_rate,
        betas=choice.betas,
        eps=choice.eps,
        fused=_fused([*decaying, *rest]),
    )


def _fused(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has a fused kernel for where these parameters are: one pass over memory instead of a dozen."""
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda", "mps") for p in parameters)
