"""`sublayer lens`: what a model would say after each layer, and what made it say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sublayer.cli.arguments import Device, ModelFolder, Translation
from sublayer.cli.inspecting import examples_of, opened, plain, spelled, wide_console
from sublayer.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from torch import Tensor

    from sublayer.hub.folder import TransformerBundle
    from sublayer.inspection.examples import Example
    from sublayer.inspection.lens import Lens

MOST_COLUMNS = 9
"""Layers side by side; of a deeper model some are left out."""
PARTS = 15
"""Single parts of a logit that are shown, the largest."""


def lens(
    model: ModelFolder,
    text: Annotated[
        str, typer.Argument(help="Text to encode, or sentence to translate; may contain [MASK].", metavar="TEXT")
    ],
    target: Translation = None,
    at: Annotated[
        int | None,
        typer.Option(
            help="Position to look at, counted from 0; negative counts from the end.",
            metavar="N",
            show_default="all; with --parts or --words the last",
        ),
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="Number of candidates to print for a position.", metavar="N")] = 5,
    token: Annotated[
        str | None,
        typer.Option(
            help="Token (or label) to explain with --parts and --words, spelled as in the tables.",
            metavar="TOKEN",
            show_default="the most probable",
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Direct logit attribution: the share of the embedding, each layer, head and feed-forward."
        ),
    ] = False,
    words: Annotated[
        bool, typer.Option("--words", help="Input attribution: gradient times input, and attention rollout.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Show the predictions after each layer (the logit lens); with --parts and --words, explain the final prediction.

    Example: sublayer lens models/my-llama "the cat sat on" --at -1 --parts --words

    Example: sublayer lens models/bert "the [MASK] sat on the mat"
    """
    from sublayer.inspection.lens import logit_lens, require_position

    found = opened(model, device)
    [example] = examples_of(found, model, [text], target)
    console = wide_console()
    size = 1 if _labels_text(found) else len(example.fed or example.tokens)
    if at is None and not (parts or words) and size > 1:
        console.print(_everywhere(found, example, size))
        return
    place = require_position(size, at)
    seen = logit_lens(found.model, example, None if _labels_text(found) else [place])
    console.print(_at_one(found, example, seen, place, best))
    chosen = int(seen.logits[-1, 0].argmax()) if token is None else _named(found, token)
    position = None if _labels_text(found) else place
    if parts:
        for table in _parts(found, example, chosen, position):
            console.print(table)
    if words:
        console.print(_words(found, example, chosen, position))


def _titled(title: str, first: str) -> Table:
    """A table whose title is not broken, however narrow it is."""
    from rich.table import Table

    return Table(first, title=title, title_justify="left", min_width=min(len(title) + 2, 100))


def _labels_text(found: TransformerBundle) -> bool:
    """Whether the model says one thing of a whole text."""
    from sublayer import config
    from sublayer.models import EncoderOnly

    return isinstance(found.model, EncoderOnly) and isinstance(found.model.config.head, config.Classification)


def _names(found: TransformerBundle, ids: Sequence[int]) -> list[str]:
    """Tokens, or labels where the model's head has those, as they stand in a table."""
    from sublayer.tasks.task import head_labels

    if labels := head_labels(found.model.config):
        return [labels[one] for one in ids]
    # A model may have room for more tokens than its tokenizer knows.
    size = found.tokenizer.vocab_size
    return [spelled(found, [one])[0] if one < size else f"<{one}>" for one in ids]


def _named(found: TransformerBundle, name: str) -> int:
    """The token or label that is spelled so.

    Raises:
        InputError: there is none, or the spelling stands for several tokens.
    """
    from sublayer.tasks.task import head_labels

    if labels := head_labels(found.model.config):
        if name not in labels:
            raise InputError(f"the model has no label '{name}'", nearest(name, labels))
        return labels.index(name)
    tokenizer = found.tokenizer
    for identifier in tokenizer.special_ids:
        if tokenizer.token(identifier) == name:
            return identifier
    # As in the tables, "▁cat" is "cat" with the space before it; without it, "cat" is looked for in both ways.
    for way in ([name.replace("▁", " ")], [f" {name}"]):
        [ids] = tokenizer.encode(way)
        spelled_as = tokenizer.pieces(ids)
        if len(ids) == 1 and spelled_as[0].lstrip("▁") == name.lstrip("▁"):
            return ids[0]
    [ids] = tokenizer.encode([name])
    raise InputError(
        f"'{name}' is no single token of this model", f"It is cut into {' '.join(tokenizer.pieces(ids)) or 'nothing'}."
    )


