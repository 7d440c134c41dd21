"""Texts as a model of any shape reads them, and what it is asked to say of them.

Whoever looks into a model asks it the same thing, whatever its shape: read these texts, and say how likely the right
answer was. What is read and what is right stand in an `Example`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import IGNORE
from sublayer.errors import InputError
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.models.batching import padded
from sublayer.text import PairAffixes, Tokenizer
from sublayer.text.batching import by_length
from sublayer.text.tokens import Tokens


@dataclass(frozen=True)
class Example:
    """One text, or a text and its translation.

    tokens: S ids that the encoder, or a decoder alone, reads, markers included. token_type_ids: their kinds, or none.
    fed: T ids that a decoder beside an encoder is fed, the start marker first; none in other shapes.
    wanted: the id (or, of a tagger, the label) to be said at each place of `fed`, or of `tokens` where nothing is fed;
    `IGNORE` where nothing is asked. label: of the whole text, for a classifier.
    """

    tokens: tuple[int, ...]
    token_type_ids: tuple[int, ...] = ()
    fed: tuple[int, ...] = ()
    wanted: tuple[int, ...] = ()
    label: int | None = None

    @property
    def targets(self) -> int:
        """How many things are asked of it."""
        return sum(one != IGNORE for one in self.wanted) if self.label is None else 1


# --- making them -------------------------------------------------------------------------------------------------


def of_texts(
    model: DecoderOnly | EncoderOnly, tokenizer: Tokenizer, texts: Sequence[str], *, most: int | None = None
) -> list[Example]:
    """Texts for a model of one stack. A language model is asked for each next token, an encoder for nothing yet.

    Args:
        most: read so many tokens of a text at most, and never more than the model has positions; unset, a text that is
            longer than these is refused.

    Raises:
        InputError: a text is empty, or longer than the model's positions; it is named by its number, from 1.
    """
    longest = model.config.max_length
    found: list[Example] = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(f"text {number} is empty", "Leave it out, or give it words.")
        if isinstance(model, EncoderOnly):
            [tokens] = tokenizer.tokens([text])
            tokens = tokens if most is None else tokens.cut(min(most, longest))
            found.append(of_tokens(model, tokens, f"text {number}"))
            continue
        [ids] = tokenizer.encode_with_special_tokens([text])
        ids = ids if most is None else ids[: min(most, longest)]
        _require_length(f"text {number}", len(ids), longest)
        found.append(Example(tuple(ids), wanted=(*ids[1:], IGNORE)))
    return found


def of_tokens(model: EncoderOnly, tokens: Tokens, name: str) -> Example:
    """A text for an encoder, which is asked for nothing yet.

    Raises:
        InputError: it is longer than the model's positions; says its name.
    """
    _require_length(name, len(tokens), model.config.max_length)
    return Example(tuple(tokens.ids), tuple(tokens.token_type_ids) if model.config.embedding.token_types else ())


def of_pairs(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    affixes: PairAffixes,
    pairs: Sequence[tuple[str, str]],
    *,
    most: int | None = None,
) -> list[Example]:
    """Sources with translations; the decoder is asked for each next token of the translation, the end included.

    Args:
        affixes: those of both, as `Translator.affixes` has them. most: leave out pairs that are empty, or have more
            tokens on a side than this or than the model has positions; unset, such pairs are refused.

    Raises:
        InputError: a source is empty, or a side longer than the model's positions; the pair is named by its number,
            from 1.
    """
    sources, targets = (tokenizer.encode([pair[side] for pair in pairs]) for side in (0, 1))
    kept = [row for row, source in enumerate(sources) if source or most is None]
    for number, row in enumerate(kept, start=1):
        if not sources[row]:
            raise InputError(f"the source of pair {number} is empty", "Leave the pair out, or give it words.")
    read = [affixes.source.added_to(sources[row]) for row in kept]
    return of_pair_ids(model, affixes, read, [[*affixes.forced, *targets[row]] for row in kept], most=most)


def of_pair_ids(
    model: EncoderDecoder,
    affixes: PairAffixes,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    most: int | None = None,
) -> list[Example]:
    """As `of_pairs`, from what the encoder reads, affixes included, and what the decoder says but for the end token."""
    longest = model.config.max_length
    found: list[Example] = []
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), start=1):
        size = max(len(source), 1 + len(target))
        if most is not None and size > min(most, longest):
            continue
        _require_length(f"pair {number}", size, longest)
        found.append(Example(tuple(source), fed=(affixes.start, *target), wanted=(*target, affixes.end)))
    return found


def hidden_behind_masks(
    examples: Sequence[Example], tokenizer: Tokenizer, *, share: float = 0.15, seed: int = 0
) -> list[Example]:
    """The same texts with a share of their tokens behind masks, which a masked-language head is asked for.

    At least one token of each text; markers never. Every one becomes a mask: the random and unchanged tokens of BERT's
    training are there for training's sake.
    """
    draw = random.Random(seed)
    found: list[Example] = []
    for example in examples:
        own = [place for place, token in enumerate(example.tokens) if token not in tokenizer.special_ids]
        hidden = set(draw.sample(own, min(len(own), max(1, round(share * len(own))))))
        tokens = tuple(tokenizer.mask_id if at in hidden else token for at, token in enumerate(example.tokens))
        wanted = tuple(token if at in hidden else IGNORE for at, token in enumerate(example.tokens))
        found.append(replace(example, tokens=tokens, wanted=wanted))
    return found


def with_labels(model: EncoderOnly, examples: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """The same texts, which a classifier is asked the labels of.

    Raises:
        InputError: the model's head has no such label, or no labels at all.
    """
    head = model.config.head
    if not isinstance(head, config.Classification):
        raise InputError(f"this model's head is '{head.type}', which gives a text no label", "Leave the labels out.")
    for label in labels:
        if label not in head.labels:
            raise InputError(f"the model knows no label '{label}'", f"Its labels are {', '.join(head.labels)}.")
    return [replace(example, label=head.labels.index(label)) for example, label in zip(examples, labels, strict=True)]


def of_tagged(
    model: EncoderOnly,
    tokenizer: Tokenizer,
    sentences: Sequence[tuple[Sequence[str], Sequence[str]]],
    *,
    most: int | None = None,
) -> list[Example]:
    """Words with their tags, which a tagger is asked for at the first token of each word.

    Args:
        most: read so many tokens of a sentence at most, as in `of_texts`.

    Raises:
        InputError: the head is no tagger's, does not know a tag, or a sentence is longer than the positions.
    """
    head = model.config.head
    if not isinstance(head, config.Tagging):
        raise InputError(f"this model's head is '{head.type}', which tags no words", "Leave the tags out.")
    found: list[Example] = []
    for number, (words, tags) in enumerate(sentences, start=1):
        for tag in tags:
            if tag not in head.labels:
                raise InputError(f"the model knows no tag '{tag}'", f"Its tags are {', '.join(head.labels)}.")
        [tokens] = tokenizer.encode_words([words])
        tokens = tokens if most is None else tokens.cut(min(most, model.config.max_length))
        example = of_tokens(model, tokens, f"sentence {number}")
        wanted = [IGNORE] * len(tokens)
        for word, place in tokens.firsts.items():
            wanted[place] = head.labels.index(tags[word])
        found.append(replace(example, wanted=tuple(wanted)))
    return found


def _require_length(name: str, size: int, longest: int) -> None:
    if size > longest:
        raise InputError(
            f"{name} has {size} tokens, but this model's positions end at {longest}", "Shorten it or split it."
        )
    if not size:
        raise InputError(f"{name} has no token", "Leave it out, or give it words.")


# --- asking a model ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ExampleBatch:
    """Examples as the tensors that a model is given: `rows` are their places in the list.

    Shape: tokens and token_type_ids [B, S], lengths [B], fed [B, T], int64; lengths is None where all are full.
    """

    rows: list[int]
    tokens: Tensor
    lengths: Tensor | None
    token_type_ids: Tensor | None
    fed: Tensor | None

    def hidden(self, model: Model) -> Tensor:
        """What the last stack gives, as the model's projection or head reads it. Shape: [B, T or S, D]."""
        match model:
            case EncoderDecoder():
                assert self.fed is not None, "an encoder-decoder is given pairs"
                return model.hidden(self.tokens, self.lengths, self.fed)
            case DecoderOnly():
                return model.hidden(self.tokens)
            case EncoderOnly():
                return model.hidden(self.tokens, self.lengths, self.token_type_ids)


