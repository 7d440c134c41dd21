"""`sublayer translate`: sentences in, sentences out; arguments or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Sentences, Threads, WeightFormat
from sublayer.cli.clustering import CLUSTER, in_cluster
from sublayer.cli.decoding import device_for
from sublayer.cli.lines import standard_input
from sublayer.cli.options import Told, fields, from_tree
from sublayer.cli.terminal import say
from sublayer.config.decoding import Constraints, Decoding
from sublayer.config.part import MOST_BEAMS
from sublayer.errors import InputError, SublayerError

if TYPE_CHECKING:
    from sublayer.generation.shortlist import Shortlist
    from sublayer.generation.translator import Translation, Translator


@from_tree(
    decoding=fields(Decoding, ("beam", "length_penalty")),
    limits=fields(Constraints, ("no_repeat_ngram", "min_length")),
    cluster=CLUSTER,
)
def translate(
    model: ModelFolder,
    sentences: Sentences = None,
    *,
    decoding: Told,
    n_best: Annotated[
        int, typer.Option(min=1, max=MOST_BEAMS, help="Number of translations to print for each sentence.")
    ] = 1,
    source_language: Annotated[
        str | None, typer.Option("--from", help="Source language code of a multilingual model (eng_Latn, en_XX).")
    ] = None,
    target_language: Annotated[
        str | None, typer.Option("--to", help="Target language code of a multilingual model (spa_Latn, es_XX).")
    ] = None,
    limits: Told,
    only: Annotated[
        Path | None, typer.Option(help="Allow only the tokens that occur in this text file.", metavar="FILE")
    ] = None,
    shortlist: Annotated[
        bool,
        typer.Option("--shortlist", help="Choose only among the tokens that `sublayer shortlist` found for a source."),
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Print score and log-probability first, separated by tabs.")
    ] = False,
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
    cluster: Told,
) -> None:
    """Translate the given sentences, or standard input line by line, in order. With --cluster, the files --in.

    Empty lines stay empty. A translation that was cut at the length limit is reported on standard error.

    Example: sublayer translate runs/demo "Where are my keys?"

    Example: sublayer translate runs/demo --beam 1 < english.txt > spanish.txt

    Example: sublayer translate models/nllb --from eng_Latn --to spa_Latn "Where are my keys?"
    """
    codes = {"source_language": source_language, "target_language": target_language}
    languages = {name: code for name, code in codes.items() if code is not None}
    if cluster:
        from sublayer import cluster as jobs
        from sublayer.hub.location import find, read_description

        own = Decoding.parse(read_description(find(model)).get("decoding", {}), f"{model}: decoding").constraints
        in_cluster(
            jobs.translate, model, cluster, texts=sentences, device=device, weights=weights,
            refused={
                "--threads": threads is not None, "--n-best": n_best > 1, "--only": only is not None, "--scores": scores
            },
            **decoding, shortlist=shortlist, decoding={"constraints": {**own.plain(), **limits}, **languages},
        )  # fmt: skip
        return
    from sublayer.hub.loading import load_translator

    translator = load_translator(model, device_for(device, weights), weights)
    if shortlist:
        translator = translator.with_shortlist(_shortlist_of(model, translator))
    Decoding.parse({**translator.decoding.plain(), **decoding}, "translate")
    constraints = {**translator.decoding.constraints.plain(), **limits}
    if only is not None:
        constraints["allowed"] = _tokens_of(only, translator)
    translator = translator.with_decoding(constraints=constraints, **languages)
    chosen = decoding.get("beam", max(n_best, translator.decoding.beam))
    done = 0
    for chunk in iter([sentences]) if sentences else standard_input(batch):
        filled = [(number, line) for number, line in enumerate(chunk, start=done + 1) if line.strip()]
        fine, refused = _before_refused(translator, filled)
        translations = iter(
            translator.translate(
                [line for _, line in fine], beam=chosen, n_best=n_best, length_penalty=decoding.get("length_penalty")
            )
        )
        last = refused[0] - 1 if refused else done + len(chunk)
        for line in chunk[: last - done]:
            done += 1
            if line.strip():
                _print(next(translations), scores, done)
            else:
                say("")
        sys.stdout.flush()
        if refused:
            raise refused[1]


def _shortlist_of(model: Path, translator: Translator) -> Shortlist:
    from sublayer.generation.shortlist import read_shortlist
    from sublayer.hub.location import find

    tokenizer = translator.tokenizer
    return read_shortlist(find(model), tokenizer.fingerprint, translator.vocab_size)


def _tokens_of(path: Path, translator: Translator) -> list[int]:
    """The tokens of a text, and what ends and begins a translation.

    Raises:
        DataError: the file cannot be read.
    """
    from sublayer.text.lines import read_lines

    said = {token for ids in translator.tokenizer.encode(list(read_lines(path))) for token in ids}
    affixes = translator.affixes
    return sorted({*said, affixes.end, *affixes.forced, *translator.decoding.end_ids})


def _before_refused(
    translator: Translator, lines: list[tuple[int, str]]
) -> tuple[list[tuple[int, str]], tuple[int, SublayerError] | None]:
    """The numbered lines before the first that the model cannot take, and its number with what is wrong with it.

    What stands before a bad line is still translated: the user need not do it all again.
    """
    for place, (number, line) in enumerate(lines):
        try:
            translator.encode([line])
        except InputError as error:
            what = error.what.replace("sentence 1 ", "").replace("text 0 ", "")
            return lines[:place], (number, InputError(f"line {number} {what}", error.remedy))
    return lines, None


def _print(translation: Translation, scores: bool, number: int) -> None:
    for one in translation.n_best:
        say(f"{one.score:.4f}\t{one.log_probability:.4f}\t{one.text}" if scores else one.text)
    if not translation.complete:
        say(f"line {number}: the translation reached its length limit and is cut there", err=True)
