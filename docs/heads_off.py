r"""What a translator loses with several heads switched off at once: the second half of the figures of docs/heads.md.

    sublayer heads runs/tatoeba-en-es-demo --ablate --limit 2001 \
        --out docs/pictures/heads.png --figures docs/figures/heads.json
    python docs/heads_off.py runs/tatoeba-en-es-demo docs/figures/heads.json

The first command says what each head attends to and how much the loss rises without it alone. Two heads that do the
same look unimportant both, so here the heads that seem to matter least (and, for comparison, most) are silenced
together, and the held-out sentences are translated without them; and without each head alone, to see how the
translations differ.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sublayer
from sublayer.files import write_json
from sublayer.generation.translator import Translator
from sublayer.inspection.groups import groups
from sublayer.tasks.scores import score

Head = tuple[str, int]
"""The tap at what an attention's heads have found, and the number of one of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a model that translates")
    parser.add_argument("figures", type=Path, help="what `sublayer heads --ablate --figures` has written")
    parser.add_argument("--out", type=Path, help="where to write JSON; beside the figures where left out")
    given = parser.parse_args()
    translator = sublayer.load(given.run)
    assert isinstance(translator, Translator)
    rows = [json.loads(line) for line in (given.run / "model" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    ranked = by_importance(translator, json.loads(given.figures.read_text(encoding="utf-8")))
    found: dict[str, Any] = {"sentences": len(rows), "heads": len(ranked), "together": {}, "alone": {}}
    sets: dict[str, Sequence[Head]] = {"none": []}
    for share in (4, 2):
        count = len(ranked) // share
        sets[f"the {count} that seem to matter least"] = ranked[:count]
    sets["the 3 that seem to matter most"] = ranked[-3:]
    for kind in ("encoder.layers", "decoder.layers"):
        for part in ("self_attention", "cross_attention"):
            every = [head for head in ranked if head[0].startswith(kind) and part in head[0]]
            if every:
                sets[f"the {len(every)} of {kind.split('.')[0]} {part.replace('_', '-')}"] = every
    made: dict[str, list[str]] = {}
    for name, off in sets.items():
        made[name] = translated(translator, rows, off)
        found["together"][name] = bleu(made[name], rows)
        print(f"{name}: {found['together'][name]:.1f} BLEU", flush=True)
    for tap, head in sorted(ranked):
        found["alone"][f"{tap.removesuffix('.heads')} head {head}"] = one = {
            "bleu": bleu(texts := translated(translator, rows, [(tap, head)]), rows),
            **differences(texts, made["none"]),
        }
        print(f"{tap}, {head}: {one}", flush=True)
    out = given.out or given.figures.with_name("heads-off.json")
    write_json(out, found)
    print(f"The figures are {out}")


def by_importance(translator: Translator, figures: dict[str, Any]) -> list[Head]:
    """All heads, from the one without which the loss rises least."""
    change: dict[Head, float] = {}
    for group in groups(translator.model):
        table = figures["attention"][group.name]["loss when off"]["heads"]
        for tap, layer in zip(group.taps("heads"), table, strict=True):
            change |= {(tap, head): value for head, value in enumerate(layer)}
    return sorted(change, key=lambda head: change[head])


def translated(translator: Translator, rows: Sequence[dict[str, Any]], off: Sequence[Head]) -> list[str]:
    """Greedy translations with these heads silenced."""
    heads: defaultdict[str, list[int]] = defaultdict(list)
    for tap, head in off:
        heads[tap].append(head)
    with ExitStack() as editing:
        if heads:
            edits = {tap: sublayer.zero_ablate(*some) for tap, some in heads.items()}
            editing.enter_context(sublayer.edit(translator.model, edits))
        return [one.text for one in translator.translate([row["source"] for row in rows], beam=1)]


def bleu(texts: Sequence[str], rows: Sequence[dict[str, Any]]) -> float:
    return score(texts, [row["references"] for row in rows]).bleu


def differences(texts: Sequence[str], whole: Sequence[str]) -> dict[str, float]:
    """Parts of all translations: that are not what the whole model says; that are its words in another order; that say
    fewer words, or more."""
    pairs = [(words(one), words(other)) for one, other in zip(texts, whole, strict=True)]
    return {
        "changed": sum(one != other for one, other in pairs) / len(pairs),
        "reordered": sum(one != other and sorted(one) == sorted(other) for one, other in pairs) / len(pairs),
        "shorter": sum(len(one) < len(other) for one, other in pairs) / len(pairs),
        "longer": sum(len(one) > len(other) for one, other in pairs) / len(pairs),
    }


def words(text: str) -> list[str]:
    """Without capitals and signs, which follow the order of the words."""
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ").split()


if __name__ == "__main__":
    main()
