"""The worker of `translation_speed.py`: one contender, translating the sentences that it is given.

Every contender gets the same batches of ids, in the same order, and gives ids back: tokenization is not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from marian import END, PAD, START, to_marian
from torch import Tensor
from torch.nn import functional as F
from torch_transformer import with_weights_of
from workers import Message, serve

import sublayer
from sublayer.fast.decoding.runner import runner_for
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.request import DecodeRequest
from sublayer.models import EncoderDecoder
from sublayer.models.batching import padded

Ids = list[int]


class Contender(Protocol):
    """Sources (ids, end marker included) in, translations (ids without markers) out."""

    def translate(self, sources: list[Ids], beam: int, steps: int) -> list[Ids]: ...


class Sublayer:
    def __init__(self, model: EncoderDecoder) -> None:
        # As `Translator` does.
        self.model, self.backend = model, runner_for(model)

    def translate(self, sources: list[Ids], beam: int, steps: int) -> list[Ids]:
        source, lengths = padded(sources, PAD, self.model.device)
        request = DecodeRequest([START] * len(sources), frozenset({END}), [steps] * len(sources))
        with torch.inference_mode():
            if beam == 1:
                found = greedy(self.backend, source, lengths, request)
            else:
                found = beam_search(self.backend, source, lengths, request, beam=beam, length_penalty=1.0)
        return [hypotheses[0].tokens for hypotheses in found]


class Transformers:
    def __init__(self, model: EncoderDecoder) -> None:
        self.model = to_marian(model)

    def translate(self, sources: list[Ids], beam: int, steps: int) -> list[Ids]:
        source, _ = padded(sources, PAD, self.model.device)
        options = {"num_beams": beam, "early_stopping": True, "length_penalty": 1.0} if beam > 1 else {}
        found = self.model.generate(
            input_ids=source,
            attention_mask=(source != PAD).long(),
            do_sample=False,
            max_new_tokens=steps,
            **options,
        )
        return [_until_end(row) for row in found[:, 1:].tolist()]


class TorchTransformer:
    """Greedy only, and the whole prefix again at every step: torch.nn.Transformer has neither cache nor search."""

    def __init__(self, model: EncoderDecoder) -> None:
        self.model = with_weights_of(model)

    def translate(self, sources: list[Ids], beam: int, steps: int) -> list[Ids]:
        assert beam == 1
        source, _ = padded(sources, PAD, self.model.positions.device)
        return self.model.greedy(source, start=START, end=END, steps=steps)


CONTENDERS: dict[str, Callable[[EncoderDecoder], Contender]] = {
    "sublayer": Sublayer,
    "transformers": Transformers,
    "torch.nn.Transformer": TorchTransformer,
}


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Load the model; it answers rounds of {"sources", "batch", "beam", "steps"}, and {"sources", "targets"} scores."""
    model = sublayer.load(Path(settings["model"]), settings["device"]).model
    model.to(getattr(torch, settings["precision"]))
    contender = CONTENDERS[settings["contender"]](model)

    def answer(ask: Message) -> Message:
        if "targets" in ask:
            return {"scores": [_score(model, *pair) for pair in zip(ask["sources"], ask["targets"], strict=True)]}
        return _round(contender, ask)

    return {"threads": torch.get_num_threads()}, answer


def _round(contender: Contender, ask: Message) -> Message:
    sources: list[Ids] = ask["sources"]
    found: list[Ids] = []
    begin = time.perf_counter()
    for first in range(0, len(sources), ask["batch"]):
        found += contender.translate(sources[first : first + ask["batch"]], ask["beam"], ask["steps"])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "tokens": sum(len(ids) + 1 for ids in found), "translations": found}


@torch.inference_mode()
def _score(model: EncoderDecoder, source: Ids, target: Ids) -> float:
    """log P(target, end | source) per token."""
    device = model.device
    fed = torch.tensor([[START, *target]], device=device)
    logits: Tensor = model(torch.tensor([source], device=device), None, fed)
    wanted = torch.tensor([[*target, END]], device=device)
    return -F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten()).item()


def _until_end(row: Ids) -> Ids:
    return row[: row.index(END)] if END in row else [token for token in row if token != PAD]


if __name__ == "__main__":
    serve(start)
