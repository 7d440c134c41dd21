"""Generators whose model is a table and whose tokenizer is real."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from generation.fakes import LanguageTable
from sublayer import config
from sublayer.generation.generator import Generator
from sublayer.text import Tokenizer


class Talkative(Tokenizer):
    """Writes a conversation in the plainest way."""

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        [ids] = self.encode(["".join(f"{one['role']}: {one['content']} " for one in messages) + "assistant:"])
        return ids


@cache
def tokenizer(kind: str = "bpe") -> Talkative:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "äöü",
        "猫と犬",
        "🙂",
        "naïve",
    ]
    draw = random.Random(0)
    lines = [" ".join(draw.choices(words, k=6)) for _ in range(200)]
    return Talkative.train(lines, config.Subwords(type=kind, vocab_size=330))


def generator(
    seed: int = 0, *, kind: str = "bpe", end_bias: float = 4.0, order: int | None = 2, **decoding: Any
) -> Generator[Any]:
    own = tokenizer(kind)
    table = LanguageTable(own.vocab_size, seed, order=order, end_id=own.end_id, end_bias=end_bias, max_length=60)
    return Generator(table, own, config.Generation(**decoding))