def _everywhere(found: TransformerBundle, example: Example, size: int) -> Table:
    """The likeliest candidate at every position, after each layer."""
    from sublayer.inspection.lens import logit_lens

    table = _titled("The likeliest, if the model ended there", "")
    table.add_column("reads", no_wrap=True)
    rows = spelled(found, example.fed or example.tokens)
    columns: list[int] = []
    for begin in range(0, size, 16):
        seen = logit_lens(found.model, example, list(range(begin, min(begin + 16, size))))
        if not columns:
            columns = _columns(len(seen.names))
            for column in columns:
                table.add_column(seen.names[column], no_wrap=True)
        chances, tokens = seen.probabilities.max(-1)
        for place in range(tokens.shape[1]):
            cells = [_cell(found, int(tokens[column, place]), float(chances[column, place])) for column in columns]
            table.add_row(str(begin + place), plain(rows[begin + place]), *cells)
    return table


def _columns(layers: int) -> list[int]:
    """So many of the layers as a table can hold, the first and the last among them."""
    most = min(layers, MOST_COLUMNS)
    return [round(place * (layers - 1) / max(most - 1, 1)) for place in range(most)]


def _cell(found: TransformerBundle, token: int, chance: float) -> str:
    return f"{plain(_names(found, [token])[0])} [dim]{chance:.2f}[/dim]"


def _at_one(found: TransformerBundle, example: Example, seen: Lens, place: int, best: int) -> Table:
    """The likeliest candidates at one position, a row a layer, and where the final answer stands."""
    piece = spelled(found, example.fed or example.tokens)[place]
    where = "of the whole text" if _labels_text(found) else f"at position {place}: {piece}"
    table = _titled(f"The likeliest after each layer, {plain(where)}", "")
    final = seen.logits[-1].argmax(-1)
    answer = plain(_names(found, [int(final[0])])[0])
    table.add_column(f"rank of {answer}", justify="right")
    count = min(best, seen.logits.shape[-1])
    for number in range(1, count + 1):
        table.add_column(str(number), no_wrap=True)
    chances, tokens = seen.probabilities[:, 0].topk(count)
    for layer, (name, rank) in enumerate(zip(seen.names, seen.ranks(final)[:, 0], strict=True)):
        cells = [_cell(found, int(tokens[layer, n]), float(chances[layer, n])) for n in range(count)]
        table.add_row(name, str(int(rank) + 1), *cells)
    return table


def _parts(found: TransformerBundle, example: Example, token: int, position: int | None) -> list[Table]:
    """What a logit is made of: by layers, and the largest single parts."""
    from sublayer.inspection.contributions import contributions

    made = contributions(found.model, example, token, position)
    [name] = _names(found, [token])
    layers = _titled(f"The logit of {plain(name)}, by layers", "part")
    single = _titled(f"Its largest parts, of {len(made.shares)}", "part")
    for table in (layers, single):
        table.add_column("adds", justify="right")
    for part, value in made.of_layers():
        layers.add_row(part, f"{value:+.3f}")
    layers.add_section()
    layers.add_row("the logit", f"{made.logit:+.3f}")
    for share in sorted(made.shares, key=lambda share: -abs(share.value))[:PARTS]:
        single.add_row(share.name, f"{share.value:+.3f}")
    return [layers, single]


def _words(found: TransformerBundle, example: Example, token: int, position: int | None) -> Table:
    """Which words a logit comes from."""
    from sublayer.inspection.attribution import gradient_times_input, rollout
    from sublayer.models import EncoderDecoder

    made = gradient_times_input(found.model, example, token, position)
    pair = isinstance(found.model, EncoderDecoder)
    # A translation's rollout would be of the encoder alone, which has no row for what is said.
    flow = None if pair or position is None else rollout(found.model, example)[position]
    [name] = _names(found, [token])
    table = _titled(f"Where {plain(name)} comes from", "")
    table.add_column("word", no_wrap=True)
    table.add_column("gradient x input", justify="right")
    if flow is not None:
        table.add_column("attention rollout", justify="right")
    sides: list[tuple[Sequence[int], Tensor]] = [(example.tokens, made.tokens)]
    if made.fed is not None:
        sides.append((example.fed, made.fed))
    for ids, values in sides:
        for place, piece in enumerate(spelled(found, ids)):
            cells = [] if flow is None else [f"{float(flow[place]):.3f}"]
            table.add_row(str(place), plain(piece), f"{float(values[place]):+.3g}", *cells)
        table.add_section()
    return table
