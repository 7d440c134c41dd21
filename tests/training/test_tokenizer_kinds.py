"""Every task trains and is used with tokenizers of words, characters and bytes, through the real commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

import small_run
from small_run import sublayer
from small_task import TASKS, plain, write_text
from sublayer.hub.folder import read

KINDS: dict[str, dict[str, Any]] = {
    "words": {"type": "words", "normalization": {"lowercase": True}},
    "characters": {"type": "characters", "normalization": {"unicode": "NFC"}},
    "bytes": {"type": "bytes"},
}
# How many tokens of its own each has of the made-up language: 12 words, a full stop, line ends; letters; bytes.
SIZES = {"words": range(4 + 12, 4 + 17 + 10), "characters": range(20, 40), "bytes": range(260, 270)}
USES: dict[str, list[str]] = {
    "causal": ["generate", "RUN", "BA co", "--max-tokens", "5"],
    "masked": ["fill", "RUN", "ba [MASK] di ."],
    "classification": ["classify", "RUN", "ba Co di"],
    "tagging": ["tag", "RUN", "ba zz di"],
    "embedding": ["embed", "RUN", "ba co di", "fu ge"],
    "instructions": ["evaluate", "RUN"],
}


def run(folder: Path, name: str, tokenizer: dict[str, Any]) -> Path:
    """A run of a few steps; its folder."""
    over: dict[str, Any] = {"data": {"max_length": 64}, "model": {"max_length": 64}}
    if name == "translation":
        file = small_run.write(folder, **over, training={"steps": 6})
        data = small_run.recipe(**over, training={"steps": 6})
    else:
        write_text(folder)
        data = plain(name, **over, training={"steps": 6, "batches": {"tokens": 640}})
        file = folder / "recipe.toml"
    file.write_text(tomli_w.dumps({**data, "tokenizer": tokenizer}), encoding="utf-8")
    outcome = sublayer("train", file, "--out", folder / "run")
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*TASKS, "translation"])
def test_a_task_with_another_tokenizer(tmp_path: Path, name: str, kind: str) -> None:
    folder = run(tmp_path, name, KINDS[kind])
    found = read(folder)
    assert found.tokenizer.vocab_size == found.model.config.vocab_size
    assert found.tokenizer.vocab_size in SIZES[kind]
    assert sublayer("describe", folder / "model").code == 0
    assert sublayer("describe", tmp_path / "recipe.toml").code == 0
    use = USES.get(name, ["translate", "RUN", "ba co zz"] if name == "translation" else None)
    if use is not None:
        outcome = sublayer(*(folder if word == "RUN" else word for word in use))
        assert outcome.code == 0, outcome.err
        assert outcome.out.endswith("\n")
    exported = sublayer("export", folder, tmp_path / "exported")
    if exported.code == 0:
        (ids,) = found.tokenizer.encode_with_special_tokens(["ba co zz.\n"])
        import transformers

        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
        assert theirs("ba co zz.\n")["input_ids"][: len(ids)] == ids
    else:
        assert "cannot" in exported.err or "no family" in exported.err, exported.err


def test_another_tokenizer_can_be_set_on_the_command_line(tmp_path: Path) -> None:
    file = small_run.write(tmp_path)
    over = ["--set", "tokenizer.type=characters", "--set", "tokenizer.normalization.lowercase=true"]
    outcome = sublayer("train", file, "--out", tmp_path / "run", *over, "--set", "data.max_length=20")
    assert outcome.code == 0, outcome.err
    assert read(tmp_path / "run").tokenizer.encode(["BA"]) == read(tmp_path / "run").tokenizer.encode(["ba"])
