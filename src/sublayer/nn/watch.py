"""Whether modules are still what something was prepared from, and whether anybody listens to them.

Copies of weights in another layout, or functions over weights, are right only as long as nothing has taken the place of
a module or a weight, no weight has been written to, and no hook waits for what the modules would have computed. All
of it is asked with a few passes over lists, in microseconds.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module


class Watch:
    """Remembers modules as they are now, with all below them.

    Raises:
        ValueError: a weight was made in inference mode, where nothing counts what is written to it.
    """

    def __init__(self, *roots: nn.Module) -> None:
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
        self._tensors = list({id(thing): thing for thing in self._things if isinstance(thing, Tensor)}.values())
        if any(tensor.is_inference() for tensor in self._tensors):
            raise ValueError("a weight was made in inference mode: changes to it cannot be noticed")
        self._before = self._state()
        everywhere = vars(torch_module)
        self._hooks: list[Any] = [
            *(vars(module)[kind] for module in self._modules for kind in ("_forward_hooks", "_forward_pre_hooks")),
            *(everywhere[kind] for kind in ("_global_forward_hooks", "_global_forward_pre_hooks")),
        ]

    @property
    def unchanged(self) -> bool:
        """Whether every module and weight is in its place, and no weight has been written to since."""
        return self._state() == self._before

    @property
    def listened(self) -> bool:
        """Whether a forward hook waits anywhere, of one module or of all that there are."""
        return any(self._hooks)

    @property
    def training(self) -> bool:
        """Whether any module is in training."""
        return True in [module.training for module in self._modules]

    def _state(self) -> tuple[list[int], list[int], list[int]]:
        return (
            [id(held.get(name)) for held, name in self._places],
            [tensor._version for tensor in self._tensors],
            [tensor.data_ptr() for tensor in self._tensors],
        )
