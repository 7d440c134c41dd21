"""`sublayer describe` and `sublayer schema`, as the command line runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from machines import machine_with
from sublayer import config
from sublayer.cli.describe import describe
from sublayer.cli.schema import schema
from sublayer.config import PRESETS
from sublayer.config.schema import recipe_schema
from sublayer.errors import CheckpointError, ConfigError, SublayerError
from sublayer.fast.engine.library import instruction_set
from sublayer.fast.facts import Machine
from sublayer.fast.machine import machine_is
from sublayer.models import EncoderDecoder, build_model

app = typer.Typer()
app.command()(describe)
app.command()(schema)

RECIPE = """\
name = "x"
[data.source]
type = "corpus"
name = "a"
[tokenizer]
vocab_size = 4000
[model]
preset = "tiny"
[training]
steps = 3
batches = { tokens = 1000 }
[decoding]
beam = 2
"""


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def numbers(*arguments: str | Path) -> Any:
    return json.loads(run("describe", *arguments, "--json"))


def failure(*arguments: str | Path) -> SublayerError:
    result = CliRunner().invoke(app, ["describe", *(str(argument) for argument in arguments)])
    assert isinstance(result.exception, SublayerError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model": PRESETS["mini"].plain(), "tokenizer": "abc"}))
    return path


def test_a_preset() -> None:
    out = run("describe", "base")
    for said in ("heads = 8", "63,082,496", "position Sinusoidal", "kv_heads = unset", "30.0%", "tied", "GiB"):
        assert said in out
    assert "a batch of 6,000 tokens" in out
    assert "32 sentences, beam 4, 32 tokens a side" in out


def test_a_preset_with_overrides() -> None:
    found = numbers("base", "--set", "model.encoder.layers=1", "--set", "model.decoder.layers=1", "--length", "9")
    assert found["tree"]["encoder"]["layers"] == 1
    assert found["parameters"]["total"] == 37_000 * 512 + 3_152_384 + 4_204_032
    assert found["flops"]["target_length"] == 9
    plain = numbers("base")["training_memory"]["bytes"]["optimizer"]
    assert numbers("base", "--set", "training.optimizer.type=muon")["training_memory"]["bytes"]["optimizer"] < plain


def test_a_recipe_is_counted_with_its_tokenizers_vocabulary(recipe: Path) -> None:
    found = numbers(recipe)
    assert found["parameters"]["parts"]["embedding"] == 4000 * 64
    assert found["training_memory"]["batch_tokens"] == 1000
    assert found["decoding_memory"]["beam"] == 2
    assert numbers(recipe, "--beam", "7", "--batch", "3")["decoding_memory"]["total"] > 0
    out = run("describe", recipe)
    assert "the tokenizer's vocabulary of 4,000" in out
    assert "type = bpe" in out


def test_a_model_folder(folder: Path) -> None:
    found = numbers(folder)
    assert found["tree"] == PRESETS["mini"].plain()
    assert found["training_memory"]["batch_tokens"] == 6000
    (folder / "recipe.toml").write_text(RECIPE)
    assert numbers(folder)["training_memory"]["batch_tokens"] == 1000


def test_a_language_model() -> None:
    out = run("describe", "gpt2")
    for said in (
        "124,439,808",
        "decoder.position",
        "training, a token",
        "generating, the prompt once",
        "32 texts, beam 4, 32 tokens of prompt and as many more",
        "Memory to generate",
    ):
        assert said in out
    assert "cross" not in out.replace("cross_attention = unset", "")
    found = numbers("gpt2", "--length", "512")
    assert found["decoding_memory"]["bytes"]["self_cache"] == 12 * 2 * 768 * 1024 * 4 * 32 * 4
    said = "--length 513 is more than model.max_length = 1024, which a prompt and its continuation share"
    assert said in str(failure("gpt2", "--length", "513"))


def test_an_encoder() -> None:
    out = run("describe", "bert-base", "--length", "512")
    for said in ("Memory to read (32 texts, 512 tokens each)", "reading, a text", "head MaskedLanguage", "states"):
        assert said in out
    assert "beam" not in out


def test_experts_and_layers_that_are_unlike_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    tree = PRESETS["mini-lm"].plain()
    experts = {"type": "mixture-of-experts", "experts": 8, "hidden": 704}
    tree["decoder"]["others"] = [{"layers": [1, 3], "block": {**tree["decoder"]["block"], "feed_forward": experts}}]
    path.write_text(json.dumps({"model": tree}))
    found = numbers(tmp_path)["parameters"]
    # Two layers of eight instead of one, of which each token meets two.
    one = 3 * 256 * 704
    plain = numbers("mini-lm")["parameters"]["total"]
    assert found["total"] == plain + 2 * (7 * one + 8 * 256)
    assert found["active"] == plain + 2 * (one + 8 * 256)
    out = run("describe", tmp_path)
    assert "for one token" in out
    assert "others" in out
    assert "experts = 8" in out
    assert "layers = (1, 3)" in out


@pytest.mark.parametrize("name", ["small", "gpt2", "minilm", "bert-base"])
def test_totals_are_sums(name: str) -> None:
    found = numbers(name)
    assert found["parameters"]["total"] == sum(found["parameters"]["parts"].values())
    for kind in ("training_memory", "decoding_memory"):
        assert found[kind]["total"] == sum(found[kind]["bytes"].values())


def test_what_cannot_be_described(tmp_path: Path, folder: Path, recipe: Path) -> None:
    assert str(failure("bass")).startswith("there is no preset, recipe or model folder 'bass'. Did you mean 'base'?")
    assert "--length 999 is more than model.max_length = 512" in str(failure("base", "--length", "999"))
    said = "model.encoder.layrs: unknown key; did you mean 'layers'?"
    assert said in str(failure("base", "--set", "model.encoder.layrs=1"))
    assert "tokenizer: unknown key" in str(failure("base", "--set", "tokenizer.type=bpe"))
    assert said in str(failure(recipe, "--set", "model.encoder.layrs=1"))
    (tmp_path / "empty").mkdir()
    assert isinstance(failure(tmp_path / "empty"), CheckpointError)
    (folder / "config.json").write_text('{"model": ')
    assert "config.json is damaged" in str(failure(folder))
    (folder / "config.json").write_text("{}")
    assert "has no table 'model'" in str(failure(folder))
    (folder / "config.json").write_text('{"model": {"dim": "8"}}')
    assert isinstance(failure(folder), ConfigError)


def test_schema(tmp_path: Path) -> None:
    assert json.loads(run("schema")) == recipe_schema()
    out = tmp_path / "recipe.schema.json"
    assert run("schema", "--out", out) == f"Wrote {out}.\n"
    assert json.loads(out.read_text(encoding="utf-8")) == recipe_schema()


@pytest.mark.parametrize("command", ["describe", "schema"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: sublayer {command}" in run(command, "--help")


def test_describe_machine() -> None:
    machine = machine_with(float32={"torch": 50, "onednn": 120}, bfloat16=500, half=(0.002, 0.001))
    with machine_is(machine):
        page = run("describe", "--machine")
        assert Machine.model_validate_json(run("describe", "--machine", "--json")) == machine
    said = " ".join(page.split())
    assert machine.identity.processor in said
    assert f"engine: {instruction_set()} (of " in said
    for words in ("training.precision = auto", "Muon", "bfloat16", "oneDNN 120 GFLOP/s"):
        assert words in said


def test_describe_a_machine_of_which_nothing_is_known() -> None:
    with machine_is(machine_with()):
        assert "What is chosen" in run("describe", "--machine")


@pytest.mark.parametrize(("arguments", "said"), [((), "WHAT is missing"), (("tiny", "--machine"), "not 'tiny'")])
def test_describe_wants_a_model_or_the_machine(arguments: tuple[str, ...], said: str) -> None:
    assert said in str(failure(*arguments))


def test_a_model_folder_says_what_runs_it_and_what_a_token_costs(tmp_path: Path) -> None:
    """The oracle: the matrices of the decoder, of sizes that need no padding, times the bytes of a number."""
    tree = config.preset("small").model_copy(update={"vocab_size": 64, "tied": "none"})
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "model": tree.plain()}))
    cpu, model = numbers(tmp_path)["cpu"], build_model(tree)
    assert isinstance(model, EncoderDecoder)
    # The keys and values of the source are made once, by the encoder's pass.
    own = [p for name, p in model.decoder.layers.named_parameters() if p.ndim == 2 and "key_value" not in name]
    read = sum(weight.numel() for weight in own) + model.output.weight.numel() + tree.dim
    assert (cpu["runs"], cpu["instruction_set"]) == ("engine", instruction_set())
    assert cpu["bytes_read"]["float32"] == 4 * read
    assert cpu["bytes_read"]["bfloat16"] == 2 * read
    assert cpu["bytes_read"]["float32"] > 3.5 * cpu["bytes_read"]["int8"] > 3.5 * cpu["bytes_read"]["int4"]
    out = run("describe", tmp_path)
    assert f"On this CPU it is run by the engine, with {instruction_set()}" in out
    assert "bytes of matrices read for one more token" in out


def test_a_model_that_the_engine_does_not_run_says_why() -> None:
    kept = Path(__file__).parents[1] / "fixtures" / "models" / "recurrent-encoder-decoder"
    cpu = numbers(kept, "--length", "8")["cpu"]
    assert (cpu["runs"], cpu["why"]) == ("modules", "RecurrentEncoderDecoder is not lowered")
    out = run("describe", kept, "--length", "8")
    assert "On this CPU it is run by its modules" in out
    assert "(not by the engine: RecurrentEncoderDecoder is not lowered)" in out


def test_a_preset_says_nothing_of_this_cpu() -> None:
    assert "cpu" not in numbers("small")
