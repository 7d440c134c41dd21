"""The command `attend`, from a model folder to a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sublayer import config
from sublayer.cli.attend import attend
from sublayer.errors import InputError
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.models import EncoderDecoder
from sublayer.text import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    lines = ["Where are my keys?", "The keys are on the table.", "¿Dónde están mis llaves?"] * 4
    tokenizer = Tokenizer.train(lines, config.Subwords(vocab_size=300))
    tree = config.preset("tiny").model_copy(update={"vocab_size": tokenizer.vocab_size, "max_length": 48})
    bundle = ModelBundle(EncoderDecoder(tree), tokenizer, config.Decoding(beam=2).plain())
    path = tmp_path_factory.mktemp("model") / "tiny"
    write(path, bundle, ModelCard(recipe="", text=""))
    return path


def test_a_given_translation(folder, tmp_path, capsys):
    out = tmp_path / "a.svg"
    attend(folder, "Where are my keys?", target="¿Dónde están mis llaves?", out=out, device="cpu")
    assert f"¿Dónde están mis llaves?\nThe picture is {out}" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert "→ ¿Dónde están mis llaves?" in text
    assert ">Where are my keys?<" in text


def test_the_models_own_translation(folder, tmp_path, capsys):
    out = tmp_path / "a.png"
    attend(folder, "Where are my keys?", out=out, layers=[0], device="cpu")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"The picture is {out}\n")


@pytest.mark.parametrize(
    ("sentence", "target", "message"),
    [
        ("", None, "text is empty"),
        (" \t\n", None, "text is empty"),
        ("Where?", " ", "--target is empty"),
        ("\udcff", None, "not UTF-8"),
        ("Where are my keys? " * 40, None, "48"),
        ("Where?", "llaves " * 60, "48"),
    ],
)
def test_text_that_the_model_cannot_take(folder, tmp_path, sentence, target, message):
    with pytest.raises(InputError, match=message):
        attend(folder, sentence, target=target, out=tmp_path / "a.png", device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_bad_suffix_is_told_before_the_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match=r"\.gif"):
        attend(tmp_path / "no such model", "Where?", out=tmp_path / "a.gif")
