"""The typed tree that describes a model, a recipe, a run. Import this as `from sublayer import config`.

Its names are there when the first of them is asked for: to build the whole tree takes a tenth of a second, and who
needs one file of it (`sublayer.config.decoding`) need not wait for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sublayer.config.model import *
    from sublayer.config.tree import *


def __getattr__(name: str) -> Any:
    # A submodule is asked for here first too, and is none of the tree's names.
    if not name[:1].isupper() and name != "preset":
        raise AttributeError(f"module 'sublayer.config' has no attribute '{name}'")
    from sublayer.config import tree

    globals().update({each: value for each, value in vars(tree).items() if each[:1].isupper() or each == "preset"})
    if name not in globals():
        raise AttributeError(f"module 'sublayer.config' has no attribute '{name}'")
    return globals()[name]
