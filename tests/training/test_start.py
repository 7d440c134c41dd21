"""A model begins with vectors of words from a file: each word has its own, and what the file lacks is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from small_run import sublayer
from small_task import WORDS, write_task
from sublayer.hub.folder import read

KNOWN = [*WORDS[:4], "Elsewhere", "never seen", "1999"]
VECTORS = np.random.default_rng(1).standard_normal((len(KNOWN), 6)).astype(np.float32) * 7
# So small a step leaves the vectors as they were.
ASLEEP: dict[str, Any] = {"steps": 1, "optimizer": {"learning_rate": 1e-9}, "averaging": {"type": "none"}}


def written(folder: Path, *, width: int = 6, **over: Any) -> Path:
    rows = [f"{word} {' '.join(map(str, vector))}" for word, vector in zip(KNOWN, VECTORS.tolist(), strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "some.vec").write_text("\n".join(rows) + "\n")
    tokenizer = {"type": "words", "min_frequency": 1, "normalization": {"lowercase": True, "zero_digits": True}}
    file = write_task(
        folder,
        "classification",
        model={"embedding": {"width": width, "initial_std": 0.1}},
        start={"type": "vectors", "path": "some.vec"},
        training=ASLEEP,
        **over,
    )
    text = file.read_text()
    begin, end = text.index("[tokenizer]"), text.index("[", text.index("[tokenizer]") + 1)
    table = "\n".join(f"{name} = {_toml(value)}" for name, value in tokenizer.items())
    file.write_text(f"{text[:begin]}[tokenizer]\n{table}\n\n{text[end:]}")
    return file


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {json.dumps(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)


def test_each_word_begins_with_its_vector_and_the_others_with_random_ones(tmp_path: Path) -> None:
    outcome = sublayer("train", written(tmp_path), "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    tokenizer = read(tmp_path / "run").tokenizer
    # A word of the file that no training text has is known, as it is once normalized; what is two words is none.
    taken = {word: tokenizer.encode([word])[0] for word in (*WORDS[:4], "elsewhere", "0000")}
    assert all(len(ids) == 1 and ids[0] != tokenizer.unknown_id for ids in taken.values())
    assert f"vectors of 6 of {tokenizer.vocab_size} tokens: " in outcome.err
    table = load_file(tmp_path / "run" / "model" / "model.safetensors")["encoder.embedding.tokens.weight"]
    assert table.shape == (tokenizer.vocab_size, 6)
    rows = [ids[0] for ids in taken.values()]
    wanted = torch.from_numpy(VECTORS[[0, 1, 2, 3, 4, 6]])
    # In the size of the table's own, so one number stands between them and the file's.
    ratio = table[rows] / wanted
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4)
    others = table[[row for row in range(len(table)) if row not in rows]]
    assert torch.allclose(table[rows].std(), others.std(), rtol=0.3)
    assert len({tuple(row.tolist()) for row in others}) == len(others)
    # The run's own recipe says which file it was, and the card what it was for.
    assert "sha256" in (tmp_path / "run" / "recipe.toml").read_text()
    assert "vectors of words of" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_run_that_began_with_vectors_goes_on_and_can_be_begun_again(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert sublayer("train", file, "--out", tmp_path / "run").code == 0
    again = sublayer("train", file, "--out", tmp_path / "run", "--resume", "--set", "training.steps=2")
    assert again.code == 0, again.err
    copied = sublayer("train", tmp_path / "run" / "recipe.toml", "--out", tmp_path / "again")
    assert copied.code == 0, copied.err


def test_only_the_first_words_are_taken(tmp_path: Path) -> None:
    outcome = sublayer("train", written(tmp_path), "--out", tmp_path / "run", "--set", "start.words=3")
    assert outcome.code == 0, outcome.err
    tokenizer = read(tmp_path / "run").tokenizer
    assert f"vectors of 3 of {tokenizer.vocab_size} tokens: " in outcome.err
    assert tokenizer.encode(["elsewhere"])[0] == [tokenizer.unknown_id]


def test_vectors_that_cannot_be_begun_with(tmp_path: Path) -> None:
    for number, (settings, says) in enumerate(
        (
            (["model.embedding.width=8"], "have 6 numbers, and those of the model 8"),
            (["start.path=nowhere.vec"], "nowhere.vec does not exist"),
            (["tokenizer={type='bpe'}"], "start.type = 'vectors' needs tokenizer.type = 'words', not 'bpe'"),
            (["start.type=nothing"], "start.type"),
            (["adapter={rank=2}"], "adapter is set, but start names no model"),
            ([f"start.sha256={'0' * 64}"], "and start.sha256 is 000000000000"),
        )
    ):
        file = written(tmp_path / str(number))
        over = [word for setting in settings for word in ("--set", setting)]
        outcome = sublayer("train", file, "--out", tmp_path / "run", *over)
        assert outcome.code == 2, (settings, outcome.err)
        assert says in outcome.err, outcome.err
        assert not (tmp_path / "run").exists()


def test_vectors_of_another_language_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path)
    (tmp_path / "some.vec").write_text("two#words 1 2 3 4 5 6\n")
    outcome = sublayer("train", file, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "has a vector for no word of the text" in outcome.err
