"""Part 1: how fast a step of training is, against the length of the texts.

Every step has the same number of tokens, whatever the length: a Transformer does the same work (and a little more for
attention), and a recurrent network the very same, but in as many steps one after another as a text has tokens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sublayer import config
from sublayer.compare.contenders import chain, path, recurrent_lm, transformer_lm
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Parallel
from sublayer.config.cost import total_parameters
from sublayer.models import build_model
from sublayer.tasks.losses import CrossEntropy
from sublayer.training.progress import Reporter


def contenders(c: Parallel) -> Mapping[str, config.DecoderOnly | config.RecurrentDecoderOnly]:
    """By name, all with nearly the same number of parameters."""
    reference = transformer_lm(c.dim, c.layers, c.vocab_size, max(c.lengths))
    return {"transformer": reference, **{cell: recurrent_lm(cell, reference) for cell in config.CELLS}}


def measure(c: Parallel, ledger: Ledger, device: torch.device, told: Callable[[], Reporter]) -> None:
    """Time every contender at every length on `device`, and what is not in the ledger yet on the CPU.

    An entry: parameters, tokens a step, seconds of each timed forward pass and of each forward and backward pass,
    operations, and the length of the chain of products that wait for one another.
    """
    trees = contenders(c)
    kinds = dict.fromkeys(["cpu", device.type])
    wanted = [
        (kind, name, length)
        for kind in kinds
        for name in trees
        for length in c.lengths
        if f"{kind}/{name}/{length}" not in ledger
    ]
    shown = told()
    with shown:
        for done, (kind, name, length) in enumerate(wanted, start=1):
            tokens = c.tokens if kind == "cpu" else c.gpu_tokens
            found = _timed(c, trees[name], length, tokens, torch.device(kind))
            ledger[f"{kind}/{name}/{length}"] = found
            speed = found["tokens"] / statistics.median(found["both"])
            shown.step(
                done, len(wanted), found["loss"], f"{name}, length {length}, {kind}: {speed:,.0f} tokens/s", None
            )


def by_device(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[int, Mapping[str, Any]]]]:
    """What `measure` has put into a ledger, by device, contender and length."""
    found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for key, one in entries.items():
        device, name, length = key.split("/")
        found.setdefault(device, {}).setdefault(name, {})[int(length)] = one
    return found


def _timed(
    c: Parallel,
    tree: config.DecoderOnly | config.RecurrentDecoderOnly,
    length: int,
    tokens: int,
    device: torch.device,
) -> dict[str, Any]:
    torch.manual_seed(1)
    model = build_model(tree).to(device).train()
    assert not isinstance(tree, config.EncoderDecoder)
    rows = max(1, tokens // length)
    text = torch.randint(tree.vocab_size, (rows, length + 1), device=device)
    loss_function = CrossEntropy(label_smoothing=0.0)
    fed, wanted = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    told: Any = model

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return loss_function(told.output, told.hidden(fed), wanted, rows * length)

    def both() -> float:
        value = forward()
        value.backward()  # pyright: ignore[reportUnknownMemberType]
        model.zero_grad(set_to_none=True)
        return value.item()

    begun = time.monotonic()
    loss = both()
    # The first steps of a process are slower: memory is claimed, and threads wake up.
    while time.monotonic() - begun < c.warm_up:
        both()
    with torch.no_grad():
        forward()
        forwards = [_seconds(forward, device) for _ in range(c.repeats)]
    boths = [_seconds(both, device) for _ in range(c.repeats)]
    return {
        "parameters": total_parameters(tree),
        "tokens": rows * length,
        "forward": forwards,
        "both": boths,
        "loss": loss,
        "flops": tree.flops(1, length).training,
        "chain": chain(tree, length),
        "path": path(tree, length),
    }


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
