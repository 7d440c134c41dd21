"""GGUF files that we write: `transformers`, llama.cpp and we ourselves read the same model in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import LINES, tiny_tokenizer
from laws.models import redraw
from small_run import sublayer
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.generation.generator import Generator
from sublayer.hub.canonical import canonical
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.hub.gguf_writing import export_gguf
from sublayer.hub.pulling import read_elsewhere
from sublayer.models import build_model
from sublayer.text import Specials, Template, Tokenizer
from sublayer.text.vocabularies import byte_level

LENGTH = 48
IDS = torch.tensor([[5, 9, 4, 30, 11, 8, 21], [7, 7, 40, 6, 25, 33, 50]])
PIECES = Tokenizer.train(LINES, config.Subwords(type="sentencepiece", vocab_size=320))


def byte_pairs(words: str = "gpt2", template: str | None = None) -> Tokenizer:
    """GPT-2's kind of tokenizer, with a small vocabulary."""
    plain = json.loads(tiny_tokenizer().backend.to_str())["model"]
    backend = byte_level(plain["vocab"], [tuple(pair) for pair in plain["merges"]], words=words)
    backend.add_special_tokens(["<pad>", "<s>", "</s>", "<unk>"])
    return Tokenizer(backend, Specials.of({"pad": 0, "start": 1, "end": 2}), chat_template=template)


BYTES = byte_pairs()
RMS = config.RMSNorm(eps=1e-5)
GATED = config.Gated(hidden=96)
GEMMA = config.RMSNorm(eps=1e-6, plus_one=True)
GEGLU = config.Gated(hidden=96, activation="gelu_tanh")


def tree(position: config.Position | None = None, **over: Any) -> config.DecoderOnly:
    parts: dict[str, Any] = {
        "attention": config.Attention(heads=4, kv_heads=2, bias=False),
        "feed_forward": GATED,
        "norm": RMS,
        "norm_placement": "pre",
    }
    names = {"attention", "feed_forward", "norm", "norm_placement"}
    block = config.Block(**parts | {name: value for name, value in over.items() if name in names})
    stack = config.Stack(layers=2, block=block, position=position or config.Rotary())
    rest = {name: value for name, value in over.items() if name not in names}
    return config.DecoderOnly(**{"dim": 64, "vocab_size": 320, "max_length": LENGTH, "decoder": stack} | rest)


GPT2 = tree(
    config.Learned(),
    attention=config.Attention(heads=4),
    feed_forward=config.PositionWise(hidden=96, activation="gelu_tanh"),
    norm=config.LayerNorm(),
)
SANDWICH = {"norm": GEMMA, "norm_placement": "sandwich", "feed_forward": GEGLU, "embedding": config.Embedding()}
TREES = {
    "llama": tree(),
    "llama, output of its own": tree(tied=False),
    "llama 3": tree(config.Rotary(base=5e5, scaling=config.Llama3Scaling(factor=8.0, original_length=32))),
    "qwen2": tree(attention=config.Attention(heads=4, kv_heads=2, bias=True, output_bias=False)),
    "qwen3": tree(attention=config.Attention(heads=4, kv_heads=2, head_dim=32, bias=False, query_key_norm=RMS)),
    "gemma": tree(norm=GEMMA, feed_forward=GEGLU, embedding=config.Embedding()),
    "gemma2": tree(**SANDWICH, attention=config.Attention(heads=4, kv_heads=2, bias=False, softcap=50.0)),
    "gpt2": GPT2,
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "llama, output of its own": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
"""What `transformers` reads of these as it is; of the others it leaves settings out, and of Gemma it supposes sizes."""


def bundle(found: config.DecoderOnly, tokenizer: Tokenizer = BYTES, **decoding: Any) -> ModelBundle:
    model = build_model(found).eval()
    redraw(model, 3)
    return ModelBundle(model, tokenizer, decoding)


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", TREES)
def test_read_again_it_is_the_same(name: str, tmp_path: Path) -> None:
    own = bundle(TREES[name])
    export_gguf(tmp_path / "model.gguf", own)
    again = read_elsewhere(tmp_path / "model.gguf")
    assert canonical(again.model.config).keys() == canonical(own.model.config).keys()
    with torch.no_grad():
        assert relative(again.model(IDS), own.model(IDS)) < 1e-5
    ours, theirs = own.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    if not name.startswith("gemma"):  # there 1 is added to the norms' weights, and rounded
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert again.tokenizer.encode(LINES) == own.tokenizer.encode(LINES)


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_reads_it(name: str, tmp_path: Path) -> None:
    import transformers

    own = bundle(TREES[name])
    export_gguf(tmp_path / "model.gguf", own)
    kind = getattr(transformers, CLASSES[name])
    theirs = kind.from_pretrained(tmp_path, gguf_file="model.gguf", attn_implementation="eager").eval()
    with torch.no_grad():
        assert relative(theirs(IDS).logits, own.model(IDS)) < 1e-5


class LlamaCpp:
    """llama.cpp's server, in this process."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_parallel = 1
        options.n_ctx = 256
        options.warmup = False
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.ui = False
        options.verbosity = 0
        self.server: Any = xllamacpp.Server(options)

    def generate(self, prompt: list[int] | str, new: int) -> Any:
        asked = {"prompt": prompt, "n_predict": new, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        return self.server.handle_completions(asked)
