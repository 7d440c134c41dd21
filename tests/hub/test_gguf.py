"""GGUF files: `transformers`, which reads them by itself, is the oracle of ours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from parity import relative

from checkpoints import tiny_tokenizer
from small_run import sublayer
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.fast.decoding.runner import Runner
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.library import FORMATS, library
from sublayer.fast.engine.packing import Matrices, executable
from sublayer.generation.generator import Generator
from sublayer.hub import folder
from sublayer.hub.families.rope import scaling_of_factors
from sublayer.hub.pulling import read_elsewhere
from sublayer.models import DecoderOnly

LAYERS, DIM, HIDDEN, HEADS, GROUPS, WIDTH, ROWS = 2, 64, 96, 4, 2, 32, 320

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
WIDE = ("qwen3", "gemma2", "gemma3")
"""Those whose heads are wider than D / heads."""

NOT_READ = {
    "qwen3": {"head_dim": WIDTH},
    "gemma2": {"query_pre_attn_scalar": WIDTH},
    "gemma3": {"query_pre_attn_scalar": WIDTH},
}
"""What `transformers` does not take from the file: it supposes the sizes of the first models."""


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of all tensors, by llama.cpp's names, outermost dimension first."""
    width = WIDTH if name in WIDE else DIM // HEADS
    queries, keys = HEADS * width, GROUPS * width
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (ROWS, DIM), "output_norm.weight": (DIM,)}
    if not name.startswith("gemma"):
        found["output.weight"] = (ROWS, DIM)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (DIM,),
        "attn_q.weight": (queries, DIM),
        "attn_k.weight": (keys, DIM),
        "attn_v.weight": (keys, DIM),
        "attn_output.weight": (DIM, queries),
        "ffn_norm.weight": (DIM,),
        "ffn_gate.weight": (HIDDEN, DIM),
        "ffn_up.weight": (HIDDEN, DIM),
        "ffn_down.weight": (DIM, HIDDEN),
    }
    if name == "qwen2":
        layer |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    if name in ("qwen3", "gemma3"):
        layer |= {"attn_q_norm.weight": (width,), "attn_k_norm.weight": (width,)}
    if name.startswith("gemma"):
        layer |= {"post_attention_norm.weight": (DIM,), "post_ffw_norm.weight": (DIM,)}
    return found | {f"blk.{i}.{part}": shape for i in range(LAYERS) for part, shape in layer.items()}


