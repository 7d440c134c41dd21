"""Recipes: found, read, overridden, and written back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.fitting import fitted, overrides_for
from sublayer.config import (
    PRESETS,
    Adam,
    AdamW,
    Alibi,
    Attention,
    Characters,
    Cosine,
    Data,
    EarlyStopping,
    Ema,
    Gated,
    GivenSplit,
    InverseSquareRoot,
    Jsonl,
    LastCheckpoints,
    LayerNorm,
    Learned,
    LineAligned,
    LinearScaling,
    Llama3Scaling,
    MaskedLanguage,
    Muon,
    NamedCorpus,
    NoAveraging,
    NoPosition,
    Normalization,
    OtherLayers,
    Recipe,
    RelativeBias,
    RMSNorm,
    Rotary,
    Sinusoidal,
    Subwords,
    Tagging,
    Training,
    Tsv,
    YarnScaling,
)
from sublayer.config.load import dump_toml, load_recipe, recipes_folder, shipped_recipes
from sublayer.errors import ConfigError

TEXT = """\
name = "x"
[data.source]
type = "lines"
source = "a.en"
target = "a.es"
[tokenizer]
vocab_size = 4000
[model]
preset = "tiny"
[model.encoder.position]
base = 500
[training]
minutes = 8.5
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def refused(path: Path | str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- finding -----------------------------------------------------------------------------------------------------


def test_a_path_gives_the_recipe_and_its_folder(recipe_file: Path) -> None:
    loaded = load_recipe(str(recipe_file))
    assert loaded.folder == recipe_file.parent
    assert loaded.recipe.model.encoder.position == Sinusoidal(base=500.0)
    assert loaded.recipe.model.decoder == PRESETS["tiny"].decoder
    assert loaded.recipe.training.schedule == InverseSquareRoot()


def test_shipped_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sublayer.config.load.recipes_folder", lambda: tmp_path)
    (tmp_path / "tatoeba-en-es-demo.toml").write_text(TEXT)
    assert load_recipe("tatoeba-en-es-demo").recipe.name == "x"
    # Its paths are those of whoever gives the command: the folder that it stands in is nobody's.
    assert load_recipe("tatoeba-en-es-demo.toml").folder == Path.cwd()
    said = refused("tatoeba-en-es-dmo")
    assert said.startswith("no recipe 'tatoeba-en-es-dmo': there is no such file. Did you mean 'tatoeba-en-es-demo'?")


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    assert "is a folder, not a recipe" in refused(tmp_path)


def test_the_recipes_folder_is_the_checkouts() -> None:
    assert recipes_folder() == Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_is_called_by_its_file(name: str) -> None:
    assert load_recipe(name).recipe.name == name


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_syntax_error_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("a = 1\nb = = 2\n")
    assert refused(path).startswith(f"{path}, line 2, column 5: Invalid value")
    path.write_text('a = 1\nb = """x')
    assert refused(path).startswith(f"{path}, line 2, column 9: Unterminated string")


def test_text_that_is_not_utf8_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes('a = 1\nb = "ñ'.encode() + b'\xf1"\n')
    assert refused(path).startswith(f"{path}, line 2, column 7: byte 0xf1 is not UTF-8")


def test_a_byte_order_mark_is_no_error(recipe_file: Path) -> None:
    before = load_recipe(str(recipe_file))
    recipe_file.write_bytes(b"\xef\xbb\xbf" + recipe_file.read_bytes())
    assert load_recipe(str(recipe_file)) == before


def test_a_wrong_preset_hides_no_other_problem(recipe_file: Path) -> None:
    recipe_file.write_text(TEXT.replace('"tiny"', '"tinny"') + 'steps = "5"\n')
    assert refused(recipe_file) == (
        f"{recipe_file}: model.preset: no preset is called 'tinny'; did you mean 'tiny'?; "
        "training.steps: should be a whole number (given: '5')"
    )
    recipe_file.write_text(TEXT.replace("preset", "prest"))
    assert refused(recipe_file) == f"{recipe_file}: model.prest: unknown key; did you mean 'preset'?"
    recipe_file.write_text(TEXT.replace('"tiny"', "3"))
    assert refused(recipe_file) == f"{recipe_file}: model.preset: should be a string (given: 3)"


def test_a_preset_of_another_kind_hides_no_other_problem(recipe_file: Path) -> None:
    recipe_file.write_text(TEXT.replace('"tiny"', '"gpt2"\nkind = "encoder-only"').replace("minutes", "minuts"))
    said = refused(recipe_file)
    assert "model.kind: 'encoder-only' is not the kind of preset 'gpt2', which is 'decoder-only'" in said
    assert "training.minuts: unknown key; did you mean 'minutes'?" in said
    assert "model.encoder: unknown key; did you mean 'decoder'?" in said


def test_another_kind_replaces_the_whole_model(recipe_file: Path) -> None:
    said = refused(recipe_file, "model.kind=decoder-only", "model.dim=8")
    assert said.endswith(": model.decoder: missing")


# --- overrides ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "where", "value"),
    [
        (["training.accumulate=4"], "training.accumulate", 4),
        (["training.accumulate=4", "training.accumulate = 5"], "training.accumulate", 5),
        (["training.label_smoothing=2e-1"], "training.label_smoothing", 0.2),
        (["training.compile=true"], "training.compile", True),
        (["training.precision=bfloat16"], "training.precision", "bfloat16"),
        (['description="a = \\"b\\""'], "description", 'a = "b"'),
        (["description=two words"], "description", "two words"),
        (['description=""'], "description", ""),
        (["training.clip_norm=none"], "training.clip_norm", None),
        (["training.optimizer.betas=[0.5, 0.6]"], "training.optimizer.betas", (0.5, 0.6)),
        (["tokenizer.type=unigram"], "tokenizer", Subwords(type="unigram", vocab_size=4000)),
        (["tokenizer.vocab_size=500"], "tokenizer", Subwords(vocab_size=500)),
        (["tokenizer.type=characters"], "tokenizer", Characters()),
        (["tokenizer.normalization.lowercase=true"], "tokenizer.normalization", Normalization(lowercase=True)),
        (
            ['training.early_stopping={metric="bleu",patience=3}'],
            "training.early_stopping",
            EarlyStopping(metric="bleu", patience=3),
        ),
        (["training.early_stopping.patience=3"], "training.early_stopping", EarlyStopping(patience=3)),
        (["training.schedule.warmup=7"], "training.schedule", InverseSquareRoot(warmup=7)),
        (["training.schedule.type=cosine", "training.schedule.final=0.1"], "training.schedule", Cosine(final=0.1)),
        (["training.optimizer.type=muon"], "training.optimizer", Muon()),
        (["model.encoder.position.type=rotary"], "model.encoder.position", Rotary()),
        (["model.encoder.position.type=sinusoidal"], "model.encoder.position", Sinusoidal(base=500.0)),
        (
            ["model.encoder.position={type='rotary',scaling={type='linear',factor=2}}"],
            "model.encoder.position",
            Rotary(scaling=LinearScaling(factor=2.0)),
        ),
        (["model.decoder.layers=5"], "model.decoder.layers", 5),
        (["model.preset=mini"], "model.dim", 192),
        (["model.dim=32", "model.preset=mini"], "model.dim", 32),
        (["model.decoder.block.cross_attention.heads=2"], "model.decoder.block.cross_attention", Attention(heads=2)),
    ],
)
def test_override(recipe_file: Path, overrides: list[str], where: str, value: Any) -> None:
    found: Any = load_recipe(str(recipe_file), overrides).recipe
    for name in where.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("overrides", "where", "value"),
    [
        (["model.preset=gpt2", "model.decoder.layers=2"], "model.decoder.layers", 2),
        (["model.preset=bert-base", "model.head.type=tagging"], "model.head", Tagging()),
        (
            ["model.preset=bert-base", "model.head.activation=relu"],
            "model.head",
            MaskedLanguage(activation="relu", norm=LayerNorm(eps=1e-12)),
        ),
        (["model.preset=gpt2", "model.decoder.block.position.type=none"], "model.decoder.block.position", NoPosition()),
        (["model.preset=bert-base"], "model.kind", "encoder-only"),
    ],
)
def test_override_of_another_kind_of_model(recipe_file: Path, overrides: list[str], where: str, value: Any) -> None:
    recipe_file.write_text(TEXT.replace("[model.encoder.position]\nbase = 500\n", ""))
    kind = "decoder-only" if "model.preset=gpt2" in overrides else "masked-language"
    kind = "tagging" if "model.head.type=tagging" in overrides else kind
    test_override(recipe_file, [*overrides, *overrides_for(kind)], where, value)


