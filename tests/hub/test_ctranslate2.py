"""CTranslate2 folders: `ctranslate2` itself runs what we write, and we read what its own converters write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import tiny_tokenizer
from laws.models import redraw
from small_run import sublayer, trained
from sublayer import config
from sublayer.errors import CheckpointError, SublayerError
from sublayer.hub import folder
from sublayer.hub.canonical import canonical
from sublayer.hub.ctranslate2 import model_bin
from sublayer.hub.ctranslate2.layout import LEAST
from sublayer.hub.ctranslate2.nearest import lacks
from sublayer.hub.ctranslate2.reading import import_ctranslate2
from sublayer.hub.ctranslate2.writing import export
from sublayer.hub.folder import ModelBundle
from sublayer.models import build_model

TOKENIZER = tiny_tokenizer()
ROWS = TOKENIZER.vocab_size
IDS = torch.tensor([[5, 9, 4, 30, 11, 8, 21], [7, 7, 40, 6, 25, 33, 50]])
TARGET = torch.tensor([[1, 8, 12, 3, 33, 9], [1, 40, 22, 5, 5, 17]])


def block(placement: config.NormPlacement = "pre", **over: Any) -> config.Block:
    parts: dict[str, Any] = {
        "attention": config.Attention(heads=4),
        "feed_forward": config.PositionWise(hidden=36),
        "norm_placement": placement,
        "dropout": 0.1,
    }
    return config.Block(**parts | over)


def stack(layers: int, position: config.Position | None = None, **over: Any) -> config.Stack:
    return config.Stack(layers=layers, block=block(**over), position=position or config.Sinusoidal())


def translator(source: config.Stack, target: config.Stack | None = None, **over: Any) -> config.EncoderDecoder:
    parts: dict[str, Any] = {"dim": 24, "vocab_size": ROWS, "max_length": 40, "encoder": source}
    return config.EncoderDecoder(**parts | {"decoder": target or source} | over)


def generator(decoder: config.Stack, **over: Any) -> config.DecoderOnly:
    return config.DecoderOnly(**{"dim": 24, "vocab_size": ROWS, "max_length": 40, "decoder": decoder} | over)


GATED = config.Gated(hidden=36)
RMS = config.RMSNorm(eps=1e-5)
GROUPED = config.Attention(heads=4, kv_heads=2, bias=False)
TRANSLATORS = {
    "the paper's": translator(stack(2, placement="post"), stack(3, placement="post")),
    "the demo's": translator(stack(2), tied="none"),
    "output and target tied": translator(stack(1), tied="target", output_bias=True),
    "embeddings tied": translator(stack(1), tied="embeddings", embedding=config.Embedding(scale=False)),
    "a norm on the embeddings": translator(stack(1), embedding=config.Embedding(norm=config.LayerNorm())),
    "Marian's sinusoids, silu": translator(
        stack(1, config.Sinusoidal(layout="halves"), feed_forward=config.PositionWise(hidden=36, activation="silu"))
    ),
    "M2M100's sinusoids": translator(stack(1, config.Sinusoidal(layout="halves", spacing="inclusive", offset=2))),
    "learned, with unused rows": translator(stack(1, config.Learned(offset=2))),
    "rotary, RMSNorm, gated, grouped": translator(
        stack(2, config.Rotary(), norm=RMS, feed_forward=GATED, attention=GROUPED)
    ),
    "norms without a bias": translator(stack(1, norm=config.LayerNorm(bias=False))),
    **{
        f"queries and keys normalized, {name}": translator(
            stack(1, attention=config.Attention(heads=4, query_key_norm=norm)),
            stack(
                1,
                attention=config.Attention(heads=4, query_key_norm=norm),
                cross_attention=config.Attention(heads=4),
            ),
        )
        for name, norm in {
            "RMSNorm": RMS,
            "LayerNorm": config.LayerNorm(),
            "LayerNorm without a bias": config.LayerNorm(bias=False),
        }.items()
    },
    "an output that is scaled": translator(stack(1), output_scale=0.5),
    "one group in the cross-attention": translator(
        stack(1), stack(1, cross_attention=config.Attention(heads=4, kv_heads=1, bias=False))
    ),
    "a cross-attention of another width and scale": translator(
        stack(1, attention=config.Attention(heads=4, head_dim=8, scale=0.25)),
        stack(1, cross_attention=config.Attention(heads=4, head_dim=8, scale=0.5, bias=False, output_bias=True)),
    ),
    "no positions in the decoder": translator(stack(1), stack(1, config.NoPosition())),
}
GENERATORS = {
    "GPT-2's": generator(
        stack(2, config.Learned(), feed_forward=config.PositionWise(hidden=36, activation="gelu_tanh"))
    ),
    "Llama's": generator(stack(2, config.Rotary(), norm=RMS, feed_forward=GATED, attention=GROUPED), tied=False),
    "one group, wide heads": generator(
        stack(2, config.Rotary(), attention=config.Attention(heads=4, kv_heads=1, head_dim=8, scale=0.25))
    ),
    "Qwen3's": generator(
        stack(
            2,
            config.Rotary(base=1e6),
            norm=RMS,
            feed_forward=GATED,
            attention=config.Attention(heads=4, query_key_norm=RMS, bias=False),
        )
    ),
    "Gemma's norms and cap": generator(
        stack(
            2,
            config.Rotary(),
            placement="sandwich",
            norm=config.RMSNorm(plus_one=True),
            feed_forward=config.Gated(hidden=36, activation="gelu_tanh"),
        ),
        logit_softcap=5.0,
        embedding=config.Embedding(),
    ),
    "GPT-NeoX's": generator(
        stack(
            2,
            config.Rotary(fraction=2 / 3),
            placement="parallel",
            feed_forward=config.PositionWise(hidden=36, activation="gelu"),
        )
    ),
    "GPT-J's": generator(stack(2, config.Rotary(layout="interleaved"), placement="parallel-shared")),
    "post-norm": generator(stack(2, placement="post", feed_forward=config.PositionWise(hidden=36, activation="tanh"))),
    "linear scaling": generator(stack(1, config.Rotary(scaling=config.LinearScaling(factor=4.0)))),
    "Llama 3's scaling": generator(
        stack(1, config.Rotary(scaling=config.Llama3Scaling(factor=8.0, original_length=16)))
    ),
    "ALiBi": generator(stack(2, config.Alibi())),
    "a layer with another width": generator(
        config.Stack(
            layers=2,
            block=block(),
            others=(config.OtherLayers(layers=(1,), block=block(feed_forward=config.PositionWise(hidden=20))),),
        )
    ),
}


def bundle(tree: config.EncoderDecoder | config.DecoderOnly, seed: int = 1) -> ModelBundle:
    model = build_model(tree).eval()
    redraw(model, seed)
    return ModelBundle(model, TOKENIZER)


def tokens(ids: Tensor) -> list[list[str]]:
    return [[TOKENIZER.token(number) for number in row] for row in ids.tolist()]


@torch.no_grad()
def own_scores(found: ModelBundle) -> Tensor:
    """The log-probability of each target token, the end included: [B, T]."""
    source = torch.cat([IDS, torch.full((2, 1), 2)], dim=1)
    after = torch.cat([TARGET[:, 1:], torch.full((2, 1), 2)], dim=1)
    scores = found.model(source, None, TARGET).log_softmax(-1)
    return scores.gather(2, after.unsqueeze(2)).squeeze(2)


def their_scores(path: Path, compute_type: str = "float32") -> Tensor:
    model = ctranslate2.Translator(str(path), compute_type=compute_type, intra_threads=1)
    found = model.score_batch(tokens(IDS), tokens(TARGET[:, 1:]))
    return torch.tensor([each.log_probs for each in found])


def their_logits(path: Path, compute_type: str = "float32") -> Tensor:
    model = ctranslate2.Generator(str(path), compute_type=compute_type, intra_threads=1)
    return torch.tensor(np.array(model.forward_batch(IDS.tolist())))


def assert_near(one: Tensor, other: Tensor, bound: float = 2e-5) -> None:
    assert one.shape == other.shape
    assert (one - other).abs().max() < bound * max(1.0, float(other.abs().max()))


def same_model(one: ModelBundle, other: ModelBundle) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translators(name: str, tmp_path: Path) -> None:
    """CTranslate2 gives the same log-probabilities; and so do we, read again."""
    own = bundle(TRANSLATORS[name])
    learned = isinstance(own.model.config.decoder.position, config.Learned)
    assert export(tmp_path / "out", own) == (["max_decoding_length = 40"] if learned else [])
    assert_near(their_scores(tmp_path / "out"), own_scores(own))
    again = import_ctranslate2(tmp_path / "out")
    assert_near(own_scores(again), own_scores(own), 1e-6)
    if not lacks(own.model.config):
        assert canonical(again.model.config) == canonical(own.model.config)
        assert same_model(again, own)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(name: str, tmp_path: Path) -> None:
    own = bundle(GENERATORS[name])
    assert export(tmp_path / "out", own) == []
    with torch.no_grad():
        ours = own.model(IDS)
    assert_near(their_logits(tmp_path / "out"), ours)
    again = import_ctranslate2(tmp_path / "out")
    assert canonical(again.model.config) == canonical(own.model.config)
    assert same_model(again, own)


def test_int8(tmp_path: Path) -> None:
    """CTranslate2 computes with our whole numbers as with its own; read again, they are what they stand for.

    How near its int8 comes to float32 is the processor's: AVX2 alone adds pairs of products in 16 bits, which saturate.
    """
    own = bundle(TRANSLATORS["the demo's"])
    export(tmp_path / "wide", own)
    export(tmp_path / "int8", own, "int8")
    # The two tables of sines stay as they are.
    tables = 2 * LEAST * own.model.config.dim * 4
    wide, narrow = ((tmp_path / name / "model.bin").stat().st_size - tables for name in ("wide", "int8"))
    assert narrow < 0.4 * wide
    assert_near(own_scores(import_ctranslate2(tmp_path / "int8")), their_scores(tmp_path / "int8", "float32"))
    assert_near(their_scores(tmp_path / "int8", "int8"), their_scores(tmp_path / "wide", "int8"))


@pytest.mark.parametrize("weights", ["float16", "bfloat16"])
def test_half_as_wide(weights: Any, tmp_path: Path) -> None:
    own = bundle(GENERATORS["Llama's"])
    own.model.to(getattr(torch, weights))
    export(tmp_path / "out", own, weights)
    again = import_ctranslate2(tmp_path / "out")
    assert same_model(again, own)
    assert_near(their_logits(tmp_path / "out"), again.model.float()(IDS).detach())


@pytest.mark.parametrize(
    ("tree", "named", "remedy"),
    [
        (translator(stack(1, norm=config.ScaleNorm())), 'decoder.block.norm.type = "scale"', 'norm.type = "layer"'),
        (translator(stack(1, placement="sandwich")), 'block.norm_placement = "sandwich"', 'norm_placement = "pre"'),
        (translator(stack(1, config.RelativeBias())), 'position.type = "relative"', 'position.type = "sinusoidal"'),
        (translator(stack(1, config.Alibi())), 'position.type = "alibi"', 'position.type = "sinusoidal"'),
        (
            generator(stack(1, config.Rotary(scaling=config.NtkScaling(factor=2.0)))),
            'decoder.position.scaling.type = "ntk"',
            'scaling.type = "none"',
        ),
        (
            generator(stack(1, attention=config.Attention(heads=4, window=5, softcap=3.0))),
            "attention.window = 5; decoder.block.attention.softcap = 3.0",
            'attention.window = "none"',
        ),
        (
            generator(stack(1, feed_forward=config.Squared(hidden=36))),
            'feed_forward.type = "squared"',
            'feed_forward.type = "position-wise"',
        ),
        (
            generator(stack(1, feed_forward=config.MixtureOfExperts(experts=4, hidden=36))),
            'feed_forward.type = "mixture-of-experts"',
            'feed_forward.type = "gated"',
        ),
        (generator(stack(1), embedding=config.Embedding(width=12), tied=False), "embedding.width = 12", '"none"'),
        (
            translator(stack(1, attention=config.Attention(heads=4, query_key_norm=RMS))),
            "decoder.block.cross_attention is left out",
            "model.decoder.block.cross_attention = { heads = 4, ",
        ),
        (
            translator(stack(1), stack(1, cross_attention=config.Attention(heads=4, query_key_norm=RMS))),
            'decoder.block.cross_attention.query_key_norm = { type = "rms", ',
            'model.decoder.block.cross_attention.query_key_norm = "none"',
        ),
    ],
)
def test_what_cannot_be_said_is_named_with_what_could(tree: Any, named: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        export(tmp_path / "out", bundle(tree))
    assert named in caught.value.what
    assert remedy in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_what_the_remedy_says_can_be_said() -> None:
    for tree in (TRANSLATORS | GENERATORS).values():
        unsaid = lacks(tree)
        assert set(unsaid) <= {
            "encoder.position.offset",
            "decoder.position.offset",
            "encoder.block.norm.bias",
            "decoder.block.norm.bias",
            "encoder.block.attention.query_key_norm.bias",
            "decoder.block.attention.query_key_norm.bias",
        }


# --- a trained model ---------------------------------------------------------------------------------------------


def test_a_trained_model_says_the_same(tmp_path: Path) -> None:
    outcome = sublayer("export", trained(), tmp_path / "out", "--format", "ctranslate2")
    assert outcome.code == 0, outcome.err
    own = folder.load_translator(trained())
    texts = [json.loads(line)["source"] for line in (trained() / "model" / "test.jsonl").read_text().splitlines()]
    ids = own.tokenizer.encode(texts)
    model = ctranslate2.Translator(str(tmp_path / "out"), compute_type="float32", intra_threads=1)
    asked = [[own.tokenizer.token(number) for number in row] for row in ids]
    theirs = model.translate_batch(asked, beam_size=1, max_decoding_length=24)
    ours = [each.best for each in own.translate(texts, beam=1)]
    for found, each in zip(theirs, ours, strict=True):
        said = [own.tokenizer.backend.token_to_id(token) for token in found.hypotheses[0]]
        assert said == each.tokens if each.complete else said[: len(each.tokens)] == each.tokens
    assert len({tuple(each.tokens) for each in ours}) > 3
    back = sublayer("pull", tmp_path / "out", tmp_path / "back")
    assert back.code == 0, back.err
    again = folder.load_translator(tmp_path / "back")
    # The table of sines is longer than the model was, and so is what it may say.
    for longer, each in zip(again.translate(texts, beam=1), ours, strict=True):
        assert longer.tokens == each.tokens if each.complete else longer.tokens[: len(each.tokens)] == each.tokens


# --- what others wrote -------------------------------------------------------------------------------------------


def transformers_model(kind: str, **settings: Any) -> Any:
    import transformers

    shape = {"vocab_size": ROWS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(3)
    model = getattr(transformers, kind)(getattr(transformers, kind).config_class(**shape | settings)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


class Numbers:
    """Stands where a converter wants a tokenizer."""

    bos_token, eos_token, unk_token, pad_token = "<s>", "</s>", "<unk>", "<pad>"
    additional_special_tokens: tuple[str, ...] = ()

    def get_vocab(self) -> dict[str, int]:
        return TOKENIZER.backend.get_vocab(with_added_tokens=True)

    def convert_ids_to_tokens(self, number: int) -> str:
        return TOKENIZER.token(number)


SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 36}
SIDES = {"layers": 2, "ffn_dim": 36, "attention_heads": 4}
CONVERTED = {
    "GPT2LMHeadModel": ("GPT2Loader", {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 40}),
    "LlamaForCausalLM": ("LlamaLoader", {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 40}),
    "BartForConditionalGeneration": (
        "BartLoader",
        {
            "d_model": 24,
            **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in SIDES.items()},
            "max_position_embeddings": 40,
        },
    ),
}
OF_OLDER_CONFIGS = {"normalize_before": False, "normalize_embedding": True}
"""What its loader of BART asks a config for, and `transformers` 5 does not say any more."""


def converted(path: Path, kind: str, weights: str) -> tuple[Path, Tensor]:
    """What CTranslate2's own converter writes of a model of `transformers`, and that model's logits."""
    from ctranslate2.converters import transformers as converters

    loader, settings = CONVERTED[kind]
    theirs = transformers_model(kind, **settings)
    for name, value in OF_OLDER_CONFIGS.items():
        setattr(theirs.config, name, value)
    asked = {"decoder_input_ids": TARGET} if kind.startswith("Bart") else {}
    with torch.no_grad():
        said = theirs(input_ids=IDS, **asked).logits
    spec = getattr(converters, loader)()(theirs, Numbers())
    spec.validate()
    spec.optimize(quantization=weights)
    path.mkdir()
    spec.save(str(path))
    TOKENIZER.save(path / "tokenizer.json")
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (path / "tokenizer_config.json").write_text(json.dumps(roles))
    return path, said


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_its_own_converters_write_is_read(kind: str, tmp_path: Path) -> None:
    path, said = converted(tmp_path / "out", kind, "float32")
    found = import_ctranslate2(path)
    with torch.no_grad():
        ours = found.model(IDS, None, TARGET) if kind.startswith("Bart") else found.model(IDS)
    assert_near(ours, said, 1e-4)


@pytest.mark.parametrize("kind", CONVERTED)
def test_int8_is_rounded_as_its_own_converters_round(kind: str, tmp_path: Path) -> None:
    wide, _ = converted(tmp_path / "wide", kind, "float32")
    narrow, _ = converted(tmp_path / "narrow", kind, "int8")
    export(tmp_path / "ours", import_ctranslate2(wide), "int8")
    ours, theirs = (model_bin.read(path / "model.bin") for path in (tmp_path / "ours", narrow))
    assert ours.headers.keys() == theirs.headers.keys()
    for name in theirs.headers:
        assert torch.equal(ours.tensor(name), theirs.tensor(name)), name


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    export(tmp_path / "out", bundle(TRANSLATORS["the demo's"]))
    return tmp_path / "out"


def refused(path: Path) -> str:
    with pytest.raises(SublayerError) as caught:
        import_ctranslate2(path)
    assert caught.value.remedy
    return str(caught.value)


def test_a_file_that_is_cut_off_anywhere_is_refused(written: Path) -> None:
    whole = (written / "model.bin").read_bytes()
    for size in [*range(0, 400), *range(400, len(whole), 4099), len(whole) - 1]:
        (written / "model.bin").write_bytes(whole[:size])
        assert "model.bin is damaged or no model of CTranslate2" in refused(written)
    (written / "model.bin").write_bytes(whole + b"x")
    assert "1 bytes are left at its end" in refused(written)


def test_whatever_byte_of_the_header_is_another_it_is_refused_or_read(written: Path) -> None:
    whole = (written / "model.bin").read_bytes()
    refusals = 0
    for place in range(0, 1500):
        for value in (0, 255):
            (written / "model.bin").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                assert model_bin.read(written / "model.bin").headers
            except CheckpointError:
                refusals += 1
    assert refusals > 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder/alibi_scale": torch.tensor(2.0)}, "decoder/alibi_scale = 2, which sublayer does not know"),
        ({"decoder/start_from_zero_embedding": torch.tensor(1, dtype=torch.int8)}, "start_from_zero_embedding = 1"),
        ({"encoder/activation": torch.tensor(6, dtype=torch.int8)}, "encoder/activation = 6"),
        ({"encoder/scale_embeddings": torch.tensor(3.0)}, "scale_embeddings = 3"),
        ({"encoder/scale_embeddings": torch.tensor(0, dtype=torch.int8)}, "two embeddings are scaled"),
        (
            {"encoder/num_heads": torch.tensor(5, dtype=torch.int16)},
            "encoder/layer_0/self_attention/linear_1/weight is (24, 24) and should be (24, 20)",
        ),
        ({"encoder/num_heads": torch.tensor(0, dtype=torch.int16)}, "damaged"),
        (
            {"encoder/layer_0/self_attention/relative_position_keys": torch.ones(3, 4)},
            "unexpected: encoder/layer_0/self",
        ),
        ({"encoder/embeddings_0/weight": torch.ones(7, 24)}, "source vocabulary has 7 tokens"),
        (
            {"decoder/layer_1/ffn/linear_1/bias": torch.full((24,), torch.nan)},
            "decoder/layer_1/ffn/linear_1/bias (24 of",
        ),
        ({"decoder/embeddings/weight": None}, "it has no matrix decoder/embeddings/weight"),
        ({"decoder/layer_1/ffn/linear_0/bias": None}, "missing: decoder/layer_1/ffn/linear_0/bias"),
        ({"decoder/layer_1/ffn/layer_norm/gamma": None}, "missing: decoder/layer_1/ffn/layer_norm/gamma"),
        (
            {"decoder/position_encodings/encodings": torch.ones(40, 8)},
            "decoder/position_encodings/encodings is of the shape [40, 8]",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(change: dict[str, Tensor | None], said: str, written: Path) -> None:
    rewrite(written, change)
    assert said in refused(written)


def rewrite(path: Path, change: dict[str, Tensor | None], *, name: str | None = None, revision: int = 7) -> None:
    """The file at `path` with other variables, or without those that are None."""
    held = model_bin.read(path / "model.bin")
    tensors = {each: held._read(variable) for each, variable in held.variables.items()}
    kept = {each: tensor for each, tensor in (tensors | change).items() if tensor is not None}
    made: dict[str, Callable[[], Tensor]] = {each: (lambda tensor=tensor: tensor) for each, tensor in kept.items()}
    model_bin.write(path / "model.bin", name or held.specification, revision, made, held.aliases)


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [("WhisperSpec", 3, "holds a WhisperSpec"), ("TransformerSpec", 99, "is of revision 99, and read are 2 to 7")],
)
def test_other_specifications(name: str, revision: int, said: str, written: Path) -> None:
    rewrite(written, {}, name=name, revision=revision)
    assert said in refused(written)


def test_vocabularies_and_tokenizers_that_do_not_belong(written: Path) -> None:
    tokens = json.loads((written / "shared_vocabulary.json").read_text())
    path = written / "shared_vocabulary.json"
    path.write_text(json.dumps(tokens[:-1]))
    assert f"the vocabulary has {ROWS - 1} different tokens, the embedding {ROWS} rows" in refused(written)
    path.write_text(json.dumps([*tokens[:-2], tokens[-1], tokens[-2]]))
    assert "tokenizer.json has other tokens than the vocabulary" in refused(written)
    path.write_text(json.dumps({"a": 1}))
    assert "is no list of tokens" in refused(written)
    path.unlink()
    (written / "source_vocabulary.json").write_text(json.dumps(tokens))
    (written / "target_vocabulary.json").write_text(json.dumps([*tokens[:-1], "else"]))
    assert "different vocabularies for source and target" in refused(written)
    (written / "target_vocabulary.json").write_text(json.dumps(tokens))
    import_ctranslate2(written)
    (written / "tokenizer.json").unlink()
    assert "has no tokenizer: CTranslate2 keeps none" in refused(written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eos_token": 3}, "eos_token = '3'"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon = 'small'"),
        ({"add_source_eos": "yes"}, "add_source_eos = 'yes'"),
        ({"decoder_start_token": "<elsewhere>"}, "names the token '<elsewhere>'"),
        ({"layer_norm_epsilon": -1.0}, "describes no model"),
    ],
)
def test_a_config_that_cannot_be(change: dict[str, Any], said: str, written: Path) -> None:
    path = written / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert said in refused(written)
