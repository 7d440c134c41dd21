"""`sublayer generate`: a language model goes on from a prompt, in the terminal as it is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Seed, Threads, WeightFormat
from sublayer.cli.clustering import CLUSTER, in_cluster
from sublayer.cli.decoding import BEAM, SAMPLING, load_generator, search_of, speculation_of
from sublayer.cli.lines import standard_input
from sublayer.cli.options import OWN, Told, fields, from_tree
from sublayer.cli.terminal import say
from sublayer.config.decoding import Constraints, Generation
from sublayer.config.part import MOST_BEAMS
from sublayer.errors import InputError
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from sublayer.generation.completion import Completion, Generated
    from sublayer.generation.generator import Generator


@from_tree(
    sampling=SAMPLING,
    beam=BEAM,
    constraints=fields(Constraints, ("repetition_penalty", "no_repeat_ngram", "min_length")),
    cluster=CLUSTER,
)
def generate(
    model: ModelFolder,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue. Default: each line of standard input.")
    ] = None,
    *,
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
    sampling: Told,
    beam: Told,
    n: Annotated[
        int,
        typer.Option(
            "--n", "-n", min=1, max=MOST_BEAMS, help="Texts to print for each prompt; needs sampling or a beam."
        ),
    ] = 1,
    constraints: Told,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this string; may be repeated.")] = None,
    seed: Seed = None,
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
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
    cluster: Told,
) -> None:
    """Continue a prompt, or each line of standard input, in order. Prints the new text without the prompt.
    With --cluster, the texts of the files --in.

    A single text is shown as it is made. Several texts of a prompt stand under one another; where they have several
    lines, --json keeps them apart.

    A text may grow longer than the model's context: whenever the context is full, the model forgets the older half of
    it and reads the rest again. That works for every model, with greedy search and sampling; a beam, --draft and
    --lookup have to stay inside the context, and so has the prompt.

    Example: sublayer generate runs/lm "Once upon a time" --temperature 0.8 --top-p 0.95 --seed 1

    Example: sublayer generate runs/lm --max-tokens 20 --json < prompts.txt
    """
    if cluster:
        from sublayer import cluster as jobs
        from sublayer.hub.location import find, read_description

        settings = Generation.parse(read_description(find(model)).get("decoding", {}), f"{model}: decoding")
        in_cluster(
            jobs.generate, model, cluster, texts=prompt, device=device, weights=weights,
            refused={
                "--threads": threads is not None, "--n": n > 1, "--json": as_json, "--draft": draft is not None,
                "--lookup": lookup,
            },
            search=search_of(settings.search, sampling, beam) if sampling or beam else None,
            constraints=Constraints.parse({**settings.constraints.plain(), **constraints}, "generate"),
            max_tokens=max_tokens, stop=stop, seed=seed,
        )  # fmt: skip
        return
    generator = load_generator(model, device, weights)
    own = generator.decoding
    options: dict[str, Any] = {
        "search": search_of(own.search, sampling, beam),
        "constraints": Constraints.parse({**own.constraints.plain(), **constraints}, "generate"),
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

    try:
        together = generator.generate(prompts, first=first, **options)
    except InputError:
        for place, prompt in enumerate(prompts):
            yield from generator.generate([prompt], first=first + place, **options)
        raise
    yield from together


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
            {name: getattr(one, name) for name in ("text", "ended", "tokens", "log_probability", "log_probabilities")}
            for one in generated.completions
        ],
    }


def _say_if_cut(completion: Completion, number: int) -> None:
    if completion.ended == "length":
        count = len(completion.tokens)
        say(f"prompt {number}: the text reached its limit of {count} tokens and is cut there", err=True)
