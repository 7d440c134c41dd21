"""Time and memory against length: plain, packed, windowed and padded rows, and the exponent of their growth.

    python benchmarks/attention_length.py
    python benchmarks/attention_length.py --quick

A language model of the shape of `mini-lm`, one batch, forward and backward of its hidden states; beside it a Llama of
the same shape from `transformers` with its `sdpa` attention (with windows a Mistral). Packed rows hold texts of
`--text` tokens, told to `transformers` as a block-diagonal mask [1, 1, S, S]. A padded batch has four rows: of all, a
half, a quarter and an eighth of the length. Every figure comes from a process of its own, so its peak of memory is its
own. A step on a few tokens comes first, not timed: what libraries and sublayer prepare at their first call (its facts
of the machine, which take a second) is no part of a step.

sublayer trains with the dropout of `mini-lm`, the Llama has none: drawing it takes about a tenth of a step at 1,024.

`transformers` stops at `--most` tokens (plain rows of one text: at `--most-plain`): beyond, its masks of S x S take a
minute and gigabytes a figure.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import machine
import numpy as np
import options as options_of
import torch
from summary import table, write
from torch import Tensor

OURS, RIVAL = "sublayer", "transformers"
KINDS = ["plain", "packed", "windowed", "padded"]
RIVALS = ["transformers.models.llama.modeling_llama", "transformers.models.mistral.modeling_mistral"]
"""Imported once for all processes."""
WARM = 64
"""Tokens of the step that is not timed."""


def main() -> None:
    options = _options()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "sublayer.models.decoder_only", *RIVALS])
    # One figure a process, and one process after the other.
    processes = ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1)
    rows: list[dict[str, Any]] = []
    for kind in options.kinds:
        for contender in (OURS, RIVAL):
            for length in options.lengths:
                if contender == RIVAL and length > (options.most_plain if kind == "plain" else options.most):
                    continue
                asked = {
                    "kind": kind,
                    "contender": contender,
                    "length": length,
                    "text": options.text,
                    "window": options.window,
                    "rounds": options.rounds,
                    "long": options.long,
                    "threads": options.threads,
                }
                rows.append(asked | processes.submit(_measure, asked).result())
                print(rows[-1], file=sys.stderr, flush=True)
    torch.set_num_threads(options.threads)
    print(f"{machine.described(machine.facts())}\n")
    print(_table(rows, options.lengths))
    print(f"\nWritten to {write(options, {'rows': rows, 'growth': growths(rows)})}")


def growth(lengths: list[int], values: list[float]) -> float:
    """Return p of the power law value = c * length^p that fits best: 1 for linear, 2 for square."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def growths(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the exponents of time and memory of each contender and kind of row."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        same = [r for r in rows if (r["kind"], r["contender"]) == (row["kind"], row["contender"])]
        lengths = [r["length"] for r in same]
        if len(lengths) > 1:
            found[f"{row['contender']} {row['kind']}"] = {
                what: growth(lengths, [r[what] for r in same]) for what in ("seconds", "gigabytes")
            }
    return found


def _measure(asked: dict[str, Any]) -> dict[str, float]:
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    step = (_ours if asked["contender"] == OURS else _rival)(asked)
    short = step(min(WARM, asked["length"]))
    short.backward(torch.ones_like(short))
    before = _peak()
    seconds, spent = math.inf, 0.0
    for _ in range(asked["rounds"]):
        begin = time.perf_counter()
        hidden = step(asked["length"])
        hidden.backward(torch.ones_like(hidden))
        took = time.perf_counter() - begin
        seconds, spent = min(seconds, took), spent + took
        del hidden
        if spent > asked["long"]:
            break
    # What the step itself added: the model and the libraries were there before.
    return {"seconds": seconds, "gigabytes": max(_peak() - before, 1e-3)}


def _peak() -> float:
    """The most memory that this process has had, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def _lengths(kind: str, size: int) -> list[int]:
    """How many tokens of each row are no padding."""
    return [size, size // 2, size // 4, size // 8] if kind == "padded" else [size]


def _ours(asked: dict[str, Any]) -> Callable[[int], Tensor]:
    """Return the forward pass on rows of so many tokens."""
    from sublayer.config import preset
    from sublayer.models.decoder_only import DecoderOnly

    c: Any = preset("mini-lm").model_copy(update={"max_length": asked["length"]})
    if asked["kind"] == "windowed":
        block = c.decoder.block
        block = block.model_copy(update={"attention": block.attention.model_copy(update={"window": asked["window"]})})
        c = c.model_copy(update={"decoder": c.decoder.model_copy(update={"block": block})})
    model = DecoderOnly(c).train()

    def step(size: int) -> Tensor:
        lengths = _lengths(asked["kind"], size)
        tokens = torch.randint(0, c.vocab_size, (len(lengths), size))
        segments = (torch.arange(size) // asked["text"])[None] if asked["kind"] == "packed" else None
        return model.hidden(tokens, torch.tensor(lengths), segments)

    return step


def _rival(asked: dict[str, Any]) -> Callable[[int], Tensor]:
    """Return the same of `transformers`."""
    from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

    shape: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 4,
        "vocab_size": 8000,
        "max_position_embeddings": asked["length"],
        "attn_implementation": "sdpa",
        "use_cache": False,
    }
    # Llama has no windows; Mistral is Llama with one.
    model: Any = (
        MistralModel(MistralConfig(sliding_window=asked["window"], **shape))
        if asked["kind"] == "windowed"
        else LlamaModel(LlamaConfig(**shape))
    ).train()

    def step(size: int) -> Tensor:
        lengths = _lengths(asked["kind"], size)
        tokens = torch.randint(0, 8000, (len(lengths), size))
        given: dict[str, Tensor] = {}
        place = torch.arange(size)
        if asked["kind"] == "packed":
            text = place // asked["text"]
            allowed = (text[:, None] == text) & (place[:, None] >= place)
            given = {
                "attention_mask": torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None],
                "position_ids": (place % asked["text"])[None],
            }
        elif asked["kind"] == "padded":
            given = {"attention_mask": (place < torch.tensor(lengths)[:, None]).long()}
        return model(input_ids=tokens, **given).last_hidden_state

    return step


def _table(rows: list[dict[str, Any]], lengths: list[int]) -> str:
    found = growths(rows)
    lines: list[list[str]] = []
    for name in dict.fromkeys(f"{row['contender']} {row['kind']}" for row in rows):
        contender, kind = name.split()
        same = {row["length"]: row for row in rows if (row["contender"], row["kind"]) == (contender, kind)}
        for what, unit in (("seconds", "s"), ("gigabytes", "GB")):
            power = f"{found[name][what]:.2f}" if name in found else "-"
            shown = [f"{same[length][what]:.2f}" if length in same else "-" for length in lengths]
            lines.append([f"{kind}, {contender}, {unit}", *shown, power])
    return table(["rows, library", *(f"{length:,}" for length in lengths), "exponent"], lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="attention-length")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--most", type=int, default=4096, help="longest rows of transformers (default: %(default)s)")
    parser.add_argument("--most-plain", type=int, default=8192, help="the same, plain rows (default: %(default)s)")
    parser.add_argument("--text", type=int, default=300, help="tokens of a packed text (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="of windowed attention (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts (default: %(default)s)")
    parser.add_argument(
        "--long", type=float, default=1.5, help="seconds after which no round follows (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=machine.cores())
    quick = {"lengths": [128, 256], "text": 32, "window": 32, "rounds": 1, "threads": 1}
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
