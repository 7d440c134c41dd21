"""Listening to a model's taps while it runs.

    with record(model, "decoder.layers.*.cross_attention.weights") as seen:
        model.translate(["..."])
    seen["decoder.layers.0.cross_attention.weights"]   # a list: one tensor a call

Only the attention layers whose weights are listened to leave the fused path; every other layer runs as before, and
the outputs are the same.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor, nn

from sublayer.inspection.hook_points import matching
from sublayer.nn.tap import hooked

Recording: TypeAlias = dict[str, list[Tensor]]
"""What the taps showed: name -> a tensor for each call, in the order of the calls, on the model's device.

Every tap that is listened to is there from the start, in the model's order, with an empty list.
"""


@contextmanager
def record(model: nn.Module, *patterns: str) -> Generator[Recording]:
    """Keep what the taps and norms of `model` show while the block runs, in training, inference and generation alike.

    A pattern is a shell pattern over their names, `*` crosses dots; `inspection/hook_points.py` lists names and shapes.
    In generation every step appends its own rows. What is kept is a copy: detached from the graph, and safe from later
    changes in place. Beside an `edit` of the same tap, a recording sees the value as the edits entered before it have
    left it: record inside `edit` to see what was made of it, outside to see what it was.

    Listen before a model is compiled: torch.compile leaves out hooks that come after it.

    Raises:
        InputError: there is no pattern, or one that matches no tap.
    """
    found = matching(model, patterns, "record")
    seen: Recording = {name: [] for name in found}
    # A copy: a search may well rule out tokens in the very tensor of logits that was recorded.
    with hooked(found, lambda name: lambda _module, _inputs, value: seen[name].append(value.detach().clone())):
        yield seen
