"""Checkpoints that are not what they claim to be are refused by the name of what is wrong, before room is made."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_gguf import write_gguf
from torch import Tensor

from adapted import write_base
from checkpoints import tiny_llama
from sublayer import config
from sublayer.errors import CheckpointError, ConfigError, InputError
from sublayer.generation.translator import Translator
from sublayer.hub.folder import read
from sublayer.hub.gguf_layout import require_layout
from sublayer.hub.importing import import_folder
from sublayer.hub.pulling import pull, read_elsewhere
from sublayer.models import EncoderDecoder
from sublayer.tasks.confusion import Confusion, draw_confusion
from sublayer.text.lines import read_lines
from sublayer.text.sentencepiece import require_charsmap
from sublayer.training.runtime import pick_device


def with_tensor(folder: Path, name: str, change: Callable[[Tensor], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_setting(folder: Path, **settings: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


# --- weights that are not finite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    folder = tiny_llama(tmp_path / "llama")
    with_tensor(folder, name, lambda tensor: tensor[1, :2].fill_(value))
    with pytest.raises(CheckpointError, match=rf"not finite: {name} \(2 of 512\)"):
        import_folder(folder)
    found = import_folder(folder, allow_nonfinite=True).model
    assert not all(bool(torch.isfinite(parameter).all()) for parameter in found.parameters())
    pull(str(folder), tmp_path / "own", allow_nonfinite=True)
    with pytest.raises(CheckpointError, match="not finite"):
        read(tmp_path / "own")
    read(tmp_path / "own", allow_nonfinite=True)


def test_what_a_type_cannot_hold_is_named(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    with_tensor(folder, "model.norm.weight", lambda tensor: tensor.fill_(1e6))
    import_folder(folder)
    with pytest.raises(CheckpointError, match=r"decoder\.norm\.weight.*once it is float16"):
        import_folder(folder, dtype=torch.float16)


def test_numbers_whose_sum_overflows_are_finite(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    with_tensor(folder, "model.norm.weight", lambda tensor: tensor.fill_(3e38))
    import_folder(folder)


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": 1000},
        {"max_position_embeddings": 10**9},
        {"max_position_embeddings": 2**24, "head_dim": 64},
        {"vocab_size": 2**31},
        {"vocab_size": 2**24},
        {"hidden_size": 2**24, "intermediate_size": 2**24},
    ],
)
def test_sizes_that_the_file_contradicts_are_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(CheckpointError) as caught:
        import_folder(with_setting(tiny_llama(tmp_path / "llama"), **settings))
    assert len(str(caught.value)) < 5000


def test_layers_that_a_folder_of_ours_does_not_hold(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "own")
    described = json.loads((folder / "config.json").read_text())
    described["model"]["decoder"]["layers"] = 1000
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"1,000 layers, and .* holds 14 tensors"):
        read(folder)


def gguf_with(path: Path, at: int, value: bytes) -> Path:
    held = bytearray(path.read_bytes())
    held[at : at + len(value)] = value
    path.write_bytes(held)
    return path


def test_a_gguf_file_is_laid_out_as_it_says(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", "llama")
    require_layout(path)
    held = path.read_bytes()
    array = held.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    tensor = held.index(b"blk.1.ffn_down.weight") + len("blk.1.ffn_down.weight")
    kind, offset = tensor + 4 + 16, tensor + 4 + 16 + 4
    begins = struct.unpack_from("<Q", held, offset)[0]
    cases = {
        "tensors and": (8, struct.pack("<Q", 2**63)),
        "and .* settings": (16, struct.pack("<Q", 2**63)),
        "tokens claims to have": (array, struct.pack("<Q", 2**63)),
        "claims to be longer": (24, struct.pack("<Q", 2**62)),
        "stands at .* and should at": (offset, struct.pack("<Q", begins - 32)),
        "stands at .* should": (offset, struct.pack("<Q", begins + 1)),
        "unknown type": (kind, struct.pack("<I", 999)),
        "dimensions": (tensor, struct.pack("<I", 2**31)),
        "claims to be of the shape": (tensor + 4, struct.pack("<Q", 2**40)),
        "version": (4, struct.pack("<I", 77)),
    }
    for said, (at, value) in cases.items():
        path.write_bytes(held)
        with pytest.raises(CheckpointError, match=said):
            read_elsewhere(gguf_with(path, at, value))
    path.write_bytes(held)
    # A tensor of another type is of another size.
    with pytest.raises(CheckpointError, match=r"stands at|beyond the end"):
        read_elsewhere(gguf_with(path, kind, struct.pack("<I", 1)))
    path.write_bytes(held[:-64])
    with pytest.raises(CheckpointError, match="beyond the end"):
        read_elsewhere(path)


def test_a_table_of_characters_that_leads_outside_of_itself() -> None:
    units = struct.pack("<256I", *([1 << 10] + [0] * 255))
    require_charsmap(b"")
    require_charsmap(struct.pack("<I", len(units)) + units + b"a\0")
    for wrong in (
        b"\xff\xff\xff\xff" + units,
        struct.pack("<I", 1024) + struct.pack("<256I", *([1 << 20] + [0] * 255)) + b"a\0",
        struct.pack("<I", 4) + b"\0\0\0\0" + b"\xff",
        b"abc",
    ):
        with pytest.raises(ValueError):
            require_charsmap(wrong)


# --- heads, remedies, devices, pictures --------------------------------------------------------------------------


def test_a_masked_head_is_found_in_the_tensors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import BertConfig, BertForPreTraining

    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "vocab_size": 30,
    }
    torch.manual_seed(0)
    BertForPreTraining(BertConfig(**small)).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.WARNING, "sublayer"):
        model = import_folder(tmp_path).model
    assert model.config.head.type == "masked-language"  # pyright: ignore[reportAttributeAccessIssue]
    assert "cls.seq_relationship.weight" in caplog.text
    settings["architectures"] = ["BertModel"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sublayer"):
        assert import_folder(tmp_path).model.config.head.type == "none"  # pyright: ignore[reportAttributeAccessIssue]
    assert "cls.predictions.transform.dense.weight" in caplog.text


def test_remedies_say_what_helps(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    plain = json.loads((folder / "config.json").read_text())
    del plain["model_type"]
    (folder / "config.json").write_text(json.dumps(plain | {"type_vocab_size": 2}))
    with pytest.raises(CheckpointError, match=r'looks like BERT\'s\. Write the line "model_type": "bert" into it'):
        import_folder(folder)
    for files, said in (
        (["model.pt", "dict.en.txt"], "fairseq"),
        (["a.pt"], "OpenNMT"),
        (["x.npz", "y.yml"], "Marian"),
    ):
        other = tmp_path / said
        other.mkdir()
        for name in files:
            (other / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match=f"looks like a checkpoint of {said}.*convert it"):
            import_folder(other)


def test_labels_that_disagree_with_their_number() -> None:
    from sublayer.hub.families.bert import BERT

    says = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}, "num_labels": 50}
    with pytest.raises(CheckpointError, match=r"num_labels = 50.*names 2 labels"):
        BERT.read(says)


@pytest.mark.parametrize("name", ["UTF-16", "UTF-32"])
def test_a_file_in_utf_16_is_converted_from_utf_16(tmp_path: Path, name: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("año\n".encode(name))
    with pytest.raises(Exception, match=f"iconv -f {name} -t UTF-8"):
        list(read_lines(path))
    path.write_bytes(path.read_bytes().decode(name).encode())  # what the remedy does
    assert list(read_lines(path)) == ["año"]


def test_nothing_is_computed_on_the_meta_device() -> None:
    with pytest.raises(ConfigError, match="--device meta cannot be used here"):
        pick_device("meta")


def test_a_label_is_text_and_no_formula(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from sublayer.drawing import attempt, drawing

    labels = ["$5 to $10", "$x^{", "a_b", "\\frac"]
    confusion = Confusion(torch.eye(4, dtype=torch.int64).numpy())
    with drawing():
        draw_confusion(confusion, labels, tmp_path / "a.png", "$x^{ and $5")
    assert (tmp_path / "a.png").is_file()

    def fails() -> None:
        raise ValueError("no such font\nand more")

    with caplog.at_level(logging.WARNING, "sublayer"):
        attempt(tmp_path / "b.png", fails)
    assert "b.png could not be drawn (no such font)" in caplog.text


# --- decoding ----------------------------------------------------------------------------------------------------


def test_logits_that_are_not_finite_are_noticed_and_traced(tmp_path: Path) -> None:
    from checkpoints import tiny_tokenizer
    from small_run import tree

    tokenizer = tiny_tokenizer()
    model = EncoderDecoder(tree(tokenizer.vocab_size)).eval()
    with torch.no_grad():
        model.get_parameter("encoder.layers.0.feed_forward.down.bias").fill_(float("inf"))
    translator = Translator(model, tokenizer, config.Decoding())
    for beam in (1, 3):
        with pytest.raises(InputError, match=r"in float32: encoder\.layers\.0\.feed_forward(\.down)? gives NaN"):
            translator.translate(["the cat"], beam=beam)
    for wrong in ({"beam": 10**6}, {"length_penalty": 1e308}, {"beam": 2, "n_best": 3}):
        with pytest.raises((ConfigError, InputError)):
            translator.translate(["the cat"], **wrong)
