"""Folders of sentence-transformers: what is pooled and how, against the equation; there and back; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_rows import SIZES
from parity import Row, assert_same_file, build_oracle, draw_batch, exactly, relative
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.exporting import export
from sublayer.hub.importing import import_folder

FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
BATCH = draw_batch(61, (13, 9, 4))


def modules(folder: Path, *kinds: str, root: str = "") -> None:
    """modules.json as sentence-transformers writes it."""
    found = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else root, "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(found))


def pooling(folder: Path, *chosen: str, **more: Any) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    table = {"word_embedding_dimension": 32} | {f"pooling_mode_{flag}": flag in chosen for flag in FLAGS} | more
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(table))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, Path]:
    """A BERT with a pooler, which nobody reads, and the folder of one whose tokens are averaged and normalized."""
    oracle = build_oracle(Row("bert", "BertModel", SIZES))
    folder = tmp_path / "theirs"
    oracle.save_pretrained(folder)
    modules(folder, "Transformer", "Pooling", "Normalize")
    pooling(folder, "mean_tokens")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": false}')
    return oracle, folder


@torch.no_grad()
def states(oracle: Any) -> Tensor:
    with exactly():
        return oracle(input_ids=BATCH.tokens, attention_mask=BATCH.real.long()).last_hidden_state


def pooled(how: str, states: Tensor) -> Tensor:
    """Text by text, of its own tokens alone."""
    rows = [row[:length] for row, length in zip(states, BATCH.lengths.tolist(), strict=True)]
    by = {
        "cls_token": lambda row: row[0],
        "mean_tokens": lambda row: row.sum(0) / len(row),
        "max_tokens": lambda row: row.max(0).values,
        "lasttoken": lambda row: row[-1],
    }
    return torch.stack([by[how](row) for row in rows])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("how", ["cls_token", "mean_tokens", "max_tokens", "lasttoken"])
def test_vectors(made: tuple[Any, Path], how: str, normalize: bool, tmp_path: Path) -> None:
    oracle, folder = made
    modules(folder, "Transformer", "Pooling", *(["Normalize"] if normalize else []))
    pooling(folder, how)
    imported = import_folder(folder)
    expected = pooled(how, states(oracle))
    if normalize:
        expected = expected / expected.square().sum(-1, keepdim=True).sqrt()
    with torch.no_grad():
        assert relative(imported.model(BATCH.tokens, BATCH.lengths), expected) < 1e-9

    export(tmp_path / "ours", imported.model, family="bert", tokens=imported.origin["tokens"])
    assert_same_file(tmp_path / "ours", folder)
    again = import_folder(tmp_path / "ours")
    assert again.model.config == imported.model.config
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        ours, theirs = (json.loads((place / name).read_text()) for place in (tmp_path / "ours", folder))
        assert ours == theirs


def test_the_length_that_texts_are_cut_to(made: tuple[Any, Path]) -> None:
    _, folder = made

    def longest() -> int | None:
        head = import_folder(folder).model.config.head
        assert isinstance(head, config.SentenceEmbedding)
        return head.longest

    assert longest() == 8
    (folder / "sentence_bert_config.json").unlink()
    assert longest() == 20, "where the positions end"
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 11}')
    assert longest() == 11
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert longest() == 20


def test_older_and_newer_folders(made: tuple[Any, Path]) -> None:
    """The encoder in a folder of its own, trained with a head; the pooling named by one word."""
    oracle, folder = made
    whole = build_oracle(Row("bert", "BertForMaskedLM", SIZES))
    whole.bert.load_state_dict(oracle.state_dict(), strict=False)
    whole.save_pretrained(folder / "0_Transformer")
    (folder / "model.safetensors").unlink()
    modules(folder, "Transformer", "Pooling", root="0_Transformer")
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "mean"}')
    imported = import_folder(folder)
    with torch.no_grad():
        ours = imported.model(BATCH.tokens, BATCH.lengths)
    assert relative(ours, pooled("mean_tokens", states(oracle))) < 1e-9


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_folder(folder)
    return str(caught.value)


def test_what_is_not_supported_is_refused_by_name(made: tuple[Any, Path]) -> None:
    _, folder = made
    modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    assert "Transformer, Pooling, Dense, Normalize" in refused(folder)
    modules(folder, "Transformer", "Pooling", root="../elsewhere")
    assert "outside its folder: ../elsewhere" in refused(folder)
    modules(folder, "Transformer", "Pooling")
    pooling(folder, "cls_token", "mean_tokens")
    assert "asks for the poolings cls, mean" in refused(folder)
    pooling(folder, "weightedmean_tokens")
    assert "pooling_mode_weightedmean_tokens = True" in refused(folder)
    pooling(folder, "mean_tokens", pooling_mode_new=True)
    assert "pooling_mode_new = True" in refused(folder)
    pooling(folder, "mean_tokens")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": true}')
    assert "do_lower_case = True" in refused(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    import_folder(folder)
    (folder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "query: "}, "default_prompt_name": "query"}'
    )
    assert "default_prompt_name = 'query'" in refused(folder)
    (folder / "modules.json").write_text("[{")
    assert "modules.json is damaged" in refused(folder)
