"""Named observation points.

A tap is an identity module: it stands in the model's tree under a name (`decoder.layers.2.cross_attention.weights`),
costs nothing while nobody listens, and hands its tensor to whoever registers a forward hook. A hook that returns a
tensor replaces it, so the same point serves for editing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

Hook: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""A module, what it was given, and its output -> what takes the output's place, or None."""


class HookPoint(nn.Module):
    """What can be listened to and edited by its name: its output, by a forward hook."""


class Tap(HookPoint):
    """The identity; `listened` says whether a hook waits for the value.

    Where producing the value costs something (attention weights on a fused kernel), the owner asks `listened` first
    and takes the explicit path for this layer alone.
    """

    @property
    def listened(self) -> bool:
        return bool(self._forward_hooks or self._forward_pre_hooks)  # pyright: ignore[reportUnknownArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return x


def named_modules(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """As torch's own, which leaves the type of the names open."""
    return cast("Iterable[tuple[str, nn.Module]]", model.named_modules())


def put(model: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    """Put a module or a parameter where `name` says, in the place of what stands there."""
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, value)


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hook: Callable[[str], Hook]) -> Generator[None]:
    """Inside the block each module has the forward hook that `hook` makes of its name."""
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(hook(name)).remove)
        yield
