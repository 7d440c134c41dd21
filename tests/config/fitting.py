"""A task and a source that fit a model: what a recipe must say besides, so that only the model is tried."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sublayer.config import PRESETS

PLAIN = {"type": "text", "path": "a.txt"}
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "encoder-decoder": ({"type": "translation"}, {"type": "tsv", "path": "a.tsv"}),
    "decoder-only": ({"type": "causal"}, PLAIN),
    "masked-language": ({"type": "masked"}, PLAIN),
    "classification": ({"type": "classification"}, {"type": "labelled-tsv", "path": "a.tsv"}),
    "tagging": ({"type": "tagging"}, {"type": "conll", "path": "a.conll"}),
    "sentence-embedding": ({"type": "embedding"}, {"type": "tsv", "path": "a.tsv"}),
}


def fitted(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with a task and a source that fit its model, where it has one of another shape than an encoder-decoder."""
    model = data.get("model")
    if not isinstance(model, dict):
        return data
    base = PRESETS.get(model.get("preset", ""))
    kind = model.get("kind", "encoder-decoder" if base is None else base.kind)
    if kind == "encoder-only":
        kind = model.get("head", {}).get("type") or (
            "masked-language" if base is None else getattr(getattr(base, "head", None), "type", "")
        )
    if kind not in TASKS or kind == "encoder-decoder":
        return data
    task, source = TASKS[kind]
    found = deepcopy(data)
    # Short texts: some presets have few positions.
    found |= {"task": task, "data": {"source": source, "max_length": 64}}
    return found


def overrides_for(kind: str) -> list[str]:
    """The same as overrides of a recipe file."""
    task, source = TASKS[kind]
    said = ", ".join(f'{key} = "{value}"' for key, value in source.items())
    return [f"task.type={task['type']}", f"data.source={{{said}}}"]
