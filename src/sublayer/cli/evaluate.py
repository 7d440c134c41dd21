"""`sublayer evaluate`: BLEU and chrF on held-out sentences, or exact answers in held-out conversations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sublayer.cli import terminal
from sublayer.cli.terminal import say
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from sublayer.generation.generator import Generator
    from sublayer.generation.translator import Translator

OWN = "the model's own"


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, or the folder of a training run.", metavar="MODEL")],
    data: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines {"source": …, "references": [ … ]}, or {"messages": [ … ]} for a model that converses.',
            show_default="what was held out",
        ),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Number of beams; 1 is greedy search. Default: the model's own.")
    ] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0, show_default=OWN)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write inputs, references and outputs to this file, as JSON lines.")
    ] = None,
    tokenize: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer of sacreBLEU: 13a, zh, ja-mecab, ko-mecab, intl, char, spm, flores200, …",
            show_default="the recipe's, or by the target language",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device to run on: cuda, mps, cpu or auto.")] = "auto",
) -> None:
    """Score a model on what was held out when it was trained.

    Translations by sacreBLEU with its signature, and chrF. Of conversations the last answers, made by greedy search:
    how many are, word for word, those that stand there. Of any other model what its task measures: the perplexity of
    a language model (of --data, a .txt file, one document), the accuracy of a classifier, the F1 of a tagger.

    Example: sublayer evaluate runs/demo --beam 4

    Example: sublayer evaluate models/my-llama --data english.txt

    Example: sublayer evaluate runs/trec --out answers.jsonl
    """
    from sublayer.generation.generator import Generator
    from sublayer.generation.translator import Translator
    from sublayer.hub.folder import find, load
    from sublayer.training.runtime import pick_device

    found: Any = load(model, pick_device(device))
    path = find(model) / "test.jsonl" if data is None else data
    if isinstance(found, Translator) and not _holds(path, "text"):
        _translated(found, path, beam, length_penalty, out, _tokenize(find(model), found, tokenize))
    elif isinstance(found, Generator) and _holds(path, "messages"):
        _answered(cast("Generator[Any]", found), path, out)
    else:
        _measured(found, model, data, out)


def _tokenize(folder: Path, translator: Translator, asked: str | None) -> str:
    """How BLEU cuts texts into words: as asked, else as the model's recipe says, else by the target language."""
    from sublayer.config.task import TranslationTask
    from sublayer.training.evaluation import bleu_tokenizer
    from sublayer.training.judging import recipe_of

    language = translator.decoding.target_language
    if asked is not None:
        return bleu_tokenizer(language, TranslationTask.parse({"bleu": asked}, "--tokenize").bleu)
    recipe = recipe_of(folder, translator.model.config)
    own = recipe.task.bleu if isinstance(recipe.task, TranslationTask) else "auto"
    return bleu_tokenizer(language or recipe.data.target_language, own)


def _holds(path: Path, field: str) -> bool:
    """Whether the first object of a file of JSON lines has such a field."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as lines:
        return lines.readline().lstrip().startswith(f'{{"{field}"'.encode())


def _measured(loaded: Any, model: Path, data: Path | None, out: Path | None) -> None:
    from sublayer.errors import ConfigError
    from sublayer.tasks import Classifier
    from sublayer.training.judging import judge_folder
    from sublayer.training.objective import MEASURES

    started = time.perf_counter()
    if out is not None and not isinstance(loaded, Classifier):
        raise ConfigError(
            f"--out = {out}, but this model says nothing that could be written there", "Leave --out away."
        )
    found = judge_folder(model, data, loaded.model.device)
    rows = {found.noun: f"{found.count:,} ({time.perf_counter() - started:.1f} s)"}
    rows |= {MEASURES[name].title: f"{value:.{MEASURES[name].digits}f}" for name, value in found.scores.items()}
    width = max(map(len, rows))
    for name, value in rows.items():
        say(f"{name:{width}}  {value}")
    if out is not None:
        texts: list[Any] = found.table.rows
        answers = loaded.classify([row.text if row.second is None else (row.text, row.second) for row in texts])
        _write(out, [{**row.plain, "found": one.label} for row, one in zip(texts, answers, strict=True)])


def _translated(
    translator: Translator,
    path: Path,
    beam: int | None,
    length_penalty: float | None,
    out: Path | None,
    tokenize: str,
) -> None:
    from rich.progress import Progress

    from sublayer.training.evaluation import UNLEARNED, cut_to_fit, score

    given, references = _held_out(path)
    sources, cut = cut_to_fit(translator, given)
    if cut:
        say(f"{cut} sources are longer than the model's positions and are cut there", err=True)
    started = time.perf_counter()
    with Progress(console=terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task("translating", total=len(sources))
        translations = translator.translate(
            sources, beam=beam, length_penalty=length_penalty, progress=lambda count: bar.advance(task, count)
        )
    seconds = time.perf_counter() - started
    texts = [translation.text for translation in translations]
    found = score(texts, references, tokenize)
    say(f"sentences  {found.sentences:,} ({seconds:.1f} s)")
    say(f"BLEU       {found.bleu:.2f}   {found.bleu_signature}")
    say(f"chrF       {found.chrf:.2f}   {found.chrf_signature}")
    if found.unlearned:
        say(UNLEARNED)
    cut = sum(not translation.complete for translation in translations)
    if cut:
        say(f"{cut} translations reached their length limit and are cut there", err=True)
    rows = [{"source": s, "references": r, "translation": t} for s, r, t in zip(given, references, texts, strict=True)]
    _write(out, rows)


def _answered(generator: Generator[Any], path: Path, out: Path | None) -> None:
    from rich.progress import Progress

    from sublayer.config import Chat
    from sublayer.data.tables.conversations import read_conversations
    from sublayer.errors import DataError
    from sublayer.training.answers import answers, judge

    if not path.is_file():
        raise DataError(f"there is no {path}", 'Give --data a file of JSON lines {"messages": [ … ]}.')
    table = read_conversations(Chat(path=path.name), path.parent)
    started = time.perf_counter()
    with Progress(console=terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task("answering", total=len(table))
        found = answers(generator, table.rows, progress=lambda count: bar.advance(task, count))
    seconds = time.perf_counter() - started
    judged = judge([each.answer for each in found], [each.expected for each in found])
    say(f"conversations  {judged.count:,} ({seconds:.1f} s)")
    say(f"exact          {judged.exact:.4f}   the answer, word for word")
    say(f"folded         {judged.folded:.4f}   but for case, and marks and spaces around it")
    _write(out, [{"messages": each.asked, "expected": each.expected, "answer": each.answer} for each in found])


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    from sublayer.files import write_text

    if out is not None:
        write_text(out, "".join(to_json(row) + "\n" for row in rows))


def _held_out(path: Path) -> tuple[list[str], list[list[str]]]:
    from sublayer.errors import DataError
    from sublayer.untrusted import parse_json

    remedy = 'Give --data a file of JSON lines {"source": …, "references": [ … ]}.'
    if not path.is_file():
        raise DataError(f"there is no {path}", remedy)
    sources: list[str] = []
    references: list[list[str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = parse_json(line)
            source, several = row["source"], row["references"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: {error}", remedy) from None
        if not isinstance(source, str) or not isinstance(several, list) or not several:
            raise DataError(f"{path}, line {number}: source is not a string, or references not a filled list", remedy)
        sources.append(source)
        references.append([str(one) for one in several])  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not sources:
        raise DataError(f"{path} has no sentences", remedy)
    return sources, references
