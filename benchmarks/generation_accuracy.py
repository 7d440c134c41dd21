"""What narrower weights cost: SmolLM2-135M on the test text of WikiText-2, by the paths of `generation_speed.py`.

    python benchmarks/generation_accuracy.py
    python benchmarks/generation_accuracy.py --translator runs/tatoeba-en-es-demo      # and BLEU of this model

Of each: the perplexity, the logits beside those of float32 (their largest difference and its root mean square, relative
to the largest logit and to theirs), how often the most probable token is the same, and how much of greedy texts.
`transformers` with torch's `quantize_dynamic` stands beside them, for that is what a user would reach for. Of a
translator: BLEU of greedy and of beam search on its held-out sentences, and how many translations stay the same.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import machine
import options as options_of
import torch
from generation_speed import CONTENDERS, equal_start
from generation_worker import CONTENDERS as MAKERS
from generation_worker import Sublayer
from language_models import PRESETS, PULLED, Ids, folder_of, prompts, text
from sentence_model import trained
from summary import table, write
from torch import Tensor
from torch.nn import functional as F

import sublayer
from sublayer.data.sources import grouped
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner
from sublayer.generation.translator import Translator
from sublayer.hub.folder import find
from sublayer.tasks.scores import score

COMPARED = (
    *("sublayer", "sublayer, bfloat16", "sublayer, int8", "sublayer, int4", "sublayer, exact"),
    *("transformers, bfloat16", "transformers, quantize_dynamic"),
)
BEAMS = (1, 4)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    folder = folder_of(options.shape)
    ids = text(options.shape, folder, options.texts * options.length)
    texts = torch.tensor(ids[: options.texts * options.length]).view(options.texts, options.length)
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    expected: list[Tensor] = []
    greedy: list[Ids] = []
    for name in options.contenders:
        try:
            contender: Any = MAKERS[CONTENDERS[name]["library"]]({"folder": str(folder), **CONTENDERS[name]})
        except InputError as reason:
            refused[name] = str(reason)
            print(f"{name}: left out. {reason}", flush=True)
            continue
        logits = _logits_of(contender)
        found = [logits(row.unsqueeze(0)).squeeze(0).float() for row in texts]
        said = contender.generate(prompts(options.shape, folder, options.prompts, [32]), options.new)
        expected, greedy = expected or found, greedy or said
        rows.append({"contender": name, **_beside(texts, found, expected), **_texts(said, greedy)})
        print(rows[-1], flush=True)
    print(f"\n{machine.described(machine.facts())}\n\n{_table(rows)}")
    translated = _translated(options)
    if translated:
        print(f"\n{_table_of_translations(translated)}")
    print(f"\nWritten to {write(options, {'refused': refused, 'rows': rows, 'translations': translated})}")


def _logits_of(contender: Any) -> Callable[[Tensor], Tensor]:
    """Tokens [1, S] -> [1, S, V], by what decodes."""

    @torch.inference_mode()
    def stepped(tokens: Tensor) -> Tensor:
        state = contender.backend.start(tokens[:, :0], capacity=tokens.shape[1])
        return contender.backend.step(tokens, state)

    @torch.inference_mode()
    def at_once(tokens: Tensor) -> Tensor:
        return contender.model(tokens).logits

    return stepped if isinstance(contender, Sublayer) else at_once


def _beside(texts: Tensor, found: list[Tensor], expected: list[Tensor]) -> dict[str, float]:
    lost = sum(
        F.cross_entropy(one[:-1], text[1:], reduction="sum").item() for one, text in zip(found, texts, strict=True)
    )
    one, other = torch.cat(found), torch.cat(expected)
    return {
        "perplexity": math.exp(lost / (texts.numel() - len(texts))),
        "largest_error": ((one - other).abs().max() / other.abs().max()).item(),
        "mean_error": ((one - other).norm() / other.norm()).item(),
        "same_token": (one.argmax(-1) == other.argmax(-1)).float().mean().item(),
    }


def _texts(found: list[Ids], expected: list[Ids]) -> dict[str, float]:
    return {
        "equal_texts": sum(one == other for one, other in zip(found, expected, strict=True)) / len(found),
        "equal_tokens": sum(map(equal_start, found, expected)) / sum(map(len, expected)),
    }


def _translated(options: argparse.Namespace) -> list[dict[str, Any]]:
    """BLEU of the translator that was named, by each of sublayer's formats."""
    if options.quick:
        data = corpus.example()
        path = trained(data, "tiny", 2, "cpu")
        sources, references = grouped(data.splits.test)
    elif options.translator is not None:
        path = options.translator
        lines = (find(path) / "test.jsonl").read_text(encoding="utf-8").splitlines()
        held_out = [json.loads(line) for line in lines]
        sources, references = [row["source"] for row in held_out], [row["references"] for row in held_out]
    else:
        return []
    loaded = sublayer.load(path)
    assert isinstance(loaded, Translator), f"{path} does not translate"
    rows: list[dict[str, Any]] = []
    expected: dict[int, list[str]] = {}
    for name in (name for name in options.contenders if CONTENDERS[name]["library"] == "sublayer"):
        try:
            backend = Runner(loaded.model, CONTENDERS[name].get("weights"))
        except InputError:
            continue  # said above
        translator = Translator(loaded.model, loaded.tokenizer, loaded.decoding, backend=backend)
        rows.append({"contender": name, "sentences": len(sources), "beams": {}})
        for beam in BEAMS:
            texts = [one.text for one in translator.translate(sources, beam=beam)]
            expected.setdefault(beam, texts)
            rows[-1]["beams"][beam] = {
                "bleu": score(texts, references).bleu,
                "same": sum(one == other for one, other in zip(texts, expected[beam], strict=True)) / len(texts),
            }
        print(rows[-1], flush=True)
    return rows