def test_steps_take_the_place_of_minutes(recipe_file: Path) -> None:
    training = load_recipe(str(recipe_file), ["training.steps=200"]).recipe.training
    assert (training.steps, training.minutes) == (200, None)
    training = load_recipe(str(recipe_file), ["training.steps=200", "training.minutes=1"]).recipe.training
    assert (training.steps, training.minutes) == (None, 1.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stpes=3", "{file} --set training.stpes=3: training.stpes: unknown key; did you mean 'steps'?"),
        ("trainig.steps=3", "{file} --set trainig.steps=3: trainig: unknown key; did you mean 'training'?"),
        ("training.steps=.5", "{file} --set training.steps=.5: training.steps: should be a whole number (given: '.5')"),
        ("training=5", "{file} --set training=5: training: should be a table (given: 5)"),
        (
            "training.steps.x=3",
            "--set training.steps: steps is a single value, not a table. Write --set training.steps=VALUE.",
        ),
        (
            "training.schedule.type=cosin",
            "{file} --set training.schedule.type=cosin: training.schedule.type: unknown type 'cosin'; "
            "did you mean 'cosine'?",
        ),
        ("model.preset=tinny", "{file} --set model.preset=tinny: model.preset: no preset is called 'tinny'; "
         "did you mean 'tiny'?"),
        ("training.steps", "--set training.steps: this is not KEY=VALUE. Write, say, --set training.steps=200."),
        ("training..steps=3", "--set training..steps=3: this is not KEY=VALUE. Write, say, --set training.steps=200."),
        (
            "description=",
            "--set description=: there is no value. Write --set 'description=\"\"' for an empty string.",
        ),
        (
            "training.optimizer.betas=[1",
            "--set training.optimizer.betas=[1: the value is not TOML (Unclosed array (at end of document)). "
            "Check its quotes and brackets.",
        ),
        (
            "seed=1\nname='y'",
            "--set seed=1\nname='y': more than one value. Give each a --set of its own.",
        ),
    ],
)  # fmt: skip
def test_override_that_cannot_be(recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(recipe_file), [override])
    assert str(caught.value) == message.replace("{file}", str(recipe_file))


