"""Changes that nobody would make: values of other types, raw text, bytes turned, cut off and repeated."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import packed
from legal import inside

Change = tuple[str, float, float, int, int]
"""Its kind, two places between 0 and 1, and two numbers."""

DEEP: Any = [[]]
for _ in range(200):
    DEEP = [DEEP]
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 2**64, 10**25, 0.0, 0.5, 1.0, -1.0, 1e-300, 1e308),
    *("", "a", "0", "1", "AAAA", "{{7*7}}", "no", "../../etc", "/dev/zero", "\0", "\x1b[2J", "é" * 300, "<s>", "$x^"),
    *([], {}, [1], ["a"], [None], [[]], {"a": 1}, {"0": "a"}, {"content": 5}, [0] * 1000, DEEP, {"type": "none"}),
)
RAW = ("9" * 5000, "NaN", "-Infinity", "1e999", "[" * 5000, '"\\ud800"', "{,}", "'", "1 2", '{"a":1,"a":2}', "")
MARK = "@raw@"

KINDS = ("exchange", "exchange", "exchange", "remove", "add", "raw", "bytes", "bytes")


def drawn(draw: random.Random) -> list[Change]:
    """Between one and four changes."""
    return [
        (draw.choice(KINDS), draw.random(), draw.random(), draw.randrange(10_000), draw.randrange(10_000))
        for _ in range(draw.randint(1, 4))
    ]


def changed_value(whole: Any, kind: str, place: float, number: int, other: int) -> Any:
    paths = inside(whole)
    if not paths:
        return NASTY[number % len(NASTY)]
    *way, last = paths[int(place * len(paths))]
    table = whole
    for key in way:
        table = table[key]
    if kind == "remove":
        del table[last]
    elif kind == "add" and isinstance(table, dict):
        table[f"{last}_{other % 7}" if other % 2 else NEW[other % len(NEW)]] = NASTY[number % len(NASTY)]
    elif kind == "raw":
        table[last] = f"{MARK}{number % len(RAW)}{MARK}"
    else:
        table[last] = NASTY[number % len(NASTY)]
    return whole


NEW = (
    *("rope_scaling", "rope_parameters", "sliding_window", "layer_types", "id2label", "num_labels", "architectures"),
    *("head_dim", "quantization_config", "tie_word_embeddings", "bad_words_ids", "added_tokens_decoder", "others"),
    *("adapter", "base", "imported", "start", "task", "use_rslora", "normalizer", "post_processor", "is_decoder"),
)


def changed_bytes(held: bytes, place: float, other: float, number: int, more: int) -> bytes:
    at, to = int(place * len(held)), int(other * len(held))
    if place < 0.3:  # headers are where the sizes are
        at = int(place * min(len(held), 2000))
    match number % 8:
        case 0:
            return held[:at]
        case 1:
            return held[:at] + bytes([more % 256]) + held[at + 1 :]
        case 2:
            return held[:at] + (more % 3 + 254).to_bytes(2, "little")[:1] * 8 + held[at + 8 :]
        case 3:
            return held[:at] + held[to : to + more % 64] + held[at:]
        case 4:
            return held[:at] + held[at + more % 64 :]
        case 5:
            return held[:at] + (2 ** (more % 64)).to_bytes(8, "little") + held[at + 8 :]
        case 6:
            return held[:at] + b"\x00\x00\xc0\x7f" + held[at + 4 :]
        case _:
            return held + held[: more % 1000]


def change(path: Path, made: list[Change]) -> None:
    draw = random.Random(repr(made))
    if path.suffix == ".argosmodel" and made[0][0] != "bytes":
        packed.rough(path, draw, lambda inside: change(inside, made))
        return
    held = path.read_bytes()
    for kind, place, other, number, more in made:
        if kind != "bytes" and path.suffix == ".json":
            try:
                text = json.dumps(changed_value(json.loads(held), kind, place, number, more))
            except (ValueError, RecursionError):
                continue
            for place_, raw in enumerate(RAW):
                text = text.replace(f'"{MARK}{place_}{MARK}"', raw)
            held = text.encode("utf-8", "surrogatepass")
        elif kind != "bytes" and path.suffix in (".toml", ".txt", ".jsonl", ".tsv", ".conll", ".jinja"):
            held = changed_text(held, kind, place, number)
        else:
            held = changed_bytes(held, place, other, number, more)
    path.write_bytes(held)


def changed_text(held: bytes, kind: str, place: float, number: int) -> bytes:
    """A line is removed, repeated, or what stands behind its last sign of equality or tab is exchanged."""
    lines = held.split(b"\n")
    at = int(place * len(lines))
    if kind == "remove":
        del lines[at]
    elif kind == "add":
        lines.insert(at, lines[number % len(lines)])
    else:
        value = RAW[number % len(RAW)] if kind == "raw" else json.dumps(NASTY[number % len(NASTY)])
        begin = max(lines[at].rfind(b"="), lines[at].rfind(b"\t"), lines[at].rfind(b":")) + 1
        lines[at] = lines[at][:begin] + value.encode()
    return b"\n".join(lines)
