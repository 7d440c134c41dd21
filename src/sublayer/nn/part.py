"""What a part says of itself, so that nobody else needs to know which part it is.

    reset_parameters()    how its own weights begin (`models/initialization.py` asks every part of a model)
    stream_axes()         which axis of which parameter is the residual stream's (`hub/equivalent.py`)
    stream_writers()      which of its weights write to the stream; those of sub-layers only
    at_scale(whole)       norms only: the linear map that it is once its scale is held (`inspection/contributions.py`)
    lower(program, ...)   add its operations to the model's program (`fast/engine/`), and return its result; it stands
                          in the class itself, beside `forward`, for a subclass may compute something else
    tensor_plan()         how it is shared out over processes that compute it together (`nn/tensor_parallel.py`); a part
                          that does not say it stays whole on each

What a part does not say it is asked for in vain: the error names the part and what it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from sublayer.errors import InputError


class NotProvided(InputError):
    """A part does not say of itself what it was asked for."""

    def __init__(self, part: nn.Module, what: str, remedy: str) -> None:
        super().__init__(f"{type(part).__name__} does not say {what}", remedy)


@dataclass(frozen=True)
class TensorPlan:
    """How a part is shared out, by the names of what stands in it.

    colwise: linear maps whose outputs are shared out, with the sizes of the maps that stand side by side in each: every
    one of them is shared out evenly. rowwise: linear maps whose inputs are; what they give is summed.
    axes: other parameters and tables, with the axis that is shared out. within: parts that stay whole but see only a
    rank's own share, so that their gradients are summed. counts: attributes that tell how many there are of what is
    shared out. vocabulary: a table of tokens' vectors, of which each rank has some.
    """

    colwise: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    rowwise: Sequence[str] = ()
    axes: Mapping[str, int] = field(default_factory=dict[str, int])
    within: Sequence[str] = ()
    counts: Sequence[str] = ()
    vocabulary: str | None = None


class Part(nn.Module):
    """A part of a model. It fills its own weights, those of its linear maps and tables among them."""

    def reset_parameters(self) -> None:
        """Fill the part's weights anew; those of the parts in it are filled by themselves, after."""
        raise NotProvided(self, "how its weights begin", "Give it a method reset_parameters.")

    def stream_axes(self) -> Mapping[str, int]:
        """For each parameter that reads from the residual stream or writes to it, which of its axes is the stream's.

        The parts in this one are asked for theirs here too.
        """
        raise NotProvided(self, "which of its axes are the stream's", "Give it a method stream_axes.")

    def stream_writers(self) -> Sequence[Tensor]:
        """The weights whose products are added to the residual stream."""
        raise NotProvided(self, "with which weights it writes to the stream", "Give it a method stream_writers.")


def under(name: str, axes: Mapping[str, int]) -> dict[str, int]:
    """The axes of a part that is called `name`."""
    return {f"{name}.{parameter}": axis for parameter, axis in axes.items()}
