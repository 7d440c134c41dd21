"""PEFT's folders, out and in: W + scale B A, written out on transformers' own model, gives what ours gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import exactly, relative
from safetensors.torch import load_file, save_file
from test_own_models import translation
from torch import Tensor

from adapted import C, write_adapters, write_base
from small_run import sublayer
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.exporting import export
from sublayer.hub.folder import read
from sublayer.hub.peft import export_adapters, import_adapters

ROTARY = 1e-7
"""Their rotary frequencies are float32; all else agrees in float64."""
TOKENS = torch.tensor([[5, 9, 40, 20, 17, 8], [7, 7, 30, 4, 41, 9]])
GPT2 = config.DecoderOnly(
    dim=24,
    vocab_size=304,
    max_length=40,
    embedding=config.Embedding(scale=False),
    decoder=config.Stack(
        layers=2,
        position=config.Learned(),
        block=config.Block(
            attention=config.Attention(heads=4),
            feed_forward=config.PositionWise(hidden=36, activation="gelu_tanh"),
            norm_placement="pre",
        ),
    ),
)
CASES: dict[str, tuple[config.Model | None, str, str]] = {
    "llama": (None, "llama", "AutoModelForCausalLM"),
    "gpt2": (GPT2, "gpt2", "AutoModelForCausalLM"),
    "marian": (translation("post", "halves"), "marian", "AutoModelForSeq2SeqLM"),
}


def theirs(folder: Path, kind: str) -> Any:
    """The base as `transformers` loads it, in float64 as it was written."""
    with exactly():
        return getattr(transformers, kind).from_pretrained(folder).eval()


@torch.no_grad()
def merged_by_hand(model: Any, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """As PEFT defines it: every module that the list names gets W + (alpha / r) B A."""
    modules = dict(model.named_modules())
    assert {name for key in tensors for name in [key.removeprefix("base_model.model.").rpartition(".lora_")[0]]} == set(
        settings["target_modules"]
    )
    for name in settings["target_modules"]:
        a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"].double() for part in "AB")
        change = b @ a * (settings["lora_alpha"] / settings["r"])
        modules[name].weight.add_(change.T if settings["fan_in_fan_out"] else change)
    return model


@torch.no_grad()
def logits(model: Any, encoder_decoder: bool) -> Tensor:
    with exactly():
        if encoder_decoder:
            return model(input_ids=TOKENS, decoder_input_ids=TOKENS.flip(1)).logits
        return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("case", CASES)
def test_out_is_exact(tmp_path: Path, case: str) -> None:
    tree, family, kind = CASES[case]
    base = write_base(tmp_path / "base", tree, dtype=torch.float64)
    model = write_adapters(tmp_path / "adapters", base)
    tokens = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    export(tmp_path / "hf", read(base).model, family=family, tokens=tokens)
    assert export_adapters(tmp_path / "peft", read(tmp_path / "adapters"), family).name == family
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", C.rank, C.alpha)
    before = logits(theirs(tmp_path / "hf", kind), case == "marian")
    found = logits(merged_by_hand(theirs(tmp_path / "hf", kind), settings, tensors), case == "marian")
    with torch.no_grad():
        ours = model(TOKENS, None, TOKENS.flip(1)) if case == "marian" else model(TOKENS)
    assert relative(before, ours) > 0.1
    assert relative(found, ours) < ROTARY


def test_there_and_back_is_the_same_to_the_bit(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapters(tmp_path / "adapters", base)
    export_adapters(tmp_path / "peft", read(tmp_path / "adapters"))
    import_adapters(tmp_path / "peft", base, tmp_path / "again")
    one, other = (load_file(tmp_path / name / "adapter.safetensors") for name in ("adapters", "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    models = [read(tmp_path / name).model for name in ("adapters", "again")]
    with torch.no_grad():
        assert torch.equal(models[0](TOKENS), models[1](TOKENS))


def made_there(folder: Path, base: Path, **settings: Any) -> None:
    """As PEFT would write them: of their own for queries, values and the way down, of the first layer alone."""
    torch.manual_seed(4)
    dim, wide = 32, 40
    shapes = {"self_attn.q_proj": (32, dim), "self_attn.v_proj": (16, dim), "mlp.down_proj": (dim, wide)}
    tensors: dict[str, Tensor] = {}
    for name, (out, into) in shapes.items():
        key = f"base_model.model.model.layers.0.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(2, into) * 0.3
        tensors[f"{key}.lora_B.weight"] = torch.randn(out, 2) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    usual = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "layers_to_transform": [0],
        "fan_in_fan_out": False,
        "use_rslora": False,
        "modules_to_save": None,
        "bias": "none",
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(usual | settings))


@pytest.mark.parametrize("scaled", [False, True])
def test_in_is_exact(tmp_path: Path, scaled: bool) -> None:
    base = write_base(tmp_path / "base", dtype=torch.float64)
    made_there(tmp_path / "peft", base, use_rslora=scaled)
    outcome = sublayer("pull", tmp_path / "peft", tmp_path / "adapters", "--base", base)
    assert outcome.code == 0, outcome.err
    export(tmp_path / "hf", read(base).model, tokens={"eos_token_id": 2, "pad_token_id": 0})
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
    alpha = 6 * (2**0.5 if scaled else 1)
    settings = {"target_modules": sorted(names), "r": 2, "lora_alpha": alpha, "fan_in_fan_out": False}
    expected = logits(merged_by_hand(theirs(tmp_path / "hf", "AutoModelForCausalLM"), settings, tensors), False)
    found = read(tmp_path / "adapters", merged=False).model
    with torch.no_grad():
        assert relative(found(TOKENS), expected) < ROTARY
        assert relative(read(base).model(TOKENS), expected) > 0.1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"use_dora": True}, "settings that sublayer does not know: use_dora = True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 3}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias"),
        ({"use_qalora": True}, "use_qalora"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"target_modules": ["q_proj", "v_proj"]}, r"leaves out model\.layers\.0\.mlp\.down_proj"),
        ({"target_modules": r".*\.self_attn\..*"}, r"leaves out model\.layers\.0\.mlp\.down_proj"),
        ({"layers_to_transform": [1]}, r"layers_to_transform = \[1\], which leaves out model\.layers\.0"),
        ({"exclude_modules": ["v_proj"]}, r"leaves out model\.layers\.0\.self_attn\.v_proj"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens"),
        *(
            ({"init_lora_weights": begun}, f"init_lora_weights = '{begun}': these adapters belong to a base")
            for begun in ("pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "mica", "tomorrow")
        ),
    ],
)
def test_settings_that_are_not_known(tmp_path: Path, spoil: dict[str, Any], says: str) -> None:
    base = write_base(tmp_path / "base")
    made_there(tmp_path / "peft", base, **spoil)
    with pytest.raises(CheckpointError, match=says):
        import_adapters(tmp_path / "peft", base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("layers.0", "layers.7"): tensor for key, tensor in tensors.items()}


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if "q_proj.lora_B" not in key}


def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.repeat(1, 2) if "lora_A" in key else tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (renamed, r"adapters for what the model in .* has not: model\.layers\.7\.mlp\.down_proj"),
        (half, r"self_attn\.q_proj has only one of lora_A and lora_B"),
        (wide, r"lora_A \(2, \d+\) and lora_B \(\d+, 2\) do not fit a map of"),
        (lambda tensors: tensors | {"lm_head.weight": torch.zeros(2, 2)}, r"and has: lm_head\.weight"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, spoil: Callable[[dict[str, Tensor]], Any], says: str) -> None:
    base = write_base(tmp_path / "base")
    made_there(tmp_path / "peft", base, layers_to_transform=None)
    file = tmp_path / "peft" / "adapter_model.safetensors"
    save_file(spoil(load_file(file)), file)
    with pytest.raises(CheckpointError, match=says):
        import_adapters(tmp_path / "peft", base, tmp_path / "out")


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapters(tmp_path / "adapters", base)
    assert sublayer("export", tmp_path / "adapters", tmp_path / "peft", "--format", "peft").code == 0
    for arguments, says in (
        (("export", base, tmp_path / "x", "--format", "peft"), "this model has no adapters to export"),
        (("pull", tmp_path / "peft", tmp_path / "x"), "holds adapters, not a model. Name the model they belong to"),
        (("pull", base, tmp_path / "x", "--base", base), "holds no adapters that --base could go with"),
    ):
        outcome = sublayer(*arguments)
        assert outcome.code == 2
        assert says in outcome.err
        assert not (tmp_path / "x").exists()
