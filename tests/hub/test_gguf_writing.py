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
from sublayer.hub.canonical import canonical
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.hub.gguf_writing import export_gguf
from sublayer.hub.pulling import read_elsewhere
from sublayer.models import build_model
from sublayer.text import Specials, Template, Tokenizer
from sublayer.text.sentencepiece import Piece, PieceModel, backend_of
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


def numbered(rows: int) -> Tokenizer:
    """Piece number 17 is the text " 17": llama.cpp tells no token that is a part of a character."""
    marks = (Piece("<unk>", 0.0, "unknown"), Piece("<s>", 0.0, "control"), Piece("</s>", 0.0, "control"))
    pieces = (*marks, *(Piece(f"▁{number}") for number in range(3, rows)))
    return Tokenizer(backend_of(PieceModel("bpe", pieces)), Specials.of({"unknown": 0, "start": 1, "end": 2}))


BYTES = byte_pairs()
NUMBERED = numbered(320)
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
    feed_forward=config.PositionWise(hidden=256, activation="gelu_tanh"),
    norm=config.LayerNorm(),
)


def gemma2() -> config.DecoderOnly:
    """Every second layer has a window; the caps are the family's."""
    usual = config.Attention(heads=4, kv_heads=2, bias=False, softcap=50.0)
    found = tree(**SANDWICH, attention=usual, logit_softcap=30.0)
    near = found.decoder.block.model_copy(update={"attention": usual.model_copy(update={"window": 5})})
    stack = found.decoder.model_copy(update={"others": (config.OtherLayers(layers=(0,), block=near),)})
    return found.model_copy(update={"decoder": stack})


def gemma3() -> config.DecoderOnly:
    """Every sixth layer sees all, and turns more slowly; queries and keys are normalized."""
    usual = config.Attention(heads=4, kv_heads=2, head_dim=32, bias=False, query_key_norm=GEMMA)
    found = tree(config.Rotary(base=1e6), **SANDWICH, attention=usual)
    narrow = {"attention": usual.model_copy(update={"window": 5}), "position": config.Rotary()}
    near = config.OtherLayers(layers=(0, 1, 2, 3, 4), block=found.decoder.block.model_copy(update=narrow))
    return found.model_copy(update={"decoder": found.decoder.model_copy(update={"layers": 6, "others": (near,)})})


