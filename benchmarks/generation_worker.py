"""The worker of `generation_speed.py`: one contender, going on from the prompts that it is given.

Prompts are lists of tokens, and so is what comes back: tokenization is not measured. No text ends before its length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from language_models import Ids
from workers import Message, serve

from sublayer.errors import InputError
from sublayer.fast import torch_compile


class Contender(Protocol):
    """Prompts in, exactly `new` tokens of each out."""

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]: ...


class Sublayer:
    """As `Generator` does, without the text.

    settings: "weights" is the argument of `Generator`.
    """

    def __init__(self, settings: Message) -> None:
        from sublayer.fast.decoding.runner import Runner
        from sublayer.hub.importing import import_folder

        model: Any = import_folder(Path(settings["folder"])).model.eval()
        self.model, self.backend = model, Runner(model, settings.get("weights"))

    @torch.inference_mode()
    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        from sublayer.generation.loop import decode, most_probable
        from sublayer.generation.model_steps import ModelSteps
        from sublayer.generation.request import DecodeRequest

        before = [ids[:-1] for ids in prompts]
        steps = ModelSteps(self.backend, self.model.device)
        state = steps.start(before, num_beams=1, capacity=new)
        request = DecodeRequest([ids[-1] for ids in prompts], frozenset(), [new] * len(prompts), before)
        found: list[Ids] = [[] for _ in prompts]
        for step in decode(steps, state, request, most_probable, scored=False):
            for row, chosen in step.items():
                found[row].append(chosen.token)
        return found


class Transformers:
    """`generate` with the library's own attention and cache.

    settings: "dtype"; "compile": a static cache and a compiled forward, as its documentation says; "int8": torch's own
    dynamic quantization of every linear map.
    """

    def __init__(self, settings: Message) -> None:
        from transformers import AutoModelForCausalLM

        dtype = getattr(torch, settings.get("dtype", "float32"))
        self.model: Any = AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype).eval()
        # Nobody's text ends early.
        self.model.generation_config.eos_token_id = None
        self.options: dict[str, Any] = {}
        if settings.get("int8"):
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)
        if settings.get("compile"):
            self.model.forward = torch_compile(self.model.forward)
            self.options["cache_implementation"] = "static"

    def generate(self, prompts: list[Ids], new: int) -> list[Ids]:
        longest = max(map(len, prompts))
        tokens = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts])
        real = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        found = self.model.generate(
            input_ids=tokens,
            attention_mask=real,
            do_sample=False,
            max_new_tokens=new,
            pad_token_id=0,
            **self.options,
        )
        return found[:, longest:].tolist()


CONTENDERS: dict[str, Callable[[Message], Contender]] = {"sublayer": Sublayer, "transformers": Transformers}


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Load the model; it answers rounds of {"prompts", "new"}. {"refused": why} where this machine cannot have it."""
    try:
        contender = CONTENDERS[settings["library"]](settings)
    except InputError as reason:
        return {"refused": str(reason)}, lambda _: {}

    def answer(ask: Message) -> Message:
        begin = time.perf_counter()
        contender.generate(ask["prompts"], 1)
        first = time.perf_counter()
        found = contender.generate(ask["prompts"], ask["new"])
        return {"first_seconds": first - begin, "seconds": time.perf_counter() - first, "texts": found}

    return {"threads": torch.get_num_threads()}, answer


if __name__ == "__main__":
    serve(start)
