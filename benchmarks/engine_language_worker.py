"""A worker of `engine_speed.py`: one contender, going on from the prompts that it is given.

Prompts are lists of ids, and so is what comes back. No text ends before its length. torch is in the process only where
the contender wants it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from workers import Message, serve

Ids = list[int]


class Contender(Protocol):
    """`use` makes it compute with so many threads, for so many rows of so many tokens at most; `generate` gives exactly
    `new` tokens for each prompt.
    """

    def use(self, threads: int, rows: int, length: int) -> None: ...

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]: ...


class Sublayer:
    def __init__(self, settings: Message) -> None:
        from generation_worker import Sublayer as Generating

        self._settings, self._own, self._threads = settings, Generating(settings), 0

    def use(self, threads: int, rows: int, length: int) -> None:
        import torch

        from sublayer.fast.decoding.runner import Runner

        if threads != self._threads:
            torch.set_num_threads(threads)
            # What is prepared is prepared for a number of threads.
            self._own.backend = Runner(self._own.model, self._settings.get("weights"))
            self._threads = threads

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        return self._own.generate(prompts, new)

    def gap(self, before: Ids, one: int, other: int) -> float:
        """By how much the modules prefer the token `one` to `other` after `before`: the difference of their logits,
        in standard deviations of all."""
        import torch

        with torch.inference_mode():
            logits = self._own.model(torch.tensor([before]))[0, -1]
        return ((logits[one] - logits[other]) / logits.std()).item()


class Transformers:
    def __init__(self, settings: Message) -> None:
        from generation_worker import Transformers as Generating

        self._own = Generating(settings)

    def use(self, threads: int, rows: int, length: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        return self._own.generate(prompts, new)


class CTranslate2:
    def __init__(self, settings: Message) -> None:
        self._folder, self._type, self._threads = Path(settings["folder"]), settings["weights"], 0

    def use(self, threads: int, rows: int, length: int) -> None:
        import ctranslate2

        if threads != self._threads:
            path = str(self._folder / f"ctranslate2-{self._type}")
            self._generator: Any = ctranslate2.Generator(path, compute_type=self._type, intra_threads=threads)
            self._threads = threads

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        found = self._generator.generate_batch(
            [list(map(str, ids)) for ids in prompts],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            # Its documentation: faster for a prompt of more than some tokens.
            include_prompt_in_result=False,
        )
        return [one.sequences_ids[0] for one in found]


class LlamaCpp:
    """llama.cpp's server, called in the process: a slot for every row, all rows in one batch, nothing kept of a prompt.

    Its keys and values are in float16, as they are unless one says otherwise. timings: its own, of the last answer.
    """

    timings: Message

    def __init__(self, settings: Message) -> None:
        self._path, self._made, self._server = settings["file"], None, None

    def use(self, threads: int, rows: int, length: int) -> None:
        import xllamacpp

        wanted = threads, rows, length
        if wanted == self._made:
            return
        self._server: Any = None
        options = xllamacpp.CommonParams()
        options.model.path = self._path
        options.n_parallel = rows
        # Positions of all slots together, each a multiple of 256.
        options.n_ctx = rows * -(-length // 256) * 256
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.ui = False
        options.verbosity = 1
        self._server = xllamacpp.Server(options)
        self._made = wanted

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        found = self._server.handle_completions(
            {
                "prompt": prompts,
                "max_tokens": new,
                "samplers": ["top_k"],
                "top_k": 1,
                "ignore_eos": True,
                "cache_prompt": False,
            }
        )
        if "choices" not in found:
            raise RuntimeError(f"llama.cpp answers: {found}")
        self.timings = found["timings"]
        texts = sorted(found["choices"], key=lambda choice: choice["index"])
        # The pieces of the stand-in vocabulary are the numbers of the tokens.
        return [list(map(int, text["text"].split())) for text in texts]


CONTENDERS: dict[str, Callable[[Message], Contender]] = {
    "sublayer": Sublayer,
    "transformers": Transformers,
    "CTranslate2": CTranslate2,
    "llama.cpp": LlamaCpp,
}


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Load the model; it answers rounds of {"prompts", "new", "repeats", "number_of_threads"} with the seconds to the
    first token and to the last, and {"gaps"}. {"refused": why} where this machine cannot have it.
    """
    from sublayer.errors import InputError

    try:
        contender = CONTENDERS[settings["library"]](settings)
    except InputError as reason:
        return {"refused": str(reason)}, lambda _: {}

    def answer(ask: Message) -> Message:
        if "gaps" in ask:
            assert isinstance(contender, Sublayer)
            return {"gaps": [contender.gap(*asked) for asked in ask["gaps"]]}
        prompts, new = ask["prompts"], ask["new"]
        contender.use(ask["number_of_threads"], len(prompts), max(map(len, prompts)) + new)
        first, found = _timed(contender, prompts, 1, ask["repeats"])
        whole = first
        if new > 1:
            whole, found = _timed(contender, prompts, new, ask["repeats"])
        if any(len(text) != new for text in found):
            raise RuntimeError(f"texts of {[len(text) for text in found]} tokens, where {new} were asked for")
        own = {"timings": contender.timings} if isinstance(contender, LlamaCpp) else {}
        return {"first_seconds": first, "seconds": whole, "texts": found, **own}

    return {}, answer


def _timed(contender: Contender, prompts: list[Ids], new: int, repeats: int) -> tuple[float, list[Ids]]:
    """Seconds of one time, on the average, and the texts."""
    found: list[Ids] = []
    begin = time.perf_counter()
    for _ in range(repeats):
        found = contender.generate(prompts, new)
    return (time.perf_counter() - begin) / repeats, found


if __name__ == "__main__":
    serve(start)
