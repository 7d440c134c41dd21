"""Folders of adapters: what they compute, against the equation written out; where their base is; what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import relative
from safetensors.torch import load_file, save_file

import sublayer
from adapted import by_hand, write_adapters, write_base
from small_run import tree as translating
from small_task import DECODER_ONLY, headed
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.generation.generator import Generator
from sublayer.hub.adapted import weights_sum
from sublayer.hub.folder import read
from sublayer.hub.merging import merge
from sublayer.models import EncoderDecoder, Model
from sublayer.nn.adapter import LowRank

TREES: dict[str, config.Model | None] = {
    "llama": None,
    "decoder-only": config.DecoderOnly.parse({**DECODER_ONLY, "vocab_size": 304}, "t"),
    "encoder-decoder": translating(304),
    "encoder-only": config.EncoderOnly.parse({**headed("classification", labels=["a", "b"]), "vocab_size": 304}, "t"),
}
TOKENS = torch.tensor([[5, 9, 40, 200, 17, 8], [7, 7, 280, 4, 61, 90]])


@torch.no_grad()
def outputs(model: Model) -> torch.Tensor:
    return model(TOKENS, None, TOKENS.flip(1)) if isinstance(model, EncoderDecoder) else model(TOKENS)


@pytest.mark.parametrize("kind", TREES)
def test_loaded_is_the_equation_merged_or_not(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path / "base", TREES[kind])
    write_adapters(tmp_path / "adapters", base)
    tensors = load_file(tmp_path / "adapters" / "adapter.safetensors")
    assert tensors
    assert all(name.endswith((".down", ".up")) for name in tensors)
    expected = outputs(by_hand(read(base).model, tensors))
    assert relative(outputs(read(base).model.double()), expected) > 0.1, "the adapters do something"
    adapted = read(tmp_path / "adapters", merged=False).model
    assert any(isinstance(module, LowRank) for module in adapted.modules())
    merged = read(tmp_path / "adapters").model
    assert not any(isinstance(module, LowRank) for module in merged.modules())
    assert relative(outputs(adapted.double()), expected) < 1e-12
    # Weights in float32: each is rounded once more.
    assert relative(outputs(merged.double()), expected) < 1e-5
    # What has no adapter is the base's, to the bit.
    theirs, ours = (dict(read(folder).model.named_parameters()) for folder in (base, tmp_path / "adapters"))
    same = {name for name in theirs if torch.equal(theirs[name], ours[name])}
    assert theirs.keys() - same == {name.removesuffix("down") + "weight" for name in tensors if name.endswith("down")}


def test_merged_is_a_model_like_any_other(tmp_path: Path) -> None:
    """Tokenizer, chat template, settings of generating, where it came from; and no base is needed any more."""
    base = write_base(tmp_path / "base")
    write_adapters(tmp_path / "adapters", base)
    (tmp_path / "adapters" / "test.jsonl").write_text('{"messages": []}\n')
    expected = outputs(read(tmp_path / "adapters").model)
    held = read(base)
    merge(tmp_path / "adapters", tmp_path / "merged")
    for own in (base, tmp_path / "adapters"):
        with pytest.raises(CheckpointError, match="holds what is to be read"):
            merge(tmp_path / "adapters", own)
    shutil.rmtree(base)
    found = read(tmp_path / "merged")
    assert torch.equal(outputs(found.model), expected)
    assert found.adapted is None
    assert found.tokenizer.fingerprint == held.tokenizer.fingerprint
    assert found.tokenizer.chat_template == held.tokenizer.chat_template
    assert (found.decoding, found.imported) == (held.decoding, held.imported)
    assert found.model.config == held.model.config
    for name in ("test.jsonl", "recipe.toml", "tokenizer.json", "sublayer_tokenizer.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "adapters" / name).read_bytes()
    assert "rank 3" in (tmp_path / "merged" / "README.md").read_text()
    with pytest.raises(CheckpointError, match="holds no adapters: there is nothing to merge"):
        merge(tmp_path / "merged", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_load_gives_what_the_base_is_for(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapters(tmp_path / "adapters", base)
    found, plain = (sublayer.load(folder) for folder in (tmp_path / "adapters", base))
    assert isinstance(found, Generator)
    assert isinstance(plain, Generator)
    assert found.decoding == plain.decoding
    assert found.generate(["the cat"])[0].tokens != plain.generate(["the cat"])[0].tokens


def test_a_base_is_found_beside_the_adapters_too(tmp_path: Path) -> None:
    base = write_base(tmp_path / "one" / "base")
    write_adapters(tmp_path / "one" / "adapters", base, path="../base")
    expected = outputs(read(tmp_path / "one" / "adapters").model)
    (tmp_path / "one").rename(tmp_path / "other")
    assert torch.equal(outputs(read(tmp_path / "other" / "adapters").model), expected)


def test_adapters_on_adapters(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapters(tmp_path / "first", base)
    second = write_adapters(tmp_path / "second", tmp_path / "first", config.LowRank(rank=1), seed=5)
    assert relative(outputs(read(tmp_path / "second").model), outputs(second)) < 1e-5
    write_adapters(tmp_path / "first", base, seed=6)
    with pytest.raises(CheckpointError, match=r"adapters for another model than the one in .*first"):
        read(tmp_path / "second")


def test_a_narrow_base_stays_narrow(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype=torch.bfloat16)
    write_adapters(tmp_path / "adapters", base)
    found = read(tmp_path / "adapters").model
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}


def described(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def other_targets(folder: Path) -> None:
    described(folder, lambda data: data["adapter"].update(targets=["*.output"]))


def no_targets(folder: Path) -> None:
    described(folder, lambda data: data["adapter"].update(targets=["*.nothing"]))


def one_adapter_less(folder: Path) -> None:
    tensors = load_file(folder / "adapter.safetensors")
    del tensors["decoder.layers.1.feed_forward.down.up"]
    save_file(tensors, folder / "adapter.safetensors")


def other_rank(folder: Path) -> None:
    described(folder, lambda data: data["adapter"].update(rank=4))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda f: shutil.rmtree(f.parent / "base"),
            r"adapters for the model in .*base, and there is none\. Put it back",
        ),
        (
            lambda f: write_base(f.parent / "base", seed=7),
            r"for another model than the one in .*base: its weights have the SHA-256 .*base\.path",
        ),
        (lambda f: (f.parent / "base" / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda f: (f / "adapter.safetensors").unlink(), r"adapter\.safetensors is missing"),
        (lambda f: (f / "adapter.safetensors").write_bytes(b"x"), r"adapter\.safetensors is damaged"),
        (lambda f: described(f, lambda data: data.pop("base")), r"config\.json lacks or garbles 'base'"),
        (lambda f: described(f, lambda data: data.update(adapter=3)), r"config\.json.*adapter"),
        (lambda f: described(f, lambda data: data["adapter"].update(rnk=3)), r"adapter.*rnk.*did you mean 'rank'"),
        (no_targets, r"adapter\.targets: '\*\.nothing' names no linear map"),
        (other_targets, r"do not fit the model: unexpected: decoder\.layers\.0\.feed_forward\.down\.down; "),
        (one_adapter_less, r"do not fit the model: missing: decoder\.layers\.1\.feed_forward\.down\.up\."),
        (other_rank, r"do not fit the model: misshapen: "),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], says: str) -> None:
    base = write_base(tmp_path / "base")
    folder = tmp_path / "adapters"
    write_adapters(folder, base)
    spoil(folder)
    with pytest.raises(sublayer.SublayerError, match=says) as caught:
        sublayer.load(folder)
    assert "\n" not in str(caught.value)


def test_the_sum_is_of_the_file(tmp_path: Path) -> None:
    """So that anybody can check it with sha256sum."""
    base = write_base(tmp_path / "base")
    assert weights_sum(base) == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    write_adapters(tmp_path / "adapters", base)
    assert json.loads((tmp_path / "adapters" / "config.json").read_text())["base"]["sha256"] == weights_sum(base)
