"""Logits that are not finite: noticed where decoding has the numbers in hand anyway, and traced to where they began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sublayer.errors import InputError
from sublayer.generation.request import DecodeRequest

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.models.backend import DecoderBackend

_REMEDY = "Use it in a type with more range: float32, or bfloat16 (`sublayer pull MODEL OUT --dtype float32`)."


class NotFinite(InputError):
    """The model's logits are not finite; where that began, `refuse` finds."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the model's numbers are not finite: its logits are NaN or infinite after {step} tokens", _REMEDY
        )
        self.step = step


def is_finite(logits: Tensor) -> list[bool]:
    """Return for each row whether it can be chosen from: no NaN and no positive infinity. Shape: [R, V]."""
    finite = logits.amax(dim=-1) < math.inf  # a maximum of numbers among which is NaN is NaN
    return cast("list[bool]", finite.tolist())


def any_nan(gains: Sequence[float]) -> bool:
    """Return whether log-probabilities are NaN, as they all are where one logit of the row is not finite."""
    return any(map(math.isnan, gains))


def refuse(
    model: DecoderBackend[Any], source: Tensor, source_lengths: Tensor | None, request: DecodeRequest, step: int
) -> NoReturn:
    """Raise for logits that are not finite.

    Args:
        step: how many tokens had been chosen.

    Raises:
        InputError: names the first part of the model whose output is not finite, where one step from the beginning
            shows it.
    """
    from torch import nn

    module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    where = _first(module, source, source_lengths, request) if isinstance(module, nn.Module) else None
    dtype = next((str(p.dtype).removeprefix("torch.") for p in module.parameters()), "?") if module is not None else "?"
    what = f"{where} gives NaN or infinity" if where else f"the logits are NaN or infinite after {step} tokens"
    raise InputError(
        f"the model's numbers are not finite in {dtype}: {what}",
        _REMEDY,
    )


def _first(module: Any, source: Tensor, source_lengths: Tensor | None, request: DecodeRequest) -> str | None:
    """The name of the module whose output is the first that is not finite, in one step from the beginning."""
    import torch

    from sublayer.models.evaluating import first_wrong_output

    def forward() -> None:
        state = module.start(source, source_lengths, num_beams=1, capacity=1)
        module.step(torch.tensor(request.first, device=source.device).unsqueeze(1), state)

    # Masked scores are infinite on purpose, and downwards.
    return first_wrong_output(module, forward, lambda o: o.is_floating_point() and not bool((o < math.inf).all()))
