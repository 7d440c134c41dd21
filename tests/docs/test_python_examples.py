"""Every example of docs/python.md runs, on tiny models of random weights under the names that the page uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import sublayer
from docs.pages import ROOT, anchor, blocks
from generation.prompted import tokenizer as subwords
from readers import write_readers
from small_run import tree
from sublayer import config
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.models import Model, build_model
from sublayer.text import Tokenizer

PAGE = ROOT / "docs" / "python.md"
CHAT = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}assistant:"


def decoder_only(vocab_size: int) -> config.DecoderOnly:
    block = config.Block(
        attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=32), norm_placement="pre"
    )
    return config.DecoderOnly(
        dim=16,
        vocab_size=vocab_size,
        max_length=128,
        decoder=config.Stack(layers=1, block=block, position=config.Rotary()),
    )


def save(folder: Path, model: Model, tokenizer: Tokenizer) -> None:
    """Write a model whose weights are large enough that its texts differ."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    write(folder, ModelBundle(model.eval(), tokenizer), ModelCard("", "A model for tests.\n"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model that the page names."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    plain = subwords()
    translator = tree(plain.vocab_size).model_copy(update={"max_length": 128})
    save(folder / "runs" / "own-text" / "model", build_model(translator), plain)
    save(folder / "models" / "llm", build_model(decoder_only(plain.vocab_size)), plain)
    talking = Tokenizer(plain.backend, chat_template=CHAT)
    save(folder / "models" / "chat", build_model(decoder_only(plain.vocab_size)), talking)
    write_readers(folder / "models")
    return folder


SECTIONS = list(dict.fromkeys(block.section for block in blocks(PAGE, "python")))


@pytest.mark.parametrize("section", SECTIONS)
def test_examples_run(section: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of a section build on one another."""
    monkeypatch.chdir(models)
    names: dict[str, Any] = {"__name__": f"docs.python.{section}"}
    for block in blocks(PAGE, "python"):
        if block.section == section:
            exec(compile(block.text, f"docs/python.md#{section}", "exec"), names)  # The page is ours.


def test_every_public_name_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name in sublayer.__all__ if not re.search(rf"`(sublayer\.)?{name}\b", text)] == []


def test_every_section_with_a_signature_has_an_example() -> None:
    headings = {anchor(heading) for heading in re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)}
    assert headings - set(SECTIONS) == {"training"}
