"""Texts of a language model for one request: what is asked becomes jobs of the scheduler, what happens becomes text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from sublayer import config
from sublayer.generation.beam import BeamSearch, BeamText
from sublayer.generation.constraints import Constraint, LogitBias, OccurrencePenalty
from sublayer.generation.generator import Generator
from sublayer.generation.loop import Choosing, Chosen, most_probable
from sublayer.generation.partial_completion import PartialCompletion
from sublayer.generation.plan import Asked as Settings
from sublayer.generation.plan import Plan
from sublayer.generation.randomness import stream
from sublayer.generation.sampling import Sampler
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, Asked
from sublayer.serving.scheduler import Scheduler
from sublayer.serving.served import ServedModel
from sublayer.serving.tickets import Finished, Grown, Job, Score, Scored, Ticket, shared

GREEDY = 1e-4
"""Below this temperature the most probable token is taken: nothing else would come, and logits over it overflow."""
Stop = Annotated[str, Field(min_length=1, max_length=LIMITS.stop_characters)]


class StreamOptions(Asked):
    """include_usage: a last event says how many tokens there were. include_obfuscation: taken, and nothing is added."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Options(Asked):
    """What completions and chat have in common: OpenAI's fields, and those that OpenAI lacks (top_k, min_p,
    repetition_penalty, num_beams).

    Without temperature, top_p, top_k, min_p and num_beams the text is searched for as the model's folder says. user,
    metadata, store, service_tier: taken, and nothing is done with them.
    """

    model: Annotated[str, Field(max_length=300)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=2**24)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**24)] | None = None
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=64)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    n: Annotated[int, Field(ge=1, le=LIMITS.n)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=LIMITS.stop)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100.0, le=100.0)]],
            Field(max_length=1000),
        ]
        | None
    ) = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=100)] | None = None

    @property
    def answers(self) -> int:
        return self.n or 1

    def search(self, own: config.Search) -> config.Search | None:
        """The search that is asked for; None where it is the model's own."""
        if self.num_beams is not None and self.num_beams > 1:
            given = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "min_p")}
            asked = next((name for name, value in given.items() if value is not None), None)
            if asked is not None:
                raise Refusal(f"{asked} goes with sampling, not with num_beams", "Leave one of them out.", field=asked)
            return (
                own.model_copy(update={"size": self.num_beams})
                if isinstance(own, config.Beam)
                else config.Beam(size=self.num_beams)
            )
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": None if self.top_p is None else max(self.top_p, 1e-9),
            "top_k": self.top_k or None,
            "min_p": self.min_p,
        }
        told = {name: value for name, value in given.items() if value is not None}
        if self.temperature is not None and self.temperature < GREEDY:
            return config.Greedy()
        if not told:
            return config.Greedy() if self.num_beams == 1 and isinstance(own, config.Beam) else None
        return (own if isinstance(own, config.Sampling) else config.Sampling()).model_copy(update=told)

    def constraints(self, vocabulary: int) -> tuple[Constraint, ...]:
        """What OpenAI's fields change of the scores."""
        found: list[Constraint] = []
        if self.logit_bias:
            biases = {int(token): bias for token, bias in self.logit_bias.items()}
            unknown = next((token for token in biases if token >= vocabulary), None)
            if unknown is not None:
                raise Refusal(
                    f"logit_bias names token {unknown}, but the vocabulary is 0 to {vocabulary - 1}", field="logit_bias"
                )
            found.append(LogitBias(tuple(sorted(biases.items()))))
        if self.frequency_penalty or self.presence_penalty:
            found.append(OccurrencePenalty(self.frequency_penalty or 0.0, self.presence_penalty or 0.0))
        return tuple(found)


class Answer:
    """One text that is being made.

    index: its place in the reply. chosen: its tokens, an end token included. finish: OpenAI's word for why it ended.
    """

    def __init__(self, index: int, prompt: Sequence[int], text: PartialCompletion) -> None:
        self.index, self.prompt, self.text = index, prompt, text
        self.chosen: list[Chosen] = []
        self.scores: list[Score] = []
        self.finish: Literal["stop", "length"] | None = None
        self._shown = 0

    def take(self, chosen: Chosen) -> None:
        """In the event loop; the model's thread has taken the token's characters already."""
        self.chosen.append(chosen)
        if chosen.ending is not None:
            self.text.finish(chosen.ending)
            self.finish = "length" if self.text.ended == "length" else "stop"

    def piece(self) -> str:
        """What is new of the text."""
        text = self.text.text
        new, self._shown = text[self._shown :], len(text)
        return new

    @property
    def said(self) -> list[Chosen]:
        """Its tokens without the end token."""
        return [chosen for chosen in self.chosen if chosen.ending != "end"]