# --- writing -----------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
probabilities = st.floats(0, 1, exclude_max=True)
positive = st.floats(1e-12, 1e12)
counts = st.integers(1, 10**20)
sizes = st.integers(1, 2**24)
# Every model here has dim 64 and 4 heads, so that heads of 16 can be rotated.
epsilons = st.floats(1e-12, 1000)
norms = st.builds(LayerNorm, eps=epsilons, bias=st.booleans()) | st.builds(RMSNorm, eps=epsilons)
scalings = (
    st.builds(LinearScaling, factor=positive)
    | st.builds(YarnScaling, factor=positive, original_length=sizes)
    | st.builds(Llama3Scaling, factor=positive, original_length=sizes)
)
positions = (
    st.builds(Sinusoidal, base=positive)
    | st.builds(Rotary, base=st.floats(1, 1e12, exclude_min=True), scaling=scalings)
    | st.sampled_from([Learned(), Alibi(), RelativeBias(), NoPosition()])
)
sources = (
    st.builds(NamedCorpus, name=texts)
    | st.builds(LineAligned, source=texts, target=texts)
    | st.builds(Tsv, path=texts)
    | st.builds(Jsonl, path=texts, source_field=texts)
)
adamws = st.builds(AdamW, learning_rate=positive, betas=st.tuples(probabilities, probabilities), eps=positive)
trainings = st.builds(
    Training,
    steps=counts,
    optimizer=st.builds(Adam, learning_rate=st.none() | positive) | adamws | st.builds(Muon, others=adamws),
    clip_norm=st.none() | positive,
    compile=st.booleans(),
    averaging=st.builds(Ema, decay=probabilities) | st.builds(LastCheckpoints) | st.just(NoAveraging()),
    early_stopping=st.none() | st.builds(EarlyStopping, patience=counts),
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_written_and_read_again(name: str, recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file)).recipe
    data = fitted({**recipe.plain(), "model": with_others(PRESETS[name]).plain()})
    recipe = Recipe.parse(data, "once")
    assert Recipe.parse(tomllib.loads(dump_toml(recipe)), "again") == recipe


def with_others(tree: Any) -> Any:
    """The tree with a layer that is not like the rest, so that lists of tables are written too."""
    side = "encoder" if tree.kind == "encoder-only" else "decoder"
    stack = getattr(tree, side)
    block = stack.block.model_copy(update={"dropout": 0.25, "position": NoPosition()})
    return tree.model_copy(update={side: stack.model_copy(update={"others": (OtherLayers(layers=(1,), block=block),)})})


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    tiny = PRESETS["tiny"]
    attention = Attention(heads=4, window=draw(st.none() | sizes), query_key_norm=draw(st.none() | norms))
    block = tiny.decoder.block.model_copy(
        update={
            "attention": attention,
            "cross_attention": draw(st.sampled_from([None, Attention(heads=8, kv_heads=2)])),
            "feed_forward": draw(st.sampled_from([tiny.decoder.block.feed_forward, Gated(hidden=3)])),
            "norm": draw(norms),
        }
    )
    embedding = tiny.embedding.model_copy(update={"norm": draw(st.none() | norms)})
    decoder = tiny.decoder.model_copy(update={"block": block, "position": draw(positions)})
    split = draw(st.none() | st.builds(GivenSplit, validation=sources, test=sources))
    data = Data(source=draw(sources), source_language=draw(texts), **({} if split is None else {"split": split}))
    return Recipe(
        name="x",
        description=draw(texts),
        seed=draw(st.integers(0, 2**63 - 1)),
        data=data,
        model=tiny.model_copy(update={"decoder": decoder, "embedding": embedding}),
        training=draw(trainings),
    )


@given(recipe=recipes())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_written_and_read_again(recipe: Recipe) -> None:
    assert Recipe.parse(tomllib.loads(dump_toml(recipe)), "again") == recipe


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
@settings(max_examples=100, deadline=None)
def test_strings_are_escaped(text: str) -> None:
    assert tomllib.loads(dump_toml(NamedCorpus(name=text))) == {"type": "corpus", "name": text}


def test_written_to_a_file_and_loaded(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["training.clip_norm=none", "training.optimizer.eps=1e-9"]).recipe
    written = dump_toml(recipe)
    assert 'clip_norm = "none"' in written
    assert "[model.decoder.block.attention]" in written
    recipe_file.write_text(written, encoding="utf-8")
    assert load_recipe(str(recipe_file)).recipe == recipe