def write_gguf(
    path: Path,
    name: str,
    *,
    quantized: bool | Mapping[str, gguf.GGMLQuantizationType] = True,
    factors: Sequence[float] | None = None,
    ends: Mapping[str, int] | None = None,
    **settings: Any,
) -> Path:
    """A file of this architecture with random tensors, some of them quantized, and a small tokenizer.

    Args:
        quantized: by what their names end in, to which types.
    """
    kinds = {"ffn": gguf.GGMLQuantizationType.Q8_0} if quantized is True else quantized or {}
    generator = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(48)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    if name in WIDE:
        writer.add_key_length(WIDTH)
        writer.add_value_length(WIDTH)
    else:
        writer.add_rope_dimension_count(DIM // HEADS)
    if name.startswith("gemma"):
        writer.add_sliding_window(5)
    for key, value in settings.items():
        writer.add_uint32(f"{name}.{key}", value)
    add_tokenizer(writer)
    for kind, token in (ends or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", token)
    for tensor, shape in shapes(name).items():
        values = generator.standard_normal(shape).astype(np.float32) * (1.0 if len(shape) == 1 else shape[-1] ** -0.5)
        kind = next((kind for part, kind in kinds.items() if part in tensor), None)
        if kind is not None and len(shape) == 2:
            writer.add_tensor(tensor, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, values)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Byte-level pairs, with as many tokens more as the embedding has rows, as llama.cpp's converter fills them up."""
    backend = tiny_tokenizer().backend
    size = backend.get_vocab_size()
    tokens = [backend.id_to_token(number) for number in range(size)]
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    filled = [f"[PAD{number}]" for number in range(size, ROWS)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *filled])
    kinds = [3 if token.startswith("<") and len(token) > 2 else 1 for token in tokens]
    writer.add_token_types([*kinds, *(5 for _ in filled)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


@pytest.mark.parametrize(
    ("said", "ends"),
    [({}, ()), ({"eot": 7}, (7,)), ({"eom": 9}, (9,)), ({"eot": 7, "eom": 9}, (7, 9)), ({"eot": 2}, ())],
)
def test_what_ends_a_turn_ends_a_text_too(said: dict[str, int], ends: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, next(iter(ARCHITECTURES)), ends=said)
    found = read_elsewhere(path)
    assert tuple(found.decoding["end_ids"]) == ends
    generator = Generator(found.model, found.tokenizer, config.Generation.parse(found.decoding, "test"))
    # Banned but for its ends, a model says one of them at once.
    only = config.Constraints(allowed=(*ends, 5))
    [one] = generator.generate(["cat"], constraints=only, max_tokens=30)
    assert set(one.tokens) <= {5, *ends}
    assert [token for token in one.tokens[:-1] if token in ends] == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits(name: str, tmp_path: Path) -> None:
    import transformers

    path = write_gguf(tmp_path / "model.gguf", name)
    kind = getattr(transformers, ARCHITECTURES[name])
    settings = kind.config_class.from_pretrained(tmp_path, gguf_file=path.name)
    for key, value in NOT_READ.get(name, {}).items():
        setattr(settings, key, value)
    options = {"config": settings, "gguf_file": path.name, "attn_implementation": "eager"}
    theirs = kind.from_pretrained(tmp_path, **options).eval()
    ours = read_elsewhere(path).model
    tokens = torch.randint(ROWS, (2, 11))
    with torch.no_grad():
        assert relative(ours(tokens), theirs(tokens).logits) < 1e-5


def test_exact_weights_are_those_of_the_file(tmp_path: Path) -> None:
    kinds = gguf.GGMLQuantizationType
    path = write_gguf(
        tmp_path / "model.gguf", "llama",
        quantized={"attn_output": kinds.Q8_0, "attn_v": kinds.Q8_0, "attn_": kinds.Q4_0, "ffn": kinds.Q4_1},
    )  # fmt: skip
    model = read_elsewhere(path).model
    assert isinstance(model, DecoderOnly)
    matrices = Matrices("exact")
    Engine(executable(model.lower(), matrices), 1)
    weights = {weight.data_ptr(): weight for weight in model.parameters()}
    names = {id(weight): name.split(".", 3)[-1] for name, weight in model.named_parameters()}
    formats: dict[str, set[str]] = {}
    for (address, _, _), (_, packed) in matrices._packed.items():
        weight = weights[address]
        found = torch.empty(weight.shape)
        library().matrix_unpack(packed.struct, found.data_ptr())
        assert found.equal(weight)
        [kept_as] = [name for name, number in FORMATS.items() if number == packed.struct.format]
        formats.setdefault(names[id(weight)], set()).add(kept_as)
    assert {name: kept_as for name, kept_as in formats.items() if "float32" not in kept_as} == {
        # Values have more bits than queries and keys, beside which they stand.
        "self_attention.qkv.weight": {"q8_0"}, "self_attention.output.weight": {"q8_0"},
        "feed_forward.gate_up.weight": {"int4"}, "feed_forward.down.weight": {"int4"},
    }  # fmt: skip
    tokens = torch.randint(ROWS, (2, 11))
    with torch.inference_mode():
        runner = Runner(model, "exact")
        found = runner.step(tokens, runner.start(tokens[:, :0], capacity=11))
        # What is multiplied is rounded to eight bits; the weights are not.
        expected = model(tokens)
        assert (found - expected).norm() < 0.02 * expected.norm()


def divided_by(pairs: int, base: float, scaling: Mapping[str, float]) -> list[float]:
    """What Llama 3's scaling divides each frequency by, case by case, as the model's code has it."""
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    found: list[float] = []
    for pair in range(pairs):
        wave = 2 * math.pi * base ** (pair / pairs)
        if wave < high:
            found.append(1.0)
        elif wave > low:
            found.append(scaling["factor"])
        else:
            smooth = (scaling["original_max_position_embeddings"] / wave - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            found.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return found


def llama3(factor: float, original: int, high: float = 4.0) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "original_max_position_embeddings": original,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
    }


@pytest.mark.parametrize(
    ("pairs", "base", "scaling"),
    [
        (64, 500_000.0, llama3(8.0, 8192)),  # Llama 3.1
        (32, 500_000.0, llama3(32.0, 8192)),  # Llama 3.2, 1B
        (64, 10_000.0, llama3(2.5, 4096)),
        (16, 10_000.0, llama3(4.0, 300)),
    ],
)
def test_the_scaling_is_found_from_its_factors(pairs: int, base: float, scaling: dict[str, Any]) -> None:
    factors = torch.tensor(divided_by(pairs, base, scaling))
    assert scaling_of_factors(factors, base) == pytest.approx(scaling)
    # What is nearly that is not that.
    assert scaling_of_factors(factors * torch.linspace(1.0, 1.001, pairs), base) is None


def test_factors_of_another_kind_are_none() -> None:
    assert scaling_of_factors(torch.ones(16), 10_000.0) == {}
    for other in (torch.linspace(1.0, 4.0, 16), torch.full((16,), 2.0), torch.tensor([1.0] * 8 + [2.0] * 8)):
        assert scaling_of_factors(other, 10_000.0) is None
    assert scaling_of_factors(torch.tensor(divided_by(64, 10_000.0, llama3(2.0, 4096, high=9.0))), 10_000.0) is None


def test_llama_3_out_of_a_gguf_file(tmp_path: Path) -> None:
    """`transformers` does not read the factors, but is told the scaling that they come from."""
    import transformers

    scaling = llama3(8.0, 40)
    factors = divided_by(DIM // HEADS // 2, 10_000.0, scaling)
    assert any(1.0 < factor < 8.0 for factor in factors)
    path = write_gguf(tmp_path / "model.gguf", "llama", factors=factors)
    settings = transformers.LlamaConfig.from_pretrained(tmp_path, gguf_file=path.name)
    settings.rope_parameters = {"rope_theta": 10_000.0, **scaling}
    options: dict[str, Any] = {"config": settings, "gguf_file": path.name, "attn_implementation": "eager"}
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, **options).eval()
    ours = read_elsewhere(path).model
    tokens = torch.randint(ROWS, (2, 40))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert relative(ours(tokens), expected) < 1e-5
        # And it matters: without the scaling the logits are others.
        plain = read_elsewhere(write_gguf(tmp_path / "plain.gguf", "llama")).model
        assert relative(plain(tokens), expected) > 1e-2


def test_factors_that_no_scaling_gives_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama", factors=[1.0 + pair for pair in range(DIM // HEADS // 2)])
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        read_elsewhere(path)


def test_pulled_with_its_tokenizer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama")
    outcome = sublayer("pull", path, tmp_path / "out", "--dtype", "bfloat16")
    assert outcome.code == 0, outcome.err
    found = folder.read(tmp_path / "out")
    assert found.imported["family"] == "llama"
    assert found.tokenizer.specials.end == 2
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.bfloat16}


def test_part_of_a_head_turned_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "qwen3", **{"rope.dimension_count": 8})
    with pytest.raises(CheckpointError, match="turns 8 of the 32 dimensions"):
        read_elsewhere(path)


def test_a_setting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama", **{"attention.twist": 3})
    with pytest.raises(CheckpointError, match=r"llama.attention.twist = 3"):
        read_elsewhere(path)


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"damaged or no GGUF file"):
        read_elsewhere(path)
