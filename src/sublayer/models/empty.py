"""A model without memory, whose weights are yet to come: from a folder, or from another library's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

FILLS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _Unfilled(TorchFunctionMode):
    """Filling does nothing: there is nothing to fill, and on the meta device it costs seconds of imports."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func in FILLS else func(*args, **given)


@contextmanager
def without_memory() -> Generator[None]:
    """Inside the block, what is built is on the meta device, and is not filled."""
    with torch.device("meta"), _Unfilled():
        yield
