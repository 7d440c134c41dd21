"""Whether modules are still what something was prepared from, and whether anybody listens to them.

Copies of weights in another layout, or functions over weights, are right only as long as nothing has taken the place of
a module or a weight, no copied weight has been written to, and no hook waits for what the modules would have computed.

To look at everything is a walk through memory that a step of decoding has just swept out of the processor's caches: 200
microseconds for a model of three layers, a tenth of its step. So everything is looked at when a decode begins, and at
each step only what cannot wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

from sublayer.fast.engine.program import NotLowered


class Guard:
    """Remembers modules as they are now, with all below them.

    Args:
        roots: the modules. copied: whether there are copies of a module's own weights and tables.

    Raises:
        ValueError: a weight was made in inference mode, where nothing counts what is written to it.
    """

    def __init__(self, *roots: nn.Module, copied: Callable[[nn.Module], bool]) -> None:
        self._modules = list(dict.fromkeys(module for root in roots for module in root.modules()))
        # Where each module, parameter and buffer hangs: a dictionary, and its name there.
        self._places: list[tuple[dict[str, Any], str]] = [
            (vars(module)[held], name)
            for module in self._modules
            for held in ("_modules", "_parameters", "_buffers")
            for name in vars(module)[held]
        ]
        # Held, so that nothing else can come to have their identity.
        self._things = [held[name] for held, name in self._places]
        if any(thing.is_inference() for thing in self._things if isinstance(thing, Tensor)):
            raise ValueError("a weight was made in inference mode: changes to it cannot be noticed")
        self._copied = [
            tensor
            for module in self._modules
            if copied(module)
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        ]
        # While these live, no other weight can be given the same memory.
        self._memory = [tensor.detach() for tensor in self._copied]
        self._before, self._versions = self._seen(), self._written()
        everywhere = vars(torch_module)
        self._hooks: list[Any] = [
            *(vars(module)[kind] for module in self._modules for kind in ("_forward_hooks", "_forward_pre_hooks")),
            *(everywhere[kind] for kind in ("_global_forward_hooks", "_global_forward_pre_hooks")),
        ]
        self._hooks_made, self._listened = RemovableHandle.next_id, True

    @property
    def unchanged(self) -> bool:
        """Whether every module and weight is in its place and in its memory, and no copied weight was written to."""
        return self._seen() == self._before and self.unwritten

    @property
    def unwritten(self) -> bool:
        """Whether no copied weight has been written to. For each step."""
        return self._written() == self._versions

    @property
    def listened(self) -> bool:
        """Whether a forward hook waits anywhere, of one module or of all that there are. For each step."""
        # torch numbers the hooks that it makes: while nobody listens, the number tells that nobody has begun to.
        if self._listened or self._hooks_made != RemovableHandle.next_id:
            self._hooks_made, self._listened = RemovableHandle.next_id, any(self._hooks)
        return self._listened

    @property
    def may_step(self) -> bool:
        """Whether copies may compute in the modules' place: no gradient, no listener, no training, the same weights."""
        return (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not self._modules[0].training
            and not self.listened
            and self.unwritten
        )

    @property
    def training(self) -> bool:
        """Whether any module is in training."""
        return True in [module.training for module in self._modules]

    @classmethod
    def of(cls, model: nn.Module) -> Guard:
        """Over a whole model, all of whose weights are copied.

        Raises:
            NotLowered: nothing can be copied of it, as it is now.
        """
        if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in model.parameters()):
            raise NotLowered("the model is not in float32 on a CPU")
        try:
            guard = cls(model, copied=lambda module: True)
        except ValueError as error:
            raise NotLowered(str(error)) from error
        if guard.training:
            raise NotLowered("the model is in training")
        return guard

    def _seen(self) -> tuple[list[int], list[int]]:
        return (
            [id(held.get(name)) for held, name in self._places],
            [tensor.data_ptr() for tensor in self._copied],
        )

    def _written(self) -> list[int]:
        return [tensor._version for tensor in self._copied]