def _table_of_translations(rows: list[dict[str, Any]]) -> str:
    exact = rows[0]["beams"]
    lines = [
        [row["contender"]]
        + [
            cell
            for beam, found in row["beams"].items()
            for cell in (
                f"{found['bleu']:.2f} ({found['bleu'] - exact[beam]['bleu']:+.2f})",
                f"{100 * found['same']:.1f}%",
            )
        ]
        for row in rows
    ]
    columns = [
        cell for beam in BEAMS for cell in (f"BLEU, {'greedy' if beam == 1 else f'beam {beam}'}", "same translations")
    ]
    return table(["weights", *columns], lines)


def _table(rows: list[dict[str, Any]]) -> str:
    exact = rows[0]["perplexity"]
    lines = [
        [
            row["contender"],
            f"{row['perplexity']:.3f} ({100 * (row['perplexity'] / exact - 1):+.2f}%)",
            f"{row['mean_error']:.4f}",
            f"{row['largest_error']:.3f}",
            f"{100 * row['same_token']:.1f}%",
            f"{100 * row['equal_tokens']:.1f}%",
        ]
        for row in rows
    ]
    header = [
        "weights",
        "perplexity",
        "logits, mean error",
        "largest error",
        "same most probable token",
        "greedy texts, up to the first difference",
    ]
    return table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="generation-accuracy")
    parser.add_argument("--shape", default="smollm2", choices=[*PRESETS, *PULLED])
    parser.add_argument("--texts", type=int, default=12, help="pieces of the test text, from its beginning")
    parser.add_argument("--length", type=int, default=512, help="tokens of each")
    parser.add_argument("--prompts", type=int, default=16, help="gone on from greedily")
    parser.add_argument("--new", type=int, default=64, help="tokens of a greedy text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=COMPARED,
        choices=COMPARED,
        metavar="NAME",
        help="the others are compared with the first (default: %(default)s)",
    )
    parser.add_argument("--translator", type=Path, help="a model folder or a run that translates: its BLEU, too")
    quick = {"shape": "mini-lm", "texts": 1, "length": 16, "prompts": 1, "new": 2, "threads": 1}
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
