"""The worker of `inspection_cost.py`: one model, asked again and again while somebody listens, or nobody does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from workers import Message, serve

SOURCE, TARGET, ROWS = 48, 32, 4
"""Tokens of the text (or source) and of the target, and rows of a batch."""


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Make the model; it answers rounds of {"work": name, "calls": n, "listen": patterns, "clock": name}."""
    if settings["path"]:
        sys.path.insert(0, settings["path"])
    import torch

    import sublayer
    from sublayer import config
    from sublayer.models import EncoderDecoder, build_model
    from sublayer.nn.linear import prepare

    torch.manual_seed(settings["seed"])
    tree = config.preset(settings["shape"])
    model = build_model(tree).eval()
    prepare(model)
    vocabulary = tree.vocab_size
    pair = isinstance(model, EncoderDecoder)
    source = torch.randint(4, vocabulary, (ROWS, SOURCE))
    target = torch.randint(4, vocabulary, (ROWS, TARGET))

    def forward() -> Any:
        with torch.inference_mode():
            return model.hidden(source, None, target) if pair else model.hidden(source)

    def train() -> Any:
        model.zero_grad(set_to_none=True)
        loss = (model.hidden(source, None, target) if pair else model.hidden(source)).square().mean()
        loss.backward()
        return loss.detach()

    def steps() -> Any:
        """A text, token by token through the modules: the calls that are shortest, where a tap would show most."""
        with torch.inference_mode():
            state = model.start(source[:1], capacity=TARGET)
            for place in range(TARGET):
                last = model.decoder.step(target[:1, place : place + 1], state)
            return last

    work = {"forward": forward, "training step": train, "32 steps of decoding": steps}
    with torch.inference_mode():
        check = [float(forward().double().square().mean()), float(steps().double().square().mean())]

    def answer(ask: Message) -> Message:
        run, clock = work[ask["work"]], time.process_time if ask["clock"] == "process" else time.perf_counter
        with ExitStack() as listening:
            if ask["listen"]:
                listening.enter_context(sublayer.record(model, *ask["listen"]))
            run()
            seconds: list[float] = []
            for _ in range(ask["calls"]):
                # What was recorded before is let go of: a user does not keep every call either.
                begin = clock()
                run()
                seconds.append(clock() - begin)
        return {"seconds": sorted(seconds)[len(seconds) // 2]}

    return {"check": check, "threads": torch.get_num_threads(), "package": str(sublayer.__file__)}, answer


if __name__ == "__main__":
    serve(start)
