"""A worker of `engine_speed.py`: one contender, translating the sentences that it is given.

Every contender gets the same batches of ids, in the same order, and gives ids back: tokenization is not measured. What
a contender imports, and which threads it starts, is its own affair: torch is not in the process of CTranslate2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from workers import Message, serve

Ids = list[int]


class Contender(Protocol):
    """`use` makes it compute with so many threads; `translate` gives ids (no markers) for ids (end marker included).

    fixed: every translation has `steps` tokens, and none ends before.
    """

    def use(self, threads: int) -> None: ...

    def translate(self, sources: list[Ids], beam: int, steps: int, fixed: bool) -> list[Ids]: ...


class Sublayer:
    """As `Translator` does, without the text."""

    def __init__(self, settings: Message) -> None:
        from translation_models import read_translator

        self.model, self._weights = read_translator(Path(settings["folder"])), settings.get("weights")
        self.use(1)

    def use(self, threads: int) -> None:
        import torch

        from sublayer.fast.decoding.runner import Runner

        torch.set_num_threads(threads)
        self._backend = Runner(self.model, self._weights)

    def translate(self, sources: list[Ids], beam: int, steps: int, fixed: bool) -> list[Ids]:
        import torch
        from marian import END, PAD, START

        from sublayer.generation.beam import beam_search
        from sublayer.generation.greedy import greedy
        from sublayer.generation.request import DecodeRequest
        from sublayer.models.batching import padded

        source, lengths = padded(sources, PAD, self.model.device)
        ends = frozenset[int]() if fixed else frozenset({END})
        request = DecodeRequest([START] * len(sources), ends, [steps] * len(sources))
        with torch.inference_mode():
            if beam == 1:
                found = greedy(self._backend, source, lengths, request)
            else:
                found = beam_search(self._backend, source, lengths, request, beam=beam, length_penalty=1.0)
        return [hypotheses[0].tokens for hypotheses in found]

    def score(self, source: Ids, target: Ids, fixed: bool) -> float:
        """log P(target | source) per token, by the modules; of an end marker too, where there is one."""
        import torch
        from marian import END, START
        from torch.nn import functional as F

        wanted = target if fixed else [*target, END]
        with torch.inference_mode():
            logits = self.model(torch.tensor([source]), None, torch.tensor([[START, *wanted[:-1]]]))
            return -F.cross_entropy(logits.flatten(0, 1), torch.tensor(wanted)).item()


class Transformers:
    def __init__(self, settings: Message) -> None:
        from transformers import MarianMTModel

        self._model: Any = MarianMTModel.from_pretrained(Path(settings["folder"]) / "marian").eval()

    def use(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def translate(self, sources: list[Ids], beam: int, steps: int, fixed: bool) -> list[Ids]:
        import torch
        from marian import END, PAD

        longest = max(map(len, sources))
        source = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in sources])
        options = {"num_beams": beam, "early_stopping": True, "length_penalty": 1.0} if beam > 1 else {}
        found = self._model.generate(
            input_ids=source,
            attention_mask=(source != PAD).long(),
            do_sample=False,
            max_new_tokens=steps,
            min_new_tokens=steps if fixed else None,
            **options,
        )
        return [_until(END, row, PAD) for row in found[:, 1:].tolist()]


class CTranslate2:
    """In one process, one batch at a time, as its users' servers have it. Its own dispatch, its own products."""

    def __init__(self, settings: Message) -> None:
        self._folder, self._type = Path(settings["folder"]), settings["weights"]
        self.use(1)

    def use(self, threads: int) -> None:
        import ctranslate2

        path = self._folder / f"ctranslate2-{self._type}"
        self._translator: Any = ctranslate2.Translator(str(path), compute_type=self._type, intra_threads=threads)

    def translate(self, sources: list[Ids], beam: int, steps: int, fixed: bool) -> list[Ids]:
        found = self._translator.translate_batch(
            [list(map(str, ids)) for ids in sources],
            beam_size=beam,
            length_penalty=1.0,
            max_decoding_length=steps,
            min_decoding_length=steps if fixed else 0,
        )
        return [list(map(int, one.hypotheses[0])) for one in found]


CONTENDERS: dict[str, Callable[[Message], Contender]] = {
    "sublayer": Sublayer,
    "transformers": Transformers,
    "CTranslate2": CTranslate2,
}


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Load the model; it answers rounds of {"sources", "batch", "beam", "steps", "fixed", "repeats",
    "number_of_threads"}, and
    {"sources", "targets", "fixed"} with scores. {"refused": why} where this machine cannot have it.
    """
    from sublayer.errors import InputError

    try:
        contender = CONTENDERS[settings["library"]](settings)
    except InputError as reason:
        return {"refused": str(reason)}, lambda _: {}
    threads = 1

    def answer(ask: Message) -> Message:
        nonlocal threads
        if "targets" in ask:
            assert isinstance(contender, Sublayer)
            pairs = zip(ask["sources"], ask["targets"], strict=True)
            return {"scores": [contender.score(*pair, ask["fixed"]) for pair in pairs]}
        if ask["number_of_threads"] != threads:
            threads = ask["number_of_threads"]
            contender.use(threads)
        return _round(contender, ask)

    contender.use(threads)
    return {}, answer


def _round(contender: Contender, ask: Message) -> Message:
    sources, batch = ask["sources"], ask["batch"]
    batches: list[list[Ids]] = [sources[first : first + batch] for first in range(0, len(sources), batch)]
    found: list[Ids] = []
    begin = time.perf_counter()
    for _ in range(ask["repeats"]):
        found = [text for one in batches for text in contender.translate(one, ask["beam"], ask["steps"], ask["fixed"])]
    seconds = (time.perf_counter() - begin) / ask["repeats"]
    # An end marker is a step, too.
    tokens = sum(len(ids) + (len(ids) < ask["steps"]) for ids in found)
    return {"seconds": seconds, "tokens": tokens, "texts": found}


def _until(end: int, row: Ids, pad: int) -> Ids:
    return row[: row.index(end)] if end in row else [token for token in row if token != pad]


if __name__ == "__main__":
    serve(start)
