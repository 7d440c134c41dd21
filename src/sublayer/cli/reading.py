"""What `classify`, `tag`, `embed` and `fill` have in common: the model, and the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from sublayer.cli.decoding import device_for
from sublayer.cli.lines import standard_input
from sublayer.errors import CheckpointError

if TYPE_CHECKING:
    from sublayer import config

R = TypeVar("R")
Answer = TypeVar("Answer")


def load_reader(path: Path, device: str, kind: type[R], asked: str, weights: config.Weights | None = None) -> R:
    """The model at `path`, if it is one that does what is `asked` of it.

    Raises:
        CheckpointError: it is another kind of model, or none. InputError: it cannot read with such weights.
    """
    from sublayer.hub.loading import load_to_use

    found: object = load_to_use(path, device_for(device, weights), weights)
    if not isinstance(found, kind):
        model = cast("object", getattr(found, "model", None))
        tree = getattr(model, "config", None)
        head = getattr(getattr(tree, "head", None), "type", None)
        what = f"its head is '{head}'" if head else f"it is of the kind '{getattr(tree, 'kind', '?')}'"
        raise CheckpointError(f"{path} does not {asked}: {what}", "Name another model.")
    return found


def answered(
    texts: Sequence[str] | None, batch: int, ask: Callable[[list[str]], Sequence[Answer]]
) -> Iterator[tuple[str, Answer | None]]:
    """Each text with its answer, in order: the texts given, all at once, or else lines from standard input, `batch` at
    a time.

    A line in is a line out: a line without words is not asked about, and its answer is None.
    """
    for chunk in iter([list(texts)]) if texts else standard_input(batch):
        filled = [line for line in chunk if line.strip()]
        answers = iter(ask(filled) if filled else ())
        for line in chunk:
            yield line, next(answers) if line.strip() else None