class Writing:
    """The answers to a request, by a language model.

    Args:
        prompts: as token ids; each gets `options.answers` answers, in this order. usual: new tokens where the request
            does not say; None: what the model's folder says. best: alternatives to tell for each token; None for no
            log-probabilities. scored: also those of the prompt.

    Raises:
        Refusal, InputError, ConfigError: it cannot be asked for.
    """

    def __init__(
        self,
        served: ServedModel,
        prompts: Sequence[list[int]],
        options: Options,
        seconds: float,
        *,
        max_tokens: int | None,
        usual: int | None = None,
        best: int | None = None,
        scored: bool = False,
    ) -> None:
        assert isinstance(served.loaded, Generator)
        assert isinstance(served.runs, Scheduler)
        self.served, self.generator = served, served.loaded
        self.answers: list[Answer] = []
        self._runs = served.runs
        n, own = options.answers, self.generator.decoding
        if len(prompts) * n > LIMITS.texts:
            raise Refusal(
                f"{len(prompts)} prompts with {n} answers each", f"{LIMITS.texts} texts are the most.", field="n"
            )
        settings = Settings(
            search=options.search(own.search),
            constraints=None
            if options.repetition_penalty is None
            else own.constraints.model_copy(update={"repetition_penalty": options.repetition_penalty}),
            max_tokens=max_tokens or None,
            stop=[options.stop] if isinstance(options.stop, str) else options.stop,
            n=1,
            seed=None if options.seed is None else options.seed % 2**63,
            log_probabilities=best is not None,
            speculation=None,
            first=0,
        )
        model = self.generator.model.config
        plan = Plan.of(settings, own, model, self.generator.tokenizer.end_id, context_shift=False)
        search = _search(plan, plan.constraints + options.constraints(model.vocab_size), n, best)
        self._by_job: dict[Job, list[Answer]] = {}
        for number, ids in enumerate(prompts):
            limit = plan.room(ids, number + 1)
            if max_tokens is None and usual is not None:
                limit = min(limit, usual)
            if max_tokens == 0:
                limit = 0
            self._add(number, ids, plan, search, limit, n, best if scored else None)
        self.ticket = Ticket(list(self._by_job), seconds)

    def _add(
        self,
        number: int,
        ids: list[int],
        plan: Plan,
        search: Choosing | BeamSearch,
        limit: int,
        n: int,
        scored: int | None,
    ) -> None:
        tokenizer = self.generator.tokenizer
        texts = [PartialCompletion(tokenizer, ids, plan.c.stop, at_once=True) for _ in range(n)]
        job = Job(
            ids,
            search,
            limit,
            plan.end_ids,
            streams=(0,) if isinstance(search, BeamSearch) else tuple(stream(plan.seed, number, s) for s in range(n)),
            stopped=lambda sample, token: texts[sample].append(token),
            scored=scored,
        )
        self._by_job[job] = [Answer(len(self.answers) + sample, ids, text) for sample, text in enumerate(texts)]
        self.answers += self._by_job[job]

    async def growing(self) -> AsyncIterator[tuple[Answer, Chosen | None]]:
        """Let it run: an answer and its new token, or None where it is there at once (a beam's; one of no tokens)."""
        self._runs.submit(self.ticket)
        async for event in self.ticket.events():
            match event:
                case Grown(job, number, chosen):
                    answer = self._by_job[job][number]
                    answer.take(chosen)
                    yield answer, chosen
                case Scored(job, scores):
                    for answer in self._by_job[job]:
                        answer.scores = scores
                case Finished(job):
                    for answer in self._by_job[job]:
                        if answer.finish is None:
                            self._at_once(job, answer)
                            yield answer, None
                case _:
                    pass

    async def finish(self) -> None:
        """Let it run to its end."""
        async for _ in self.growing():
            pass

    def _at_once(self, job: Job, answer: Answer) -> None:
        if job.limit == 0:
            answer.finish = "length"
            return
        found = job.texts[0]
        assert isinstance(found, BeamText)
        hypotheses = found.ranked()
        # Beam search in a tiny vocabulary may find fewer than were asked for.
        best = hypotheses[min(self._by_job[job].index(answer), len(hypotheses) - 1)]
        # Beam search knows no stop strings: what it found is cut.
        cut = next((n for n, token in enumerate(best.tokens, start=1) if answer.text.append(token)), None)
        tokens, gains = best.tokens[:cut], best.log_probabilities[:cut]
        answer.chosen = [Chosen(*pair, None) for pair in zip(tokens, gains, strict=False)]
        if cut is None and best.complete:
            answer.chosen.append(Chosen(self.generator.tokenizer.end_id, best.log_probabilities[-1], "end"))
        answer.text.finish("stop" if cut else "end" if best.complete else "length")
        answer.finish = "length" if answer.text.ended == "length" else "stop"

    @property
    def usage(self) -> dict[str, int]:
        """OpenAI's count of tokens."""
        prompt = sum(len(job.prompt) for job in self._by_job)
        made = sum(len(answer.chosen) for answer in self.answers)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _search(plan: Plan, constraints: tuple[Constraint, ...], n: int, best: int | None) -> Choosing | BeamSearch:
    match plan.c.search:
        case config.Beam() as beam:
            if n > beam.size:
                raise Refusal(f"n = {n} with {beam.size} beams", "Ask for as many answers as beams at most.", field="n")
            return shared(BeamSearch(beam.size, beam.length_penalty, plan.end_ids, beam.early_stopping, constraints))
        case config.Sampling() as sampling:
            return shared(Choosing(Sampler(sampling), constraints, best is not None, best or 0))
        case config.Greedy():
            return shared(Choosing(most_probable, constraints, best is not None, best or 0))
