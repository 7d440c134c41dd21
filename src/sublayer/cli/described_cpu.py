"""What runs a model on this CPU, and how many bytes of its weights a token costs; for `describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from sublayer import config
from sublayer.hub.location import WEIGHTS
from sublayer.untrusted import is_file


def on_cpu(tree: config.Model, folder: Path) -> dict[str, Any]:
    """Return who runs the model in this folder, `runs`: "engine" or "modules"; why not the engine, `why`, where it is
    not; its `instruction_set`; and `bytes_read` of the matrices, by weight format: for a decoder's next token, or for a
    batch that an encoder reads.
    """
    from sublayer.fast.engine.library import FORMATS, Unavailable, instruction_set
    from sublayer.fast.engine.packing import bytes_read
    from sublayer.fast.engine.program import NotLowered

    try:
        program = _program(tree)
        found = {name: bytes_read(program, name) for name in get_args(config.Weights) if name in FORMATS}
        _require_float32(folder / WEIGHTS)
        return {"runs": "engine", "instruction_set": instruction_set(), "bytes_read": found}
    except (NotLowered, Unavailable) as reason:
        return {"runs": "modules", "why": str(reason), "bytes_read": {}}


def _program(tree: config.Model) -> Any:
    """What the model lowers itself to, without its weights."""
    import torch

    from sublayer.fast.engine.program import NotLowered
    from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly, build_model
    from sublayer.models.empty import without_memory

    with without_memory():
        model = build_model(tree)
    if not isinstance(model, EncoderDecoder | DecoderOnly | EncoderOnly):
        raise NotLowered(f"{type(model).__name__} is not lowered")
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            # A number that is seen everywhere: what is asked for is how large the matrices are.
            module.register_parameter(name, torch.nn.Parameter(torch.zeros(()).expand(weight.shape)))
        reset = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset()
    with torch.no_grad():
        return model.eval().lower()


def _require_float32(path: Path) -> None:
    """Raise `NotLowered` where the weights are of another type, which the modules keep."""
    from safetensors import SafetensorError, safe_open

    from sublayer.fast.engine.program import NotLowered

    if not is_file(path):
        return
    try:
        opened: Any = safe_open(path, framework="np")
        with opened as held:
            names: list[str] = list(held.keys())
            kinds = {str(held.get_slice(name).get_dtype()) for name in names}
    except (SafetensorError, OSError, ValueError):
        return
    if kinds - {"F32"}:
        raise NotLowered(f"the weights are in {', '.join(sorted(kinds))}, not in float32")
