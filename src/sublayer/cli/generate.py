"""`sublayer generate`: a language model goes on from a prompt, in the terminal as it is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sublayer.cli.decoding import load_generator, search_of, speculation_of
from sublayer.cli.evaluate import OWN
from sublayer.cli.lines import standard_input
from sublayer.cli.terminal import say
from sublayer.config.part import MOST_BEAMS
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from sublayer.generation.generator import Completion, Generated, Generator


def generate(
    model: Annotated[Path, typer.Argument(help="A model folder, or the folder of a training run.", metavar="MODEL")],
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue. Default: each line of standard input.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "--max-new-tokens",
            min=1,
            help="Maximum number of new tokens; may exceed the model's context.",
            show_default=OWN,
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; 0 is greedy search.", show_default=OWN)
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample from the k most probable tokens only.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Nucleus sampling: sample from the smallest set of tokens with total probability at least p.",
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Drop tokens less than p times as probable as the most probable one."),
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Number of beams; 1 is greedy search.")] = None,
    length_penalty: Annotated[
        float | None, typer.Option(min=0, help="Length penalty of beam search: score = log P / length ** penalty.")
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "--n",
            "-n",
            min=1,
            max=MOST_BEAMS,
            help="Number of texts to print for each prompt; needs sampling or beam search.",
        ),
    ] = 1,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Penalize tokens that occurred before; 1 is no penalty.", show_default=OWN)
    ] = None,
    no_repeat_ngram: Annotated[
        int | None, typer.Option(min=1, help="Never repeat an n-gram of this size.", show_default=OWN)
    ] = None,
    min_length: Annotated[
        int | None, typer.Option(min=0, help="Minimum number of new tokens.", show_default=OWN)
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this string; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of sampling.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each prompt, with tokens and log-probabilities.")
    ] = False,
    draft: Annotated[
        Path | None,
        typer.Option(help="Draft model for speculative decoding, with the same vocabulary.", metavar="MODEL"),
    ] = None,
    lookup: Annotated[
        bool, typer.Option("--lookup", help="Speculative decoding by prompt lookup, without a draft model.")
    ] = False,
    guesses: Annotated[int, typer.Option(min=1, help="Draft tokens per step of speculative decoding.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Lines of standard input in a batch.")] = 64,
    weights: Annotated[
        Literal["float32", "bfloat16", "int8"] | None,
        typer.Option(
            help="Weight format for decoding on a CPU; narrower formats are approximate, and usually faster.",
            show_default="as they are",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device to run on: cuda, mps, cpu or auto.")] = "auto",
) -> None:
    """Continue a prompt, or each line of standard input, in order. Prints the new text without the prompt.

    A single text is streamed. With --n, the texts of a prompt are printed one below the other; use --json if they can
    contain line breaks.

    With greedy search and sampling a text may grow beyond the model's context: whenever the context is full, its older
    half is dropped and the rest is encoded again. The prompt itself must fit into the context, and so must everything
    with --beam, --draft and --lookup.

    Example: sublayer generate runs/lm "Once upon a time" --temperature 0.8 --top-p 0.95 --seed 1

    Example: sublayer generate runs/lm --max-tokens 20 --json < prompts.txt
    """
    generator = load_generator(model, device, weights)
    own = generator.decoding
    options: dict[str, Any] = {
        "search": search_of(
            own.search,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            beam=beam,
            length_penalty=length_penalty,
        ),
        "constraints": _constraints(generator, repetition_penalty, no_repeat_ngram, min_length),
        "max_tokens": max_tokens,
        "stop": stop,
        "seed": seed,
        "speculation": speculation_of(draft, lookup, guesses, device),
        "log_probabilities": as_json,
    }
    done = 0
    for chunk in iter([[prompt]]) if prompt is not None else standard_input(batch):
        if len(chunk) == 1 and n == 1 and not as_json:
            _streamed(generator, chunk[0], done, options)
        else:
            for number, one in enumerate(_answered(generator, chunk, n=n, first=done, **options), start=done + 1):
                _print(one, number, as_json)
        sys.stdout.flush()
        done += len(chunk)


def _answered(generator: Generator[Any], prompts: list[str], *, first: int, **options: Any) -> Iterator[Generated]:
    """What is made of the prompts; where one is refused, those before it are still answered."""
    from sublayer.errors import InputError

    try:
        together = generator.generate(prompts, first=first, **options)
    except InputError:
        for place, prompt in enumerate(prompts):
            yield from generator.generate([prompt], first=first + place, **options)
        raise
    yield from together


def _constraints(
    generator: Generator[Any], repetition_penalty: float | None, no_repeat_ngram: int | None, min_length: int | None
) -> Any:
    from sublayer import config

    given = {
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram": no_repeat_ngram,
        "min_length": min_length,
    }
    told = {name: value for name, value in given.items() if value is not None}
    return config.Constraints.parse({**generator.decoding.constraints.plain(), **told}, "generate")


def _streamed(generator: Generator[Any], prompt: str, first: int, options: dict[str, Any]) -> None:
    pieces = generator.stream(prompt, first=first, **options)
    for piece in pieces:
        say(piece, nl=False)
        sys.stdout.flush()
    say("")
    _say_if_cut(pieces.completion, first + 1)


def _print(generated: Generated, number: int, as_json: bool) -> None:
    if as_json:
        say(to_json(_plain(generated)))
        return
    for completion in generated.completions:
        say(completion.text)
        _say_if_cut(completion, number)


def _plain(generated: Generated) -> dict[str, Any]:
    return {
        "prompt": generated.prompt,
        "prompt_tokens": generated.prompt_tokens,
        "completions": [
            {
                "text": one.text,
                "ended": one.ended,
                "tokens": one.tokens,
                "log_probability": one.log_probability,
                "log_probabilities": one.log_probabilities,
            }
            for one in generated.completions
        ],
    }


def _say_if_cut(completion: Completion, number: int) -> None:
    if completion.ended == "length":
        count = len(completion.tokens)
        say(f"prompt {number}: the text reached its limit of {count} tokens and is cut there", err=True)
