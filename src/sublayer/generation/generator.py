"""Text generation: a decoder-only model with its tokenizer.

Prompts are sorted by length and batched internally. Results come back in the order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast

from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.beam import BeamSearch, best_texts
from sublayer.generation.completion import Completion, Generated, Prompt, Stream
from sublayer.generation.decoding_model import DecodingModel, Deferred
from sublayer.generation.engine_steps import EngineSteps
from sublayer.generation.finite import NotFinite, refuse
from sublayer.generation.loop import Choice, Step, decode, most_probable
from sublayer.generation.partial_completion import PartialCompletion
from sublayer.generation.plan import Asked, Plan, S, Speculation
from sublayer.generation.randomness import Uniforms, stream
from sublayer.generation.request import DecodeRequest
from sublayer.text import Tokenizer
from sublayer.text.batching import by_length

if TYPE_CHECKING:
    from sublayer.generation.batch import Steps
    from sublayer.generation.model_steps import ModelSteps
    from sublayer.generation.speculative import Drafter
    from sublayer.models.backend import DecoderBackend, LanguageModel


class ChatTokenizer(Protocol):
    """A tokenizer that knows how a conversation is written."""

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]: ...


class Generator(DecodingModel["LanguageModel[S]"], Generic[S]):
    """A decoder-only model and its tokenizer.

    decoding: default settings of `generate`.
    backend: the backend that decodes; default: the fastest that there is for the model (`fast/decoding/`).
    context_shift: whether a text may outgrow the model's context, by dropping its beginning.
    """

    def __init__(
        self,
        model: LanguageModel[S] | Deferred[LanguageModel[S]],
        tokenizer: Tokenizer,
        decoding: config.Generation,
        *,
        backend: DecoderBackend[S] | None = None,
        context_shift: bool = True,
    ) -> None:
        super().__init__(model, tokenizer, backend)
        self.decoding = decoding
        self._context_shift = context_shift

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        search: config.Search | None = None,
        constraints: config.Constraints | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        n: int = 1,
        seed: int | None = None,
        log_probabilities: bool = False,
        speculation: Speculation[Any] | None = None,
        first: int = 0,
        batch_tokens: int = 8000,
        progress: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Continue each prompt, and return the results in order.

        Args:
            prompts: texts, or lists of token ids.
            search, constraints, max_tokens, stop: as in `config.Generation`; default: the model's own. With greedy
                search and sampling `max_tokens` may exceed the model's context: whenever the context is full, its older
                half is dropped and the rest is encoded again (`window_start`). The default never does that.
            n: number of texts for each prompt; needs sampling or beam search.
            seed: sample s of prompt i depends on (seed, first + i, s) and the prompt only, not on the batch; default:
                a random one.
            first: index of the first prompt, if the list continues an earlier one.
            batch_tokens: budget of a batch, rows (or beams) * (longest prompt + new tokens).
            progress: called with the number of prompts that were just finished.

        Raises:
            InputError: a prompt is empty and the model has no start token; a prompt is longer than the context, or
                prompt and `max_tokens` together are, in beam search or with speculation; `n` or `speculation` does not
                fit the search.
            ConfigError: a value is out of range.
        """
        if isinstance(prompts, str):
            raise InputError(f"prompts = {prompts!r} is one string", "Give a list: generate([prompt]).")
        asked = Asked(search, constraints, max_tokens, stop, n, seed, log_probabilities, speculation, first)
        plan = self._plan(asked)
        sources = [self.encode(prompt, first + row + 1) for row, prompt in enumerate(prompts)]
        steps = [plan.room(ids, first + row + 1) for row, ids in enumerate(sources)]
        plan.require_draft_room(max(map(sum, zip(map(len, sources), steps, strict=True)), default=0))
        texts = [[PartialCompletion(self.tokenizer, ids, plan.c.stop) for _ in range(n)] for ids in sources]
        width = plan.c.search.size if isinstance(plan.c.search, config.Beam) else n
        context = self.max_length
        taken = [width * min(len(ids) + new, context) for ids, new in zip(sources, steps, strict=True)]
        batches = by_length(taken, batch_tokens)
        for rows in chain.from_iterable(self._alike(rows, sources, steps) for rows in batches):
            several = [sources[row] for row in rows], [steps[row] for row in rows], [texts[row] for row in rows]
            for _ in self._generate(*several, rows, plan):
                pass
            if progress is not None:
                progress(len(rows))
        return [
            # Beam search in a tiny vocabulary may find fewer than n.
            Generated(prompt, ids, [Completion.of(text, log_probabilities) for text in some if text.ended is not None])
            for prompt, ids, some in zip(prompts, sources, texts, strict=True)
        ]

    def stream(
        self,
        prompt: Prompt,
        *,
        search: config.Search | None = None,
        constraints: config.Constraints | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        log_probabilities: bool = False,
        speculation: Speculation[Any] | None = None,
        first: int = 0,
    ) -> Stream:
        """Continue one prompt, and yield the text in pieces while it is generated (with beam search: at the end).

        The pieces joined are the text that `generate` returns for the same arguments.

        Raises:
            InputError, ConfigError: as `generate`, at once.
        """
        asked = Asked(search, constraints, max_tokens, stop, 1, seed, log_probabilities, speculation, first)
        plan = self._plan(asked)
        ids = self.encode(prompt, first + 1)
        new = plan.room(ids, first + 1)
        plan.require_draft_room(len(ids) + new)
        text = PartialCompletion(self.tokenizer, ids, plan.c.stop, at_once=True)
        return Stream(self._generate([ids], [new], [[text]], [0], plan), text, log_probabilities)

    def with_prefix_cache(self) -> Generator[S]:
        """Return a generator for one chat, which caches the last text: only the new part of the next prompt is encoded.

        A recurrent model encodes every prompt whole, because its state cannot be shortened. The chat must fit into the
        model's context.
        """
        from sublayer.generation.prefix_cache import PrefixCache
        from sublayer.models import DecoderOnly

        attends = isinstance(self.model, DecoderOnly)
        backend = PrefixCache(self.backend) if attends else self.backend
        return Generator(self.model, self.tokenizer, self.decoding, backend=backend, context_shift=False)

    def encode(self, prompt: Prompt, number: int = 1) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the tokenizer's template adds.

        Args:
            number: the prompt's number in error messages.

        Raises:
            InputError: the prompt has no token, or one that is not in the vocabulary.
        """
        if isinstance(prompt, str):
            [ids] = self.tokenizer.encode_with_special_tokens([prompt])
            start = self.tokenizer.specials.start
            if not ids and start is not None:
                ids = [start]
        else:
            ids = list(prompt)
            size = self.vocab_size
            for token in ids:
                if not 0 <= token < size:
                    raise InputError(
                        f"prompt {number} holds token {token}, but the vocabulary is 0 to {size - 1}",
                        "Encode the text with this model's tokenizer.",
                    )
        if not ids:
            raise InputError(
                f"prompt {number} is empty, and this model has no token that a text starts with",
                "Give it at least one word to go on from.",
            )
        return ids

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the token ids of a chat, up to where the model's next answer begins, by the model's chat template.

        Args:
            messages: turns, each with a "role" ("system", "user", "assistant") and a "content".

        Raises:
            InputError: the model has no chat template, or the template rejects the messages.
        """
        return cast("ChatTokenizer", self.tokenizer).encode_chat(messages)

    def _plan(self, asked: Asked) -> Plan:
        return Plan.of(asked, self.decoding, self, self.tokenizer.end_id, context_shift=self._context_shift)

    def _alike(self, rows: list[int], sources: list[list[int]], steps: list[int]) -> list[list[int]]:
        """A batch in parts: texts that outgrow the context move their windows at the same steps, so only those that go
        on from prompts of one length are together. What fills up shorter prompts takes room in the context, too."""
        context = self.max_length
        if max(len(sources[row]) for row in rows) + max(steps[row] for row in rows) > context:
            alike: dict[int, list[int]] = {}
            for row in rows:
                alike.setdefault(len(sources[row]), []).append(row)
            return list(alike.values())
        return [rows]

    def _generate(
        self,
        prompts: list[list[int]],
        steps: list[int],
        texts: list[list[PartialCompletion]],
        rows: list[int],
        plan: Plan,
    ) -> Iterator[None]:
        """Make the texts of one batch, whichever way they are searched; comes back whenever some have grown.

        Args:
            rows: the places of the prompts in the list that was given.
        """
        request = DecodeRequest([ids[-1] for ids in prompts], plan.end_ids, steps, [ids[:-1] for ids in prompts])
        alone = self._alone
        try:
            if alone is not None and plan.asked.speculation is None:
                yield from self._searched(EngineSteps(alone), request, texts, rows, plan)
            else:
                import torch

                # As a decorator, so that the mode is off while the caller has what was yielded.
                searched = torch.inference_mode()(self._searched)
                yield from searched(self._model_steps(), request, texts, rows, plan)
        except NotFinite as error:
            # The modules tell where it is that numbers are not finite.
            refuse(self.backend, *self._model_steps().padded(request.before), request, error.step)

    def _model_steps(self) -> ModelSteps[S]:
        from sublayer.generation.model_steps import ModelSteps

        return ModelSteps(self.backend, self.model.device)

    def _searched(
        self,
        steps: Steps[Any],
        request: DecodeRequest,
        texts: list[list[PartialCompletion]],
        rows: list[int],
        plan: Plan,
    ) -> Iterator[None]:
        search, asked = plan.c.search, plan.asked
        if isinstance(search, config.Beam):
            self._beams(steps, request, search, plan, texts)
            yield
            return
        flat = [text for some in texts for text in some]
        streams = [stream(plan.seed, asked.first + row, sample) for row in rows for sample in range(asked.n)]
        if asked.speculation is not None:
            for row, (text, random_stream) in enumerate(zip(flat, streams, strict=True)):
                for step in self._speculated(request.of(row // asked.n), random_stream, plan, asked.speculation, text):
                    _take(step, [text])
                    yield
            return
        choose: Choice = most_probable
        if isinstance(search, config.Sampling):
            from sublayer.generation.sampling import Sampler

            choose = Sampler(search)
        context, longest = self.max_length, max(map(sum, zip(map(len, request.prompts), request.steps, strict=True)))
        for step in decode(
            steps,
            steps.start(request.before, num_beams=asked.n, capacity=max(request.steps)),
            request,
            choose,
            samples=asked.n,
            streams=streams,
            constraints=plan.constraints,
            scored=asked.log_probabilities,
            stopped=lambda row, token: flat[row].append(token),
            context=context if longest > context else None,
        ):
            _take(step, flat)
            yield

    def _speculated(
        self,
        request: DecodeRequest,
        random_stream: int,
        plan: Plan,
        speculation: Speculation[Any],
        text: PartialCompletion,
    ) -> Iterator[Step]:
        from sublayer.generation.speculative import DraftModel, PromptLookup, speculate

        source, _ = self._model_steps().padded(request.before)
        sampling = plan.c.search if isinstance(plan.c.search, config.Sampling) else None
        drafter: Drafter
        if isinstance(speculation.draft, PromptLookup):
            drafter = speculation.draft
        else:
            draft_uniforms = Uniforms(stream(random_stream, 1))
            drafter = DraftModel(speculation.draft, source, request, sampling=sampling, uniforms=draft_uniforms)
        return speculate(
            self.backend,
            source,
            request,
            drafter,
            guesses=speculation.guesses,
            sampling=sampling,
            uniforms=Uniforms(stream(random_stream, 0)),
            constraints=plan.constraints,
            scored=plan.asked.log_probabilities,
            stopped=lambda _, token: text.append(token),
        )

    def _beams(
        self,
        steps: Steps[Any],
        request: DecodeRequest,
        c: config.Beam,
        plan: Plan,
        texts: list[list[PartialCompletion]],
    ) -> None:
        search = BeamSearch(c.size, c.length_penalty, request.end_ids, c.early_stopping, plan.constraints)
        state = steps.start(request.before, num_beams=c.size, capacity=max(request.steps))
        found = best_texts(steps, state, search, request)
        for some, hypotheses in zip(texts, found, strict=True):
            for text, hypothesis in zip(some, hypotheses, strict=False):
                # Beam search knows no stop strings: what it found is cut.
                cut = next((n for n, token in enumerate(hypothesis.tokens, start=1) if text.append(token)), None)
                text.log_probabilities += hypothesis.log_probabilities[:cut]
                text.finish("stop" if cut else "end" if hypothesis.complete else "length")


def _take(step: Step, texts: Sequence[PartialCompletion]) -> None:
    """Note what a step has added to each text; `stopped` has taken its token already, unless it was an end token."""
    for row, chosen in step.items():
        texts[row].log_probabilities.append(chosen.log_probability)
        if chosen.ending is not None:
            texts[row].finish(chosen.ending)
