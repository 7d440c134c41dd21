"""Sentences of one request as jobs of the schedulers, and their translations put together again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from sublayer.generation.beam import BeamSearch, BeamText
from sublayer.generation.loop import Choosing, ChosenText, most_probable
from sublayer.generation.translator import Translator
from sublayer.serving.limits import RequestLimits
from sublayer.serving.refusals import Refusal
from sublayer.serving.scheduler import Scheduler
from sublayer.serving.served import ServedModel
from sublayer.serving.tickets import Job, Ticket, shared

MOST_SENTENCES = 1024
"""Of one request."""


class Run(Protocol):
    """A part of a text in sentences; what is kept has none that are translated."""

    @property
    def parts(self) -> list[tuple[str, str]]: ...
    @property
    def kept(self) -> bool: ...
    def written(self, translated: Sequence[str]) -> str: ...


class Translating:
    """The texts of a request.

    Args:
        answers: translations of each text, best first.
    """

    def __init__(self, limits: RequestLimits, answers: int) -> None:
        self._limits, self._answers = limits, answers
        self._texts: list[str | tuple[Translator, list[Run]]] = []
        self._jobs: dict[tuple[int, str], tuple[Job, Translator]] = {}
        self._by_model: dict[ServedModel, list[Job]] = {}
        self._tickets: list[tuple[Scheduler[Any], Ticket]] = []

    def keep(self, text: str) -> None:
        """A text that stays as it is."""
        self._texts.append(text)

    def add(self, runs: Sequence[Run], translator: Translator, served: ServedModel) -> None:
        """A text in parts.

        Raises:
            Refusal: there are too many sentences.
        """
        wanted = [
            sentence
            for run in runs
            if not run.kept
            for sentence, _ in run.parts
            if sentence.strip() and (id(translator), sentence) not in self._jobs
        ]
        for sentence, ids in zip(wanted, translator.encode(wanted) if wanted else [], strict=True):
            if (id(translator), sentence) not in self._jobs:
                job = self._job(translator, ids)
                self._jobs[id(translator), sentence] = job, translator
                self._by_model.setdefault(served, []).append(job)
        if len(self._jobs) > MOST_SENTENCES:
            raise Refusal(
                f"the texts have over {MOST_SENTENCES} sentences", "Send them in several requests.", field="q"
            )
        self._texts.append((translator, list(runs)))

    def _job(self, translator: Translator, ids: list[int]) -> Job:
        c = translator.decoding
        request = translator.request([ids], c)
        beam = max(c.beam, self._answers)
        constraints = translator.constraints(c)
        if beam > 1:
            search = BeamSearch(beam, c.length_penalty, request.end_ids, c.early_stopping, constraints)
        else:
            search = Choosing(most_probable, constraints, scored=False)
        return Job(request.prompts[0], shared(search), request.steps[0], request.end_ids, source=ids)

    def give_up(self) -> None:
        """Nobody waits any more."""
        for _, ticket in self._tickets:
            ticket.give_up()

    async def finish(self) -> list[list[str]]:
        """The translations of each text, as many as were asked for.

        Raises:
            Refusal: as `Scheduler.submit` and `Ticket.events`.
        """
        for served, jobs in self._by_model.items():
            assert isinstance(served.runs, Scheduler)
            ticket = Ticket(jobs, self._limits.seconds)
            try:
                served.runs.submit(ticket)
            except Refusal:
                self.give_up()
                raise
            self._tickets.append((served.runs, ticket))
        try:
            await asyncio.gather(*(_finished(ticket) for _, ticket in self._tickets))
        finally:
            self.give_up()
        said = {key: _texts(job, translator) for key, (job, translator) in self._jobs.items()}
        return [[text] * self._answers if isinstance(text, str) else self._written(*text, said) for text in self._texts]

    def _written(
        self, translator: Translator, runs: Sequence[Run], said: dict[tuple[int, str], list[str]]
    ) -> list[str]:
        def one(sentence: str, place: int) -> str:
            found = said.get((id(translator), sentence))
            return sentence if found is None else found[min(place, len(found) - 1)]

        return [
            "".join(
                run.written([] if run.kept else [one(sentence, place) for sentence, _ in run.parts]) for run in runs
            )
            for place in range(self._answers)
        ]


async def _finished(ticket: Ticket) -> None:
    async for _ in ticket.events():
        pass


def _texts(job: Job, translator: Translator) -> list[str]:
    """The translations of a sentence, best first."""
    text = job.texts[0]
    if isinstance(text, BeamText):
        tokens = [hypothesis.tokens for hypothesis in text.ranked()]
    else:
        assert isinstance(text, ChosenText)
        tokens = [[token for token in text.tokens if token not in text.end_ids]]
    return [found.strip() for found in translator.tokenizer.decode(tokens)]