def batch_of(model: Model, examples: Sequence[Example], rows: Sequence[int]) -> ExampleBatch:
    """Some of the examples, padded at the right. What pads is masked or unread: any id does."""
    device, some = model.device, [examples[row] for row in rows]
    tokens, lengths = padded([one.tokens for one in some], 0, device)
    token_type_ids = padded([one.token_type_ids for one in some], 0, device)[0] if some[0].token_type_ids else None
    fed = padded([one.fed for one in some], 0, device)[0] if some[0].fed else None
    return ExampleBatch(list(rows), tokens, lengths, token_type_ids, fed)


def batches(model: Model, examples: Sequence[Example], tokens: int = 1024) -> Iterator[ExampleBatch]:
    """All examples, those of like length together, so many tokens (padding included) at a time."""
    for rows in by_length([len(one.tokens) + len(one.fed) for one in examples], tokens):
        yield batch_of(model, examples, rows)


@torch.no_grad()
def losses(model: Model, examples: Sequence[Example], *, tokens: int = 1024) -> Tensor:
    """The negative log-likelihood of what is wanted of each example, in nats: cross-entropy without smoothing.

    The model should be in evaluation.

    Shape: -> [N], float64 on the CPU.

    Raises:
        InputError: an example asks for nothing, or the model's head gives no probabilities.
    """
    if isinstance(model, EncoderOnly) and isinstance(model.config.head, config.NoHead | config.SentenceEmbedding):
        raise InputError(
            f"a model whose head is '{model.config.head.type}' gives no probabilities, so it has no loss on a text",
            "Look at its attention, or give it a head.",
        )
    for number, example in enumerate(examples, start=1):
        if not example.targets:
            raise InputError(f"nothing is asked of text {number}", "Give it more than one token, or a label.")
    found = torch.zeros(len(examples), dtype=torch.float64)
    for some in batches(model, examples, tokens):
        hidden = some.hidden(model)
        if examples[some.rows[0]].label is not None:
            assert isinstance(model, EncoderOnly)
            target = torch.tensor([examples[row].label for row in some.rows], device=model.device)
            nats = F.cross_entropy(wide(model.read(hidden, some.lengths)), target, reduction="none")
            found[some.rows] = nats.double().cpu()
            continue
        wanted = torch.full(hidden.shape[:2], IGNORE)
        for place, row in enumerate(some.rows):
            wanted[place, : len(examples[row].wanted)] = torch.tensor(examples[row].wanted)
        row, at = (wanted != IGNORE).nonzero(as_tuple=True)
        nats = _each(model, hidden[row.to(model.device), at.to(model.device)], wanted[row, at].to(model.device))
        found.index_add_(0, torch.tensor(some.rows)[row], nats.double().cpu())
    return found


def _each(model: Model, hidden: Tensor, wanted: Tensor, piece: int = 256) -> Tensor:
    """Nats of each place, some at a time: a row of logits may be a quarter of a million numbers.

    Shape: hidden [N, D], wanted [N] -> [N].
    """
    found: list[Tensor] = []
    for start in range(0, len(wanted), piece):
        states, ids = hidden[start : start + piece], wanted[start : start + piece]
        found.append(F.cross_entropy(wide(logits_of(model, states.unsqueeze(0)).squeeze(0)), ids, reduction="none"))
    return torch.cat(found)


def logits_of(model: Model, hidden: Tensor) -> Tensor:
    """What a model says at each place of its last stack's output. Shape: [B, S, D] -> [B, S, V], or labels [B, S, C].

    Raises:
        InputError: its head says nothing of a place.
    """
    if not isinstance(model, EncoderOnly):
        return model.project(hidden)
    match model.config.head:
        case config.MaskedLanguage():
            return model.project(model.read(hidden))
        case config.Tagging():
            return model.read(hidden)
        case head:
            raise InputError(f"the head '{head.type}' says nothing of a single token", "Ask another model.")


def wide(x: Tensor) -> Tensor:
    """In float32, or wider where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
