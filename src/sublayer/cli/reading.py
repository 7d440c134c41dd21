"""What `classify`, `tag`, `embed` and `fill` have in common: the model, and the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

from sublayer.cli.lines import standard_input

R = TypeVar("R")


def load_reader(path: Path, device: str, kind: type[R], asked: str) -> R:
    """The model at `path`, if it is one that does what is `asked` of it.

    Raises:
        CheckpointError: it is another kind of model, or none.
    """
    from sublayer.errors import CheckpointError
    from sublayer.hub.folder import load
    from sublayer.training.runtime import pick_device

    found: object = load(path, pick_device(device))
    if not isinstance(found, kind):
        model = cast("object", getattr(found, "model", None))
        tree = getattr(model, "config", None)
        head = getattr(getattr(tree, "head", None), "type", None)
        what = f"its head is '{head}'" if head else f"it is of the kind '{getattr(tree, 'kind', '?')}'"
        raise CheckpointError(f"{path} does not {asked}: {what}", "Name another model.")
    return found


def chunks(texts: Sequence[str] | None, batch: int) -> Iterator[list[str]]:
    """The texts given, all at once, or else lines from standard input, `batch` at a time; empty lines are left out."""
    for chunk in iter([list(texts)]) if texts else standard_input(batch):
        filled = [line for line in chunk if line.strip()]
        if filled:
            yield filled
