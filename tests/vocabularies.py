"""Small vocabularies made on the spot, written as the files of other people's tokenizers, and texts to try them on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LINES = [
    f"{who} {does} {what}."
    for who in ("Tom", "Mary", "The old man", "Ella", "El niño")
    for does in ("sees", "doesn't like", "wants", "no quiere", "perdió")
    for what in ("the house", "a small dog", "la canción", "42 apples", "her tea")
]
TEXTS = [
    "",
    " ",
    "Tom sees the house.",
    "  Two  spaces,\ttabs\nand lines  ",
    "El niño perdió la CANCIÓN; doesn't he? 1984",
    "naïve cafe\u0301 ☃ 你好 世界 Привет \U0001f600\U0001f1ea\U0001f1f8",
    "x" * 300,
    "dog" * 80,
    "</s><s>[CLS] a [SEP] <pad><unk>[MASK]<|endoftext|> <mask>",
    "▁under▁scores ▁ <0x41> ##ing ﬁne ½ \u200b\u00a0z",
]
# Without what spells a special token: there transformers reads it, and we do not.
PLAIN = [text for text in TEXTS if "</s>" not in text]


def write(folder: Path, name: str, value: Any) -> None:
    """JSON, or text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def bert(folder: Path, **config: Any) -> Path:
    """`vocab.txt` of all letters, with words and endings."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,;?'ñóABCDEFGHIJKLMNOPQRSTUVWXYZ你世"]
    words = ["tom", "Tom", "the", "house", "dog", "nino", "niño", "cancion", "sees", "##ing", "##dog", "##ion"]
    vocabulary = [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{x}" for x in letters),
        *words,
    ]
    write(folder, "vocab.txt", "\n".join(vocabulary) + "\n")
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})
    return folder


def gpt2(folder: Path, specials: tuple[str, ...] = ("<|endoftext|>",), **config: Any) -> Path:
    """`vocab.json` and `merges.txt`, trained on `LINES`; the special tokens come first."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
        ),
    )
    model = json.loads(backend.to_str())["model"]
    write(folder, "vocab.json", model["vocab"])
    write(folder, "merges.txt", "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in model["merges"]))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", **config})
    return folder


def pieces(path: Path, *, lines: list[str] = LINES, **options: Any) -> Path:
    """A SentencePiece model trained on `lines`; options as its trainer has them."""
    import sentencepiece

    path.parent.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()
    size = 420 if options.get("byte_fallback") else 120
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(written.getvalue())
    return path
