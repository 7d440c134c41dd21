"""What is wrong with a checkpoint is said, all at once and by name; nothing is approximated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_rows import ROWS, SIZES
from parity import Row, altered, build_oracle, relative
from safetensors.torch import load_file, save_file
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.exporting import choose_family, export
from sublayer.hub.families import FAMILIES
from sublayer.hub.importing import import_folder, import_tensors
from sublayer.hub.sources import Header
from sublayer.models import build_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, its two embeddings tied."""
    found = tmp_path_factory.mktemp("llama")
    build_oracle(Row("llama", "LlamaForCausalLM", SIZES | {"tie_word_embeddings": True})).save_pretrained(found)
    return found


def with_tensors(folder: Path, to: Path, change: Any) -> Path:
    """A copy whose tensors, by name, went through `change`."""
    altered(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_folder(folder, **options)
    return str(caught.value)


# --- tensors -----------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_the_tensors_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.self_attn.k_proj.weight"]
        tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(3)
        tensors["model.embed_tokens.weight"] = torch.zeros(60, 32)
        tensors["model.layers.0.mlp.down_proj.weight"] = tensors["model.layers.0.mlp.down_proj.weight"].to(torch.int8)

    message = refused(with_tensors(folder, tmp_path / "bad", change))
    for said in (
        "missing: model.norm.weight",
        "missing: model.layers.1.self_attn.k_proj.weight",
        "unexpected: model.layers.2.mlp.up_proj.weight",
        "misshapen: model.embed_tokens.weight is (60, 32) and should be (61, 32)",
        "quantized?): model.layers.0.mlp.down_proj.weight",
    ):
        assert said in message
    assert "self_attn.q_proj" not in message


def test_old_buffers_are_passed_over(folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)

    import_folder(with_tensors(folder, tmp_path / "old", change))


def test_names_of_older_checkpoints(tmp_path: Path) -> None:
    """GPT-2's first files have no prefix and hold its masks; GPT-NeoX's projection has two names."""
    rows = {row.name: row for row in ROWS}

    def first_gpt2(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
        tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)

    def other_output(tensors: dict[str, Tensor]) -> None:
        ours, other = sorted(("embed_out.weight", "lm_head.weight"), key=tensors.__contains__, reverse=True)
        tensors[other] = tensors.pop(ours)

    for name, change in (("gpt-2", first_gpt2), ("pythia", other_output)):
        now = tmp_path / name
        build_oracle(rows[name]).save_pretrained(now)
        one = import_folder(now).model.state_dict()
        two = import_folder(with_tensors(now, tmp_path / f"older {name}", change)).model.state_dict()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_tied_tensor_may_stand_twice_or_under_its_other_name(folder: Path, tmp_path: Path) -> None:
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]

    def twice(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = embedding.clone()

    def other_name(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    for number, change in enumerate((twice, other_name)):
        model = import_folder(with_tensors(folder, tmp_path / str(number), change)).model
        assert model.output.weight is model.decoder.embedding.tokens.weight
        assert torch.equal(model.output.weight, embedding)


def test_a_tied_tensor_that_stands_twice_must_be_the_same(folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    message = refused(with_tensors(folder, tmp_path / "bad", change))
    assert "not tied, though config.json says so: lm_head.weight differs from model.embed_tokens.weight" in message


# --- files -------------------------------------------------------------------------------------------------------


def test_a_folder_without_weights(folder: Path, tmp_path: Path) -> None:
    altered(folder, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").unlink()
    assert "holds no model.safetensors" in refused(tmp_path / "bad")


@pytest.mark.parametrize("size", [0, 5, 200])
def test_a_truncated_file(folder: Path, tmp_path: Path, size: int) -> None:
    altered(folder, tmp_path / "bad")
    os.truncate(tmp_path / "bad" / "model.safetensors", size)
    message = refused(tmp_path / "bad")
    assert "model.safetensors is damaged or not a safetensors file" in message


def test_a_corrupt_header(folder: Path, tmp_path: Path) -> None:
    altered(folder, tmp_path / "bad")
    path = tmp_path / "bad" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[20:30] = b"\xff" * 10
    path.write_bytes(bytes(data))
    assert "model.safetensors is damaged" in refused(tmp_path / "bad")


def sharded(folder: Path, to: Path) -> Path:
    """In several files, as written by us."""
    found = import_folder(folder)
    export(to, found.model, family="llama", shard_bytes=20_000)
    return to


def test_shards(folder: Path, tmp_path: Path) -> None:
    parts = sharded(folder, tmp_path / "parts")
    assert len(list(parts.glob("*.safetensors"))) > 2
    one, other = import_folder(folder).model.state_dict(), import_folder(parts).model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in load_file(folder / "model.safetensors").values())


def test_missing_shards_are_named(folder: Path, tmp_path: Path) -> None:
    parts = sharded(folder, tmp_path / "parts")
    gone = sorted(path.name for path in parts.glob("*.safetensors"))[1:3]
    for name in gone:
        (parts / name).unlink()
    message = refused(parts)
    assert all(name in message for name in gone)


def test_an_index_that_leaves_the_folder(folder: Path, tmp_path: Path) -> None:
    parts = sharded(folder, tmp_path / "parts")
    path = parts / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    assert "outside its folder: ../elsewhere.safetensors" in refused(parts)


def test_a_pickle_only_on_the_users_word(folder: Path, tmp_path: Path) -> None:
    altered(folder, tmp_path / "pickled")
    tensors = load_file(tmp_path / "pickled" / "model.safetensors")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pickled" / "pytorch_model.bin")
    assert "only as a pickle, pytorch_model.bin" in refused(tmp_path / "pickled")
    one = import_folder(tmp_path / "pickled", unsafe_pickle=True).model.state_dict()
    other = import_folder(folder).model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch evil",))


def test_code_in_a_pickle_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    altered(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil()}, tmp_path / "pickled" / "pytorch_model.bin")
    assert "holds more than tensors" in refused(tmp_path / "pickled", unsafe_pickle=True)
    assert not (tmp_path / "evil").exists()


# --- config.json -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llamma"}, "model_type = 'llamma', which sublayer does not know. Did you mean 'llama'?"),
        ({"model_type": None}, "names no model_type"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"hidden_act": "gelu_fast"}, "hidden_act = 'gelu_fast'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling = 'dynamic'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "longrope"}}, "rope_scaling = 'longrope'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "twist": 3}}, "twist = 3"),
        ({"rope_scaling": {"type": "linear"}}, "has no 'factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"new_feature": 7}, "settings that sublayer does not know: new_feature = 7"),
        ({"num_key_value_heads": 3}, "heads = 4 is not a multiple of kv_heads = 3"),
        ({"hidden_size": "wide"}, "hidden_size = 'wide', and it should be a whole number"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers = 'two', and it should be a whole number"),
    ],
)
def test_a_config_that_is_refused(folder: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(altered(folder, tmp_path / "bad", **changes))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_config_that_is_no_config(folder: Path, tmp_path: Path, text: str) -> None:
    altered(folder, tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refused(tmp_path / "bad")


# --- reading straight to where it is wanted ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sources(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """As they are, or wider, which changes no number."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)

    half = with_tensors(folder, tmp_path / "half", change)
    model = import_folder(half).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.decoder.position.table.dtype == torch.float32
    wide = import_folder(half, dtype=torch.float32).model
    tokens = torch.arange(3, 9).unsqueeze(0)
    with torch.no_grad():
        exact = import_folder(folder).model(tokens)
        assert relative(wide(tokens), exact) < {torch.float16: 2e-2, torch.bfloat16: 2e-1}[dtype]
        assert relative(model(tokens), exact) < {torch.float16: 2e-2, torch.bfloat16: 2e-1}[dtype]
    export(tmp_path / "again", model)
    one, other = load_file(half / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_second_copy_in_memory(folder: Path) -> None:
    """While one rule's tensors are moved, none of another's is alive."""
    import weakref

    tensors = load_file(folder / "model.safetensors")
    alive: set[str] = set()
    most = 0

    class Watched:
        def __init__(self) -> None:
            self.name = "watched"
            self.headers = {name: Header(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}

        def tensor(self, name: str) -> Tensor:
            nonlocal most
            found = tensors[name].clone()
            alive.add(name)
            weakref.finalize(found, alive.discard, name)
            most = max(most, len(alive))
            return found

    tree = import_folder(folder).model.config
    family = FAMILIES[0]
    import_tensors(tree, family, Watched(), dtype=torch.float32)
    assert most == max(len(rule.theirs) for rule in family.rules(tree))
    assert not alive


# --- out again ---------------------------------------------------------------------------------------------------


def test_a_model_trained_here_leaves_as_llama(tmp_path: Path) -> None:
    family = export(tmp_path / "out", build_model(llama_tree()), tokens={"eos_token_id": 2})
    assert family.name == "llama"
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    ours = import_folder(tmp_path / "out").model
    tokens = torch.randint(61, (2, 9))
    with torch.no_grad():
        assert relative(ours(tokens), theirs(tokens).logits) < 1e-5
    assert theirs.generation_config.eos_token_id == 2


def llama_tree(**changes: Any) -> config.DecoderOnly:
    block = config.Block(
        attention=config.Attention(heads=4, kv_heads=2, bias=False),
        feed_forward=config.Gated(hidden=40),
        norm=config.RMSNorm(),
        norm_placement="pre",
        dropout=0.1,
    )
    stack = config.Stack(layers=2, block=block.model_copy(update=changes), position=config.Rotary())
    return config.DecoderOnly(dim=32, vocab_size=61, max_length=32, decoder=stack)


def test_what_no_family_can_express_is_named() -> None:
    tree = llama_tree(attention=config.Attention(heads=4, bias=False, query_key_norm=config.LayerNorm()))
    with pytest.raises(CheckpointError) as caught:
        choose_family(tree)
    assert "decoder.block.attention.query_key_norm" in str(caught.value)


def test_how_pairs_are_laid_out_is_a_familys() -> None:
    """No key of a config says it, so that only a family that turns pairs side by side can express it."""
    tree = llama_tree()
    position = config.Rotary(layout="interleaved")
    with pytest.raises(CheckpointError, match="layout = 'interleaved' would become 'halves'"):
        choose_family(tree.model_copy(update={"decoder": tree.decoder.model_copy(update={"position": position})}))


def test_a_model_of_glm4s_form_becomes_one() -> None:
    tree = llama_tree(attention=config.Attention(heads=4, output_bias=False), norm_placement="sandwich")
    position = config.Rotary(layout="interleaved", fraction=0.5)
    tree = tree.model_copy(update={"decoder": tree.decoder.model_copy(update={"position": position})})
    assert choose_family(tree)[0].name == "glm4"


def test_a_model_of_olmo3s_form_becomes_one() -> None:
    """Whose layers with a window have the stack's positions, which only tables of transformers 5 can say."""
    attention = config.Attention(heads=4, bias=False, query_key_norm=config.RMSNorm(), query_key_norm_over="all")
    tree = llama_tree(attention=attention, norm_placement="output")
    near = tree.decoder.block.model_copy(update={"attention": attention.model_copy(update={"window": 5})})
    others = (config.OtherLayers(layers=(0,), block=near),)
    stack = tree.decoder.model_copy(update={"others": others, "position": config.Rotary(base=33.0)})
    family, settings = choose_family(tree.model_copy(update={"decoder": stack}))
    assert (family.name, settings["layer_types"]) == ("olmo3", ["sliding_attention", "full_attention"])
    assert {table["rope_theta"] for table in settings["rope_parameters"].values()} == {33.0}


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no family is called 'lama'. Did you mean 'llama'"):
        choose_family(llama_tree(), "lama")
