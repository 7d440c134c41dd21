"""`sublayer chat`: a conversation with a model that carries a chat template."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sublayer.cli.arguments import Device, ModelFolder, Seed, Threads, WeightFormat
from sublayer.cli.decoding import SAMPLING, load_generator, search_of
from sublayer.cli.lines import standard_input
from sublayer.cli.options import OWN, Told, fields, from_tree
from sublayer.cli.terminal import say
from sublayer.config.decoding import Constraints
from sublayer.errors import InputError

if TYPE_CHECKING:
    from sublayer.generation.generator import Generator

RESET = "/reset"


@from_tree(sampling=SAMPLING, constraints=fields(Constraints, ("repetition_penalty",)))
def chat(
    model: ModelFolder,
    *,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of new tokens in an answer.", show_default=OWN)
    ] = None,
    sampling: Told,
    constraints: Told,
    seed: Seed = None,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
) -> None:
    """Chat with a model, one line per turn, until the end of the input. The history is kept; /reset clears it.

    Answers are streamed. Ctrl-C stops an answer, and the conversation continues from there.

    Example: sublayer chat models/smollm2 --temperature 0.2 --system "You are brief."
    """

    generator = load_generator(model, device, weights).with_prefix_cache()
    own = generator.decoding
    options: dict[str, Any] = {
        "search": search_of(own.search, sampling),
        "constraints": Constraints.parse({**own.constraints.plain(), **constraints}, "chat"),
        "max_tokens": max_tokens,
        "seed": seed,
    }
    conversation = begun = [{"role": "system", "content": system}] if system else []
    for number, line in enumerate(_turns()):
        if line.strip() == RESET:
            conversation = begun
            continue
        if not line.strip():
            continue
        asked = [*conversation, {"role": "user", "content": line}]
        try:
            answer = _answer(generator, asked, number, options)
        except InputError as error:
            # Nobody who is asked for the next line should lose a conversation to this one.
            if not sys.stdin.isatty():
                raise
            say(f"sublayer: {error} ({RESET} begins a new conversation.)", err=True)
            continue
        conversation = [*asked, {"role": "assistant", "content": answer}]


def _answer(generator: Generator[Any], conversation: list[dict[str, str]], number: int, options: dict[str, Any]) -> str:
    """Show the answer as it is made; the whole of it, or as far as it came before somebody stopped it."""
    pieces = generator.stream(generator.encode_chat(conversation), first=number, **options)
    stopped = False
    try:
        for piece in pieces:
            say(piece, nl=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        stopped = True
    say("")
    sys.stdout.flush()
    if not stopped and pieces.completion.ended == "length":
        say(f"(cut at {len(pieces.completion.tokens)} tokens)", err=True)
    return pieces.text


def _turns() -> Iterator[str]:
    """What is said, a line at a time, with a mark where somebody sits at a terminal."""
    marked = sys.stdin.isatty()
    if marked:
        say("> ", nl=False, err=True)
    for lines in standard_input(1):
        yield from lines
        if marked:
            say("> ", nl=False, err=True)
