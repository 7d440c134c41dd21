"""`sublayer evaluate`: BLEU and chrF on held-out sentences."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

OWN = "the model's own"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or of the run that made it.", metavar="MODEL")],
    data: Annotated[
        Path | None,
        typer.Option(help='JSON lines {"source": …, "references": [ … ]}.', show_default="the held-out sentences"),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Hypotheses kept; 1 is greedy. Unset: the model's own.")
    ] = None,
    length_penalty: Annotated[float | None, typer.Option(min=0, show_default=OWN)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write sources, references and translations here (JSON lines).")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Score a model on the sentences that were held out when it was trained: sacreBLEU with its signature, and chrF.

    Example: sublayer evaluate runs/demo --beam 4
    """
    from rich.console import Console
    from rich.progress import Progress

    from sublayer.hub.folder import find, load_translator
    from sublayer.training.evaluation import score
    from sublayer.training.runtime import pick_device

    translator = load_translator(model, pick_device(device))
    sources, references = _held_out(find(model) / "test.jsonl" if data is None else data)
    started = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("translating", total=len(sources))
        translations = translator.translate(
            sources, beam=beam, length_penalty=length_penalty, progress=lambda count: bar.advance(task, count)
        )
    seconds = time.perf_counter() - started
    texts = [translation.text for translation in translations]
    found = score(texts, references)
    typer.echo(f"sentences  {found.sentences:,} ({seconds:.1f} s)")
    typer.echo(f"BLEU       {found.bleu:.2f}   {found.bleu_signature}")
    typer.echo(f"chrF       {found.chrf:.2f}   {found.chrf_signature}")
    cut = sum(not translation.complete for translation in translations)
    if cut:
        typer.echo(f"{cut} translations reached their length limit and are cut there", err=True)
    if out is not None:
        from sublayer.files import write_text

        rows = [
            {"source": s, "references": r, "translation": t} for s, r, t in zip(sources, references, texts, strict=True)
        ]
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _held_out(path: Path) -> tuple[list[str], list[list[str]]]:
    from sublayer.errors import DataError

    remedy = 'Give --data a file of JSON lines {"source": …, "references": [ … ]}.'
    if not path.is_file():
        raise DataError(f"there is no {path}", remedy)
    sources: list[str] = []
    references: list[list[str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
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