SANDWICH = {"norm": GEMMA, "norm_placement": "sandwich", "feed_forward": GEGLU, "embedding": config.Embedding()}
TREES = {
    "llama": tree(),
    "llama, output of its own": tree(tied=False),
    "llama 3": tree(config.Rotary(scaling=config.Llama3Scaling(factor=8.0, original_length=32))),
    "qwen2": tree(attention=config.Attention(heads=4, kv_heads=2, bias=True, output_bias=False)),
    "qwen3": tree(attention=config.Attention(heads=4, kv_heads=2, head_dim=32, bias=False, query_key_norm=RMS)),
    "gemma": tree(norm=GEMMA, feed_forward=GEGLU, embedding=config.Embedding()),
    "gemma2": gemma2(),
    "gemma3": gemma3(),
    "gpt2": GPT2,
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "llama, output of its own": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
"""What `transformers` reads of these; of the others it leaves settings out."""
NOT_READ = {"qwen3": {"head_dim": 32}, "gemma3": {"query_pre_attn_scalar": 32}, "gpt2": {"n_positions": LENGTH}}
"""What it does not take from the file: it supposes the sizes of the first models."""


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
    settings = kind.config_class.from_pretrained(tmp_path, gguf_file="model.gguf")
    settings.update(NOT_READ.get(name, {}))
    options: Any = {"config": settings, "gguf_file": "model.gguf", "attn_implementation": "eager"}
    theirs = kind.from_pretrained(tmp_path, **options).eval()
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

    def completed(self, prompt: list[int] | str, new: int) -> tuple[list[int], list[float], int]:
        """What it says, most probable first: the tokens, their log-probabilities, and how many the prompt had."""
        asked = {"prompt": prompt, "max_tokens": new, "temperature": 0, "logprobs": 1, "cache_prompt": False}
        found = self.server.handle_completions(asked)
        [choice] = found["choices"]
        said = choice["logprobs"]["content"]
        count = found["usage"]["prompt_tokens"]
        return [each["id"] for each in said], [each["logprob"] for each in said], count


def greedy(own: ModelBundle, prompt: list[int], new: int) -> tuple[list[int], list[float]]:
    text, scores = list(prompt), list[float]()
    with torch.no_grad():
        for _ in range(new):
            step = own.model(torch.tensor([text]))[0, -1].log_softmax(-1)
            text.append(int(step.argmax()))
            scores.append(float(step.max()))
            if text[-1] == own.tokenizer.end_id:
                break
    return text[len(prompt) :], scores


@pytest.mark.parametrize("name", TREES)
def test_llama_cpp_says_the_same(name: str, tmp_path: Path) -> None:
    own = bundle(TREES[name], NUMBERED)
    export_gguf(tmp_path / "model.gguf", own)
    theirs, their_scores, _ = LlamaCpp(tmp_path / "model.gguf").completed(IDS[0].tolist(), 12)
    ours, scores = greedy(own, IDS[0].tolist(), 12)
    ended = ours[:-1] if ours[-1] == own.tokenizer.end_id else ours
    assert theirs[: len(ended)] == ended
    assert len(ended) > 3
    # llama.cpp keeps keys and values in half precision.
    assert np.allclose(their_scores[: len(ended)], scores[: len(ended)], atol=0.02)


@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        pytest.param(PIECES, ["the cat sat on the mat", " a dog  ran", "goes on"], id="unigrams"),
        pytest.param(BYTES, ["the cat sat", "It's 1,234 naïve cafés\n\n  日本", " </s>x"], id="GPT-2's"),
        pytest.param(byte_pairs("llama3"), ["the cat 123456 sat", "It's  all\n here"], id="Llama 3's"),
        pytest.param(byte_pairs("digits"), ["the cat 123456 sat", "It's  all\n here"], id="SmolLM's"),
        pytest.param(byte_pairs("qwen2"), ["the cat 123456 sat", "It's  all\n here"], id="Qwen2's"),
    ],
)
def test_text_is_cut_as_here(tokenizer: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    own = bundle(tree(), tokenizer)
    export_gguf(tmp_path / "model.gguf", own)
    server = LlamaCpp(tmp_path / "model.gguf")
    again = read_elsewhere(tmp_path / "model.gguf").tokenizer
    assert again.encode(texts) == tokenizer.encode(texts)
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        if "</s>" in text:
            continue  # its server reads special tokens in a prompt, as it should not
        theirs, _, count = server.completed(text, 6)
        assert count == len(ids)
        assert theirs == server.completed(ids, 6)[0]


def test_the_chat_template_is_inside(tmp_path: Path) -> None:
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    export_gguf(tmp_path / "model.gguf", bundle(tree(), byte_pairs(template=template)))
    assert read_elsewhere(tmp_path / "model.gguf").tokenizer.chat_template == template


@pytest.mark.parametrize(("weights", "error"), [("F16", 1e-3), ("Q8_0", 0.01), ("Q4_0", 0.15)])
def test_narrower_weights(weights: Any, error: float, tmp_path: Path) -> None:
    own = bundle(tree())
    export_gguf(tmp_path / "model.gguf", own, weights)
    again = read_elsewhere(tmp_path / "model.gguf").model
    for name, ours in own.model.state_dict().items():
        distance = relative(again.state_dict()[name], ours)
        assert (distance == 0) == (ours.dim() == 1), name
        assert distance < error, name
    types = {each.name: each.tensor_type.name for each in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["blk.1.ffn_up.weight"] == weights
    assert types["token_embd.weight"] == ("Q8_0" if weights == "Q4_0" else weights)
    assert types["output_norm.weight"] == "F32"


def test_rows_that_are_no_multiple_of_a_block_are_wider(tmp_path: Path) -> None:
    own = bundle(tree(feed_forward=config.Gated(hidden=72)))
    export_gguf(tmp_path / "model.gguf", own, "Q8_0")
    types = {each.name: each.tensor_type.name for each in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert (types["blk.0.ffn_down.weight"], types["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (tree(feed_forward=config.Gated(hidden=96, activation="relu")), "activation = 'silu' would become 'relu'"),
        (tree(attention=config.Attention(heads=4, window=9, bias=False)), "window = 9 would become None"),
        (tree(config.Rotary(fraction=0.5)), "fraction = 0.5 would become 1.0"),
        (tree(config.Alibi(), norm=config.LayerNorm()), "no architecture that is written as GGUF can express"),
        (tree(norm_placement="output"), "norm_placement = 'output' would become 'pre'"),
    ],
)
def test_what_cannot_be_said_is_named(found: config.DecoderOnly, named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        export_gguf(tmp_path / "model.gguf", bundle(found))
    ours, theirs = named.split(" would become ") if "would" in named else (named, "")
    assert named in caught.value.what or f"{ours.split(' = ')[0]} = " in caught.value.what, (theirs, caught.value.what)
    assert "preset = 'mini-lm'" in caught.value.remedy
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "words", "characters"])
def test_a_tokenizer_that_llama_cpp_does_not_have(kind: str, tmp_path: Path) -> None:
    recipe = {
        "words": config.Words(min_frequency=1),
        "characters": config.Characters(),
    }.get(kind) or config.Subwords(type=kind, vocab_size=320)  # pyright: ignore[reportArgumentType]
    tokenizer = Tokenizer.train(LINES, recipe)
    with pytest.raises(CheckpointError, match="GGUF cannot express the tokenizer") as caught:
        export_gguf(tmp_path / "model.gguf", bundle(tree(), tokenizer))
    assert 'tokenizer.type = "sentencepiece"' in caught.value.remedy


def test_a_template_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    tokenizer = BYTES.replace(template=Template.around([1, 1], []))
    with pytest.raises(CheckpointError, match="can put a start and an end token around a text"):
        export_gguf(tmp_path / "model.gguf", bundle(tree(), tokenizer))


def test_the_command(tmp_path: Path) -> None:
    own = bundle(tree(), PIECES, **config.Generation(max_tokens=5).plain())
    write(tmp_path / "own", own, ModelCard("", "A model for tests.\n"))
    outcome = sublayer("export", tmp_path / "own", tmp_path / "m.gguf", "--format", "gguf", "--weights", "Q8_0")
    assert outcome.code == 0, outcome.err
    assert "gguf: " in outcome.out
    back = sublayer("pull", tmp_path / "m.gguf", tmp_path / "back")
    assert back.code == 0, back.err
    again = sublayer("generate", tmp_path / "back", "the cat", "--max-tokens", "3")
    assert again.code == 0, again.err
