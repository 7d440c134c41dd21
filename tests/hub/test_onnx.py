"""Encoders as ONNX files, which `onnxruntime` runs: texts of any length, any number at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from parity import relative
from torch import Tensor

from checkpoints import tiny_llama, tiny_tokenizer
from laws.models import redraw
from small_run import sublayer
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.hub.onnx import export_onnx
from sublayer.models import build_model

LABELS = ("sport", "world", "science")
TOKENIZER = tiny_tokenizer()


def encoder(head: config.Head, position: config.Position | None = None, **over: Any) -> config.EncoderOnly:
    block = config.Block(
        attention=config.Attention(heads=4, window=over.pop("window", None)),
        feed_forward=config.PositionWise(hidden=36, activation="gelu"),
        norm_placement=over.pop("norm_placement", "pre"),
    )
    parts: dict[str, Any] = {
        "dim": 24,
        "vocab_size": TOKENIZER.vocab_size,
        "max_length": 40,
        "embedding": config.Embedding(scale=False),
        "encoder": config.Stack(layers=2, block=block, position=position or config.Rotary()),
        "head": head,
    }
    return config.EncoderOnly(**parts | over)


BERT = config.Embedding(scale=False, token_types=2, norm=config.LayerNorm())
MODELS = {
    "masked language": encoder(config.MaskedLanguage()),
    "BERT's classes": encoder(
        config.Classification(labels=LABELS, pooling="class"),
        config.Learned(),
        pooler=True,
        norm_placement="post",
        embedding=BERT,
    ),
    "tags, windows": encoder(config.Tagging(labels=LABELS), window=3),
    "sentences": encoder(config.SentenceEmbedding(), config.Sinusoidal()),
}


def asked(batch: int, length: int, types: bool) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(batch * 100 + length)
    lengths = torch.randint(1, length + 1, (batch,), generator=draw)
    lengths[0] = length
    shape = (batch, length)
    found = {
        "input_ids": torch.randint(TOKENIZER.vocab_size, shape, generator=draw),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
    }
    return found | ({"token_type_ids": torch.randint(2, shape, generator=draw)} if types else {})


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_the_same(name: str, tmp_path: Path) -> None:
    model = build_model(MODELS[name]).eval()
    redraw(model, 2)
    names = export_onnx(tmp_path / "model.onnx", ModelBundle(model, TOKENIZER))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == names[:-1]
    assert [each.name for each in session.get_outputs()] == names[-1:]
    for batch, length in ((2, 7), (1, 1), (3, 40), (5, 12)):
        inputs = asked(batch, length, types="token_type_ids" in names)
        [found] = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        real = inputs["attention_mask"].bool()
        with torch.no_grad():
            ours = model(inputs["input_ids"], real.sum(1), inputs.get("token_type_ids"))
        where = real if ours.dim() == 3 else torch.ones(batch, dtype=torch.bool)
        assert relative(torch.from_numpy(found)[where], ours[where]) < 1e-5


def test_the_command(tmp_path: Path) -> None:
    model = build_model(MODELS["sentences"])
    write(tmp_path / "own", ModelBundle(model, TOKENIZER), ModelCard("", "A model for tests.\n"))
    outcome = sublayer("export", tmp_path / "own", tmp_path / "out" / "model.onnx", "--format", "onnx")
    assert outcome.code == 0, outcome.err
    assert "(input_ids, attention_mask, embeddings)" in outcome.out
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    theirs = tiny_llama(tmp_path / "theirs")
    assert sublayer("pull", theirs, tmp_path / "own").code == 0
    outcome = sublayer("export", tmp_path / "own", tmp_path / "model.onnx", "--format", "onnx")
    assert outcome.code == 2
    assert "of the kind 'decoder-only'" in outcome.err
    assert "--format gguf" in outcome.err
    assert not (tmp_path / "model.onnx").exists()


def test_what_the_exporter_cannot_say_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbling(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", stumbling)
    bundle = ModelBundle(build_model(MODELS["sentences"]), TOKENIZER)
    with pytest.raises(CheckpointError, match=r"no ONNX for a part of this model \(no such operator\)"):
        export_onnx(tmp_path / "model.onnx", bundle)
