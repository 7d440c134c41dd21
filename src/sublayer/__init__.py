"""sublayer: train, load, run and inspect Transformers, in one small PyTorch code base.

model = sublayer.load("runs/en-es")
model.translate(["How are you?"])[0].text

The reference of the API is docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sublayer.errors import SublayerError
    from sublayer.hub.loading import load
    from sublayer.inspection.editing import edit, patched, scaled, zero_ablate
    from sublayer.inspection.notebook import view
    from sublayer.inspection.recording import record

__version__ = "0.1.0"
__all__ = ["SublayerError", "__version__", "edit", "load", "patched", "record", "scaled", "zero_ablate", "view"]

# Imported when first used: `import sublayer` stays light, and lower floors may import the package itself.
_HOMES = {
    "load": "sublayer.hub.loading",
    "record": "sublayer.inspection.recording",
    "view": "sublayer.inspection.notebook",
    **dict.fromkeys(("edit", "patched", "scaled", "zero_ablate"), "sublayer.inspection.editing"),
    "SublayerError": "sublayer.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sublayer' has no attribute '{name}'")
