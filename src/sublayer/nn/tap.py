"""Named observation points.

A tap is an identity module: it stands in the model's tree under a name (`decoder.layers.2.cross_attention.weights`),
costs nothing while nobody listens, and hands its tensor to whoever registers a forward hook. A hook that returns a
tensor replaces it, so the same point serves for editing.
"""

from __future__ import annotations

from torch import Tensor, nn


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
