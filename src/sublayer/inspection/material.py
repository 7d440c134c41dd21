"""From what a user has to examples: texts, pairs, or the rows that were held out when a model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sublayer import config
from sublayer.data.jsonl import read_objects, text_of
from sublayer.errors import DataError
from sublayer.inspection.examples import Example, of_pairs, of_tagged, of_texts, of_tokens, with_labels
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.reading.filler import MASK, with_masks
from sublayer.text import PairAffixes, Tokenizer

REMEDY = 'Give JSON lines: {"source": …, "target": …}, {"text": …}, {"text": …, "label": …} or {"words": …, "tags": …}.'


def from_file(
    model: Model, tokenizer: Tokenizer, path: Path, *, limit: int, most: int, affixes: PairAffixes | None = None
) -> list[Example]:
    """Rows of a file, as a model of this shape and head reads them; of more than `limit` as many, evenly over the file.

    Pairs have "source" and "target" (or "references", of which the first is read); a text has "text", a text for a
    classifier its "label" too, where it has one; a tagger's sentence "words" and "tags". A text that is longer than
    `most` tokens, or than the model's positions, is read so far; such a pair is left out.

    Args:
        limit: rows. most: tokens of a row. affixes: what stands around the texts of an encoder-decoder, which needs it.

    Raises:
        DataError: the file cannot be read, or lacks a field; names the line. InputError: the model knows no such label.
    """
    rows = _rows(path, limit)
    if not rows:
        raise DataError(f"{path} has no rows", REMEDY)
    found = _examples(model, tokenizer, rows, affixes, most)
    if not found:
        raise DataError(f"{path}: all {len(rows)} rows are empty, or longer than {most} tokens a side", "Give others.")
    return found


def from_texts(model: DecoderOnly | EncoderOnly, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Example]:
    """Texts for a model of one stack; those of a masked-language model may have [MASK] in them."""
    found = of_texts(model, tokenizer, texts)
    if not isinstance(model, EncoderOnly) or not isinstance(model.config.head, config.MaskedLanguage):
        return found
    for number, text in enumerate(texts):
        if MASK in text:
            found[number] = of_tokens(model, with_masks(text, tokenizer), f"text {number + 1}")
    return found


def _rows(path: Path, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """Each row with where it stands; of more than `limit` as many, evenly over the file, which may well be sorted."""
    rows = [(f"{path}, line {number}", row) for number, row in read_objects(path) if row is not None]
    if len(rows) <= limit:
        return rows
    return [rows[place * len(rows) // limit] for place in range(limit)]


def _examples(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[tuple[str, dict[str, Any]]],
    affixes: PairAffixes | None,
    most: int,
) -> list[Example]:
    if isinstance(model, EncoderDecoder):
        assert affixes is not None, "an encoder-decoder's texts have affixes around them"
        return of_pairs(model, tokenizer, affixes, [_pair(row, where) for where, row in rows], most=most)
    head = model.config.head if isinstance(model, EncoderOnly) else None
    if isinstance(model, EncoderOnly) and isinstance(head, config.Tagging) and "words" in rows[0][1]:
        return of_tagged(model, tokenizer, [_tagged(row, where) for where, row in rows], most=most)
    texts = [(text_of(row, "text", where, REMEDY), row) for where, row in rows]
    filled = [(text, row) for text, row in texts if text.strip()]
    found = of_texts(model, tokenizer, [text for text, _ in filled], most=most)
    if isinstance(model, EncoderOnly) and isinstance(head, config.Classification):
        labels = [row.get("label") for _, row in filled]
        if None not in labels:
            return with_labels(model, found, [str(label) for label in labels])
    return found


def _pair(row: dict[str, Any], where: str) -> tuple[str, str]:
    source = text_of(row, "source", where, REMEDY)
    references: Any = row.get("references")
    if "target" in row or not isinstance(references, list) or not references:
        return source, text_of(row, "target", where, REMEDY)
    first = cast("list[Any]", references)[0]
    return source, text_of({"references": first}, "references", where, REMEDY)


def _tagged(row: dict[str, Any], where: str) -> tuple[list[str], list[str]]:
    words, tags = row.get("words"), row.get("tags")
    if not isinstance(words, list) or not isinstance(tags, list):
        raise DataError(f"{where}: words and tags are not both lists", REMEDY)
    found = [str(word) for word in cast("list[Any]", words)], [str(tag) for tag in cast("list[Any]", tags)]
    if len(found[0]) != len(found[1]) or not words:
        raise DataError(f"{where}: {len(found[0])} words with {len(found[1])} tags", "Write a tag for each word.")
    return found
