"""What `engine_speed.py` gives to the rivals is the model that sublayer runs, or their ratios compare other work."""

from __future__ import annotations

import sys
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from safetensors.numpy import load_file
from torch import Tensor

from sublayer import config
from sublayer.hub.exporting import export
from sublayer.hub.gguf import read_gguf
from sublayer.hub.importing import import_folder
from sublayer.models import EncoderDecoder, build_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ctranslate2_models
import engine_report
import gguf_models
import translation_models
from engine_contenders import CONTENDERS, PRECISIONS


def language_model(preset: str) -> config.DecoderOnly:
    """The preset in little, with fewer groups of keys than heads where it is a Llama."""
    c = config.preset(preset)
    assert isinstance(c, config.DecoderOnly)
    block = c.decoder.block
    groups = {"kv_heads": 2} if preset == "mini-lm" else {}
    hidden = block.feed_forward.model_copy(update={"hidden": 512})
    block = block.model_copy(
        update={"attention": block.attention.model_copy(update={"heads": 4, **groups}), "feed_forward": hidden}
    )
    decoder = c.decoder.model_copy(update={"layers": 2, "block": block})
    return c.model_copy(update={"dim": 288, "vocab_size": 120, "decoder": decoder})


@pytest.fixture(params=["mini-lm", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Large random weights and biases."""
    torch.manual_seed(0)
    model = build_model(language_model(request.param))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    export(tmp_path, model, family="llama" if request.param == "mini-lm" else "gpt2")
    return tmp_path


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_a_gguf_file_in_float32_holds_the_weights_of_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(tmp_path, build_model(language_model("mini-lm")), family="llama")
    found = read_gguf(gguf_models.gguf_file(tmp_path, "F32"))
    held = load_file(tmp_path / "model.safetensors")
    assert found.headers.keys() == held.keys()
    for name, values in held.items():
        # `read_gguf` puts the rotated pairs back into halves.
        assert torch.equal(found.tensor(name), torch.from_numpy(values)), name


def test_matrices_of_gpt2_are_turned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(tmp_path, build_model(language_model("gpt2")), family="gpt2")
    held = load_file(tmp_path / "model.safetensors")
    found = {tensor.name: tensor for tensor in GGUFReader(gguf_models.gguf_file(tmp_path, "F32")).tensors}
    assert len(found) == len(held)
    for ours, theirs in (("blk.1.ffn_up", "h.1.mlp.c_fc"), ("blk.0.attn_qkv", "h.0.attn.c_attn")):
        [name] = [name for name in held if name.endswith(f"{theirs}.weight")]
        assert np.array_equal(found[f"{ours}.weight"].data, held[name].T)
        assert np.array_equal(found[f"{ours}.bias"].data, held[name.replace("weight", "bias")])


@pytest.mark.parametrize("name", gguf_models.FORMATS)
def test_every_matrix_is_in_the_format_and_takes_what_the_floor_says(folder: Path, name: str) -> None:
    matrices = engine_report.step_matrices(folder)
    [contender] = {one for one in CONTENDERS.values() if one.weights == name} or {None}
    written = GGUFReader(gguf_models.gguf_file(folder, name)).tensors
    read = [one for one in written if len(one.shape) == 2 and not one.name.startswith("position_embd")]
    vocabulary = gguf_models.type_of(name, 288, vocabulary=True)
    assert {one.tensor_type.name for one in read} <= {name, gguf_models.type_of(name, 288), vocabulary}
    assert {one.tensor_type.name for one in read if one.name in ("token_embd.weight", "output.weight")} == {vocabulary}
    assert sorted((int(one.shape[1]), int(one.shape[0])) for one in read) == sorted(one[:2] for one in matrices)
    if contender is not None:
        assert contender.bytes_of(matrices) == sum(int(one.n_bytes) for one in read)


@pytest.mark.parametrize(
    ("name", "error"), [("F16", 1e-3), ("Q8_0", 0.01), ("Q5_0", 0.06), ("Q4_0", 0.1), ("Q4_K", 0.1)]
)
def test_a_rounded_matrix_is_near(name: str, error: float) -> None:
    numbers = torch.randn(8, 512, generator=torch.Generator().manual_seed(0)).numpy()
    rounded = gguf_models.rounded(numbers, name)
    assert 0 < relative(dequantize(rounded, GGMLQuantizationType[name]), numbers) < error


def test_q4_k_of_what_it_can_say_is_exact() -> None:
    # Whole numbers of one step, from each group's own beginning: scale and least number have 6 bits of their own.
    draw = np.random.default_rng(0)
    steps = np.arange(48, 64, dtype=np.float32)[draw.permutation(8)].reshape(1, 8, 1)
    steps.flat[0] = 63
    digits = draw.integers(0, 16, (1, 8, 32)).astype(np.float32)
    digits[:, :, :2] = (0, 15)
    numbers = (digits * steps / 1024).reshape(1, 256)
    assert relative(dequantize(gguf_models.q4_k(numbers), GGMLQuantizationType.Q4_K), numbers) < 1e-3


@pytest.mark.parametrize("fill", [0.0, 1.0, -1.0])
def test_q4_k_of_equal_numbers(fill: float) -> None:
    numbers = np.full((2, 256), fill, dtype=np.float32)
    assert np.allclose(dequantize(gguf_models.q4_k(numbers), GGMLQuantizationType.Q4_K), numbers, atol=2e-3)


# --- translators ---------------------------------------------------------------------------------------------------


def logits(model: EncoderDecoder, source: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        return model(source, None, target)


def test_a_translator_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path))
    model = translation_models.random_translator("tiny")
    read = translation_models.read_translator(translation_models.forms_of("trial", model))
    source, target = torch.arange(5, 12).unsqueeze(0), torch.arange(20, 29).unsqueeze(0)
    assert read.config == model.config
    assert torch.equal(logits(read, source, target), logits(model, source, target))


def test_ctranslate2_says_what_we_say(tmp_path: Path) -> None:
    from marian import END, START

    model = translation_models.random_translator("tiny")
    path = ctranslate2_models.translator_folder(tmp_path / "float32", model, "float32")
    rival = ctranslate2.Translator(str(path), compute_type="float32", intra_threads=1)
    for source in translation_models.random_sources("tiny", 3):
        text = [START]
        for _ in range(12):
            text.append(int(logits(model, torch.tensor([source]), torch.tensor([text]))[0, -1].argmax()))
        [found] = rival.translate_batch([list(map(str, source))], beam_size=1, max_decoding_length=12)
        assert list(map(int, found.hypotheses[0])) == text[1:]
        assert END not in text


def test_ctranslate2_goes_on_as_we_do(folder: Path) -> None:
    model = import_folder(folder).model
    rival = ctranslate2.Generator(str(ctranslate2_models.generator_folder(folder, "float32")), compute_type="float32")
    text = [5, 9, 100, 31]
    for _ in range(8):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    [found] = rival.generate_batch([list(map(str, text[:4]))], max_length=8, include_prompt_in_result=False)
    # The last number ends texts there.
    said = [*found.sequences_ids[0], 119][:8]
    assert said == text[4 : 4 + len(said)]


def test_random_translators_say_many_things_and_never_want_to_end() -> None:
    from marian import END, START

    model = translation_models.random_translator("tiny")
    said: list[set[int]] = []
    for source in translation_models.random_sources("tiny", 3):
        text = [START]
        for _ in range(24):
            step = logits(model, torch.tensor([source]), torch.tensor([text]))[0, -1]
            # Beam search looks at the best eight.
            assert END not in step.topk(8).indices
            text.append(int(step.argmax()))
        said.append(set(text))
    assert all(len(tokens) > 4 for tokens in said)
    assert len({frozenset(tokens) for tokens in said}) == 3


def test_a_step_of_a_translator_reads_what_the_paper_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path))
    model = translation_models.random_translator("tiny")
    c = model.config
    block = c.decoder.block.feed_forward
    # Self-attention: 4 D^2; cross-attention without its keys and values: 2 D^2; feed-forward; the output.
    layer = 6 * c.dim**2 + 2 * c.dim * block.hidden
    read = sum(
        rows * columns
        for rows, columns, _ in translation_models.step_matrices(translation_models.forms_of("trial", model))
    )
    assert read == c.decoder.layers * layer + c.vocab_size * c.dim


def test_every_contender_stands_in_a_line_of_the_table() -> None:
    shown = {f"{library}, {weights}" for line in PRECISIONS.values() for library, weights in line.items()}
    assert shown == CONTENDERS.keys()
