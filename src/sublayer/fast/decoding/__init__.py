"""Decoder backends: what steps a model's decoder, behind the step contract (`models/backend.py`).

auto           the engine where the model is lowered (`runner.py`), else its modules
modules        the modules of the model, at every step
fixed-shapes   the modules, in steps whose shapes do not change as a text grows, as compiling or capturing wants them
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast

from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.fixed_shapes import FixedShapes
from sublayer.fast.decoding.runner import Decodes, Runner
from sublayer.fast.engine.packing import Packed
from sublayer.models import DecoderOnly, EncoderDecoder
from sublayer.models.backend import DecoderBackend

BackendName: TypeAlias = Literal["auto", "modules", "fixed-shapes"]
Backend: TypeAlias = "BackendName | Callable[[Any], DecoderBackend[Any]]"
"""One of those above, or a function that makes a backend of a model."""


def decoder_backend(
    model: Decodes, backend: Backend = "auto", weights: config.Weights | None = None, packed: Packed | None = None
) -> DecoderBackend[Any]:
    """Return what steps `model`.

    Args:
        weights: what the backend keeps the matrices as; unset: as the model has them. packed: as in `Runner`.

    Raises:
        InputError: there is no such backend for this model, or it cannot keep its matrices so.
    """
    attends = isinstance(model, EncoderDecoder | DecoderOnly)
    if weights is not None and not (backend == "auto" and attends):
        own = f"a {type(model).__name__} decodes by itself"
        who = own if backend == "auto" else f"backend = {backend!r} takes them as they are"
        raise InputError(f"weights = '{weights}', but {who}", "Leave weights out.")
    if callable(backend):
        return backend(model)
    match backend:
        case "auto":
            return Runner(model, weights, packed) if attends else cast("DecoderBackend[Any]", model)
        case "modules":
            return cast("DecoderBackend[Any]", model)
        case "fixed-shapes" if isinstance(model, EncoderDecoder | DecoderOnly):
            return FixedShapes(model)
        case _:
            raise InputError(
                f"backend = {backend!r} cannot be had for a {type(model).__name__}",
                "Choose 'auto' or 'modules'; 'fixed-shapes' is for Transformers.",
            )


__all__ = ["Backend", "BackendName", "Decodes", "FixedShapes", "Packed", "Runner", "decoder_backend"]
