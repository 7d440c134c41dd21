"""Models that were trained here, as other libraries load them: the same logits, and what cannot be said is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import exactly, relative
from torch import Tensor

from laws.models import redraw
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.exporting import export
from sublayer.hub.importing import import_folder
from sublayer.models import build_model

SOURCE = torch.tensor([[5, 9, 4, 30, 11, 8, 21], [7, 7, 40, 6, 0, 0, 0]])
LENGTHS = torch.tensor([7, 4])
TARGET = torch.tensor([[3, 8, 12, 3, 33, 9], [3, 40, 22, 5, 5, 17]])
TOKENS = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def translation(norm_placement: str = "post", layout: str = "interleaved", **over: Any) -> config.EncoderDecoder:
    """A model as our recipes have them, small: sinusoids, everything tied, scaled embeddings."""

    def stack(layers: int) -> config.Stack:
        block = config.Block(
            attention=config.Attention(heads=4, bias=over.get("bias", True)),
            feed_forward=config.PositionWise(hidden=36, activation=over.get("activation", "relu")),
            norm=over.get("norm", config.LayerNorm()),
            norm_placement=norm_placement,
            dropout=0.1,
        )
        return config.Stack(layers=layers, block=block, position=over.get("position", config.Sinusoidal(layout=layout)))

    return config.EncoderDecoder(
        dim=24,
        vocab_size=45,
        max_length=40,
        tied=over.get("tied", "all"),
        output_bias=over.get("output_bias", False),
        embedding=config.Embedding(dropout=0.1),
        encoder=stack(2),
        decoder=stack(3),
    )


def encoder(head: config.Head, position: config.Position | None = None, **over: Any) -> config.EncoderOnly:
    """An encoder as BERT has it, or nearly so."""
    block = config.Block(
        attention=config.Attention(heads=4, bias=over.get("bias", True)),
        feed_forward=config.PositionWise(hidden=36, activation="gelu"),
        norm_placement=over.get("norm_placement", "post"),
    )
    return config.EncoderOnly(
        dim=24,
        vocab_size=45,
        max_length=40,
        embedding=config.Embedding(scale=False, token_types=over.get("token_types", 0), norm=config.LayerNorm()),
        encoder=config.Stack(layers=2, block=block, position=position or config.Learned()),
        pooler=over.get("pooler", False),
        head=head,
    )


def built(tree: config.EncoderDecoder | config.EncoderOnly) -> Any:
    model = build_model(tree).to(torch.float64).eval()
    redraw(model, 1)
    return model


def loaded(folder: Path, kind: str = "AutoModelForSeq2SeqLM") -> Any:
    with exactly():
        model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


@torch.no_grad()
def logits(theirs: Any) -> Tensor:
    real = torch.arange(SOURCE.shape[1]) < LENGTHS[:, None]
    tokens = torch.where(real, SOURCE, theirs.config.pad_token_id)
    with exactly():
        return theirs(input_ids=tokens, attention_mask=real.long(), decoder_input_ids=TARGET).logits


@pytest.mark.parametrize(
    ("tree", "family"),
    [
        pytest.param(translation("post", "halves"), "marian", id="Marian's own form"),
        pytest.param(translation("post", "halves", activation="silu"), "marian", id="silu"),
        pytest.param(translation("post", "halves", activation="gelu", output_bias=True), "marian", id="gelu, bias"),
        pytest.param(translation("post"), "marian", id="the paper's"),
        pytest.param(translation("post", bias=False), "marian", id="the paper's, without biases"),
        pytest.param(translation("pre"), "pegasus", id="the demo's"),
        pytest.param(translation("pre", norm=config.LayerNorm(bias=False)), "pegasus", id="pre-norm without biases"),
        pytest.param(
            translation("pre", position=config.Sinusoidal(layout="halves", spacing="inclusive", offset=2)),
            "m2m_100",
            id="tensor2tensor's positions",
        ),
    ],
)
def test_encoder_decoders(tree: config.EncoderDecoder, family: str, tmp_path: Path) -> None:
    """What `transformers` loads computes the same, whatever had to be said in another way; and so do we, read again."""
    model = built(tree)
    with torch.no_grad():
        ours = model(SOURCE, LENGTHS, TARGET)
    # M2M100 counts its positions from past the padding token's number.
    tokens = TOKENS | ({"pad_token_id": 1} if family == "m2m_100" else {})
    assert export(tmp_path / "out", model, tokens=tokens).name == family
    again = import_folder(tmp_path / "out").model
    with torch.no_grad():
        assert relative(again(SOURCE, LENGTHS, TARGET), ours) < 1e-12
    assert relative(logits(loaded(tmp_path / "out")), ours) < 1e-9


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (translation("pre", norm=config.RMSNorm()), "encoder.block.norm.type = 'rms' would become 'layer'"),
        (translation("post", position=config.Rotary()), "position"),
        (translation("post", tied="none"), "tied = 'none' would become 'all'"),
        (translation("sandwich"), "encoder.block.norm_placement = 'sandwich' would become 'post'"),
        (translation("post", activation="tanh", norm=config.LayerNorm(eps=1e-3)), "norm.eps = 0.001"),
    ],
)
def test_what_cannot_be_said_is_named(tree: config.EncoderDecoder, named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        export(tmp_path / "out", built(tree), tokens=TOKENS)
    assert named in str(caught.value)
    assert not (tmp_path / "out").exists()


LABELS = ("sport", "world", "science")


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        pytest.param(encoder(config.MaskedLanguage(), token_types=2), "AutoModelForMaskedLM", id="masked"),
        pytest.param(encoder(config.MaskedLanguage()), "AutoModelForMaskedLM", id="masked, no kinds"),
        pytest.param(encoder(config.Tagging(labels=LABELS)), "AutoModelForTokenClassification", id="tags"),
        pytest.param(
            encoder(config.Classification(labels=LABELS, activation=None), pooler=True),
            "AutoModelForSequenceClassification",
            id="text",
        ),
        pytest.param(
            encoder(
                config.Classification(labels=LABELS, activation=None), config.Sinusoidal(), pooler=True, bias=False
            ),
            "AutoModelForSequenceClassification",
            id="text, sinusoids, no biases",
        ),
        pytest.param(encoder(config.NoHead(), pooler=True), "AutoModel", id="base"),
    ],
)
def test_encoders(tree: config.EncoderOnly, kind: str, tmp_path: Path) -> None:
    model = built(tree)
    with torch.no_grad():
        ours = model(SOURCE, LENGTHS)
    assert export(tmp_path / "out", model, tokens={"pad_token_id": 0}).name == "bert"
    theirs = loaded(tmp_path / "out", kind)
    real = torch.arange(SOURCE.shape[1]) < LENGTHS[:, None]
    with exactly(), torch.no_grad():
        found = theirs(input_ids=SOURCE, attention_mask=real.long())
    said = found.logits if hasattr(found, "logits") else found.last_hidden_state
    where = real if said.dim() == 3 else torch.ones(2, dtype=torch.bool)
    assert relative(ours[where], said[where]) < 1e-9
    if isinstance(tree.head, config.Classification | config.Tagging):
        assert tuple(theirs.config.id2label.values()) == LABELS


def test_an_encoder_that_no_family_has_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"encoder.block.norm_placement = 'pre' would become 'post'"):
        export(tmp_path / "out", built(encoder(config.NoHead(), norm_placement="pre")), tokens={})
