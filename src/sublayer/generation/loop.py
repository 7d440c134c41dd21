"""The decoding loop of greedy search and sampling: feed tokens, choose the next, drop finished sentences.

It is a generator that yields the tokens of every step, so that a text can be streamed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from sublayer.generation.batch import Batch
from sublayer.generation.request import DecodeRequest, nothing_left
from sublayer.generation.window import window_start

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.generation.constraints import Constraint
    from sublayer.models.backend import DecoderBackend, S

Ending: TypeAlias = Literal["end", "stop", "length"]
"""Why a text ended: an end token, the caller's word (a stop string), or its limit."""


class Choice(Protocol):
    """How a token is chosen: logits [R, V], the numbers of their rows and of the step -> tokens [R]."""

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """One new token of each row that was running, in lists of equal length.

    rows: which; row b * samples + s is sample s of sentence b. tokens: end tokens included.
    log_probabilities: natural logs, of the model's distribution before constraints and sampling changed it; zeros
    unless asked for. endings: why a row ended with this token, or None where it goes on.
    """

    rows: list[int]
    tokens: list[int]
    log_probabilities: list[float]
    endings: list[Ending | None]

    def add(self, row: int, token: int, log_probability: float, ending: Ending | None) -> None:
        self.rows.append(row)
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        self.endings.append(ending)

    @property
    def ended(self) -> list[int]:
        """The rows that ended with this token."""
        return [row for row, ending in zip(self.rows, self.endings, strict=True) if ending is not None]


def most_probable(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
    """Greedy choice."""
    from sublayer.generation.top import top

    return top(logits, 1)[1].squeeze(1)


def decode(
    model: DecoderBackend[S],
    source: Tensor,
    source_lengths: Tensor | None,
    request: DecodeRequest,
    choose: Choice,
    *,
    samples: int = 1,
    constraints: Sequence[Constraint] = (),
    scored: bool = True,
    stopped: Callable[[int, int], bool] | None = None,
    context: int | None = None,
) -> Iterator[Step]:
    """Decode until every row has ended, a step at a time. Sentences whose rows have all ended leave the batch.

    Shape: source [B, S] int64, source_lengths [B].

    Args:
        samples: rows a sentence. scored: give log-probabilities. stopped: told each row's new token unless it is an
            end token; says whether the row ends with it. context: tokens that the model reads at once; texts that
            grow longer go on from their end (`window_start`), and must begin with prompts of one length. Left out:
            all of each text fits.

    Raises:
        InputError: the constraints leave a row no token, or the logits are not finite.
    """
    from sublayer.generation.model_batch import ModelBatch

    batch = ModelBatch(
        model, source, source_lengths, request,
        num_beams=samples, constraints=constraints, choice=choose, scored=scored,
    )  # fmt: skip
    yield from steps(batch, request, samples=samples, stopped=stopped, context=context)


def steps(
    batch: Batch,
    request: DecodeRequest,
    *,
    samples: int = 1,
    stopped: Callable[[int, int], bool] | None = None,
    context: int | None = None,
) -> Iterator[Step]:
    """Decode a batch that has begun with `samples` rows a sentence; as `decode`."""
    width = samples  # rows that a sentence of the batch has
    begun = 0  # where in the texts the batch begins
    texts = [list(one) for one in request.prompts for _ in range(samples)] if context is not None else []
    rows = list(range(len(request.first) * samples))
    running = set(rows)
    feed = [first for first in request.first for _ in range(samples)]
    for number in count():
        if context is not None:
            start = window_start(len(texts[rows[0]]), context)
            if start > begun:
                # What was one prompt's samples are texts of their own by now.
                batch.restart([texts[row][start:-1] for row in rows], max(request.steps) - number)
                begun, width = start, 1
        picked, gained, allowed = batch.choose(feed, rows, number)
        if any(map(math.isnan, gained)):
            batch.refuse(number)
        step = Step([], [], [], [])
        for place, row in enumerate(rows):
            if row in running:
                if not allowed[place]:
                    raise nothing_left()
                ending = _ending(picked[place], row, number, request, samples, stopped)
                step.add(row, picked[place], gained[place], ending)
        running.difference_update(step.ended)
        yield step
        if not running:
            return
        feed = picked
        if context is not None:
            for row, token in zip(rows, picked, strict=True):
                texts[row].append(token)
        staying = [one for one in range(len(rows) // width) if running.intersection(_rows_of(one, rows, width))]
        if len(staying) * width < len(rows):
            batch.keep(staying)
            places = [one * width + each for one in staying for each in range(width)]
            feed, rows = [feed[place] for place in places], [rows[place] for place in places]


def _rows_of(sentence: int, rows: list[int], width: int) -> list[int]:
    """The rows of a sentence of the state."""
    return rows[sentence * width : (sentence + 1) * width]


def _ending(
    token: int,
    row: int,
    number: int,
    request: DecodeRequest,
    samples: int,
    stopped: Callable[[int, int], bool] | None,
) -> Ending | None:
    """Why a row ends with its token of step `number`; None where it goes on."""
    if token in request.end_ids:
        return "end"
    if stopped is not None and stopped(row, token):
        return "stop"
    return "length" if number + 1 >= request.steps[row // samples] else None
