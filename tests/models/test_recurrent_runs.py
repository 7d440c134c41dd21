"""Recurrent models through the real commands: trained, resumed, saved, used, and refused where nothing can be done."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sublayer as package
from recurrent_models import PAIRS, TEXTS, VOCAB, build, name
from small_run import processes, same, sublayer, write
from small_task import write_task
from sublayer import config
from sublayer.data.batch import IGNORE, Batch
from sublayer.errors import InputError
from sublayer.generation.alignment import alignments
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.inspection.recording import record
from sublayer.laws import relative_error
from sublayer.models import build_model
from sublayer.nn import recurrence
from sublayer.tasks.losses import CrossEntropy
from sublayer.tasks.translation import pair_loss
from sublayer.training.checkpoint import listed

LSTM = {"kind": "lstm", "dim": 48, "max_length": 24, "encoder": {"layers": 1}, "decoder": {"layers": 1}}


def recipe_with(path: Path, model: dict[str, Any]) -> Path:
    """The recipe at `path` with this model instead."""
    import tomllib

    import tomli_w

    data = tomllib.loads(path.read_text())
    path.write_text(tomli_w.dumps({**data, "model": model}))
    return path


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an LSTM with attention that has learned to say words from last to first."""
    folder = tmp_path_factory.mktemp("lstm")
    training = {
        "steps": 220,
        "batches": {"tokens": 800},
        "optimizer": {"learning_rate": 2e-2},
        "schedule": {"warmup": 20},
        "validate_every": 110,
    }
    path = recipe_with(write(folder, lines=300, longest=4, training=training), LSTM)
    outcome = sublayer("train", path, "--out", folder / "run")
    assert outcome.code == 0, outcome.err
    return folder / "run"


def test_it_learns_and_translates(translated: Path) -> None:
    model = package.load(translated)
    assert isinstance(model, Translator)
    rows = [json.loads(line) for line in (translated / "model" / "test.jsonl").read_text().splitlines()]
    sources = [row["source"] for row in rows]
    for beam in (1, 3):
        found = [one.text for one in model.translate(sources, beam=beam)]
        right = sum(text in row["references"] for text, row in zip(found, rows, strict=True))
        assert right >= 6, (found, rows)  # of 8 that it has never seen
    [one] = model.translate(sources[:1], alignments=True)
    assert one.alignment is not None
    assert one.alignment.sum(-1) == pytest.approx(torch.ones(len(one.tokens)), abs=1e-4)
    card = (translated / "model" / "README.md").read_text()
    assert "A recurrent encoder-decoder (LSTM), en to es" in card or "A recurrent encoder-decoder (LSTM)" in card


def test_the_commands_know_it(translated: Path) -> None:
    outcome = sublayer("evaluate", translated)
    assert outcome.code == 0
    assert "BLEU" in outcome.out
    described = sublayer("describe", translated / "model", "--length", "20")
    assert described.code == 0
    assert "encoder.recurrence" in described.out
    assert "translating, token 20" in described.out
    refused = sublayer("attend", translated, "ba co", "--out", translated / "a.png")
    assert refused.code == 2
    assert "no layers of attention to look into" in refused.complaints[0]
    exported = sublayer("export", translated, translated / "out")
    assert exported.code == 2
    assert "recurrent-encoder-decoder" in exported.complaints[0]


def test_read_again_it_is_the_same(translated: Path) -> None:
    from sublayer.hub import folder

    one, other = folder.read(translated), folder.read(translated)
    assert one.model.config.plain()["cell"] == "lstm"
    saved = load_file(translated / "model" / "model.safetensors")
    assert same(dict(one.model.named_parameters()), dict(other.model.named_parameters())) == []
    assert "decoder.recurrence.kernel.weight_hh_l0" in saved
    source = torch.randint(20, (2, 5))
    assert torch.equal(one.model(source, None, source), other.model(source, None, source))


@pytest.mark.parametrize("cell", config.CELLS)
def test_a_language_model_trains_and_goes_on(tmp_path: Path, cell: str) -> None:
    path = write_task(tmp_path, "causal", training={"steps": 40, "validate_every": 10})
    recipe_with(path, {"kind": cell, "dim": 16, "max_length": 32, "decoder": {"layers": 1, "dropout": 0.1}})
    outcome = sublayer("train", path, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["valid/loss"] for line in lines if "valid/loss" in line]
    assert losses[-1] < losses[0]
    model = package.load(tmp_path / "run")
    assert isinstance(model, Generator)
    both = model.generate(["ba co di", "fu"], max_tokens=6, search=config.Greedy())
    alone = model.generate(["fu"], max_tokens=6, search=config.Greedy())
    assert both[1].completions[0].tokens == alone[0].completions[0].tokens
    sampled = model.generate(["ba co"], max_tokens=5, search=config.Sampling(), n=2, seed=3)
    assert len(sampled[0].completions) == 2


def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """Dropout inside the kernels too."""
    path = write(tmp_path, training={"steps": 10, "checkpoint_every": 50})
    recipe_with(path, {**LSTM, "dim": 16, "encoder": {"dropout": 0.2}, "decoder": {"dropout": 0.2}})
    stop = {"step": 4, "signal": int(signal.SIGTERM)}
    assert processes().run("train", path, "--out", tmp_path / "stopped", signal_at_step=stop).code == 130
    assert processes().run("train", path, "--out", tmp_path / "stopped", "--resume").code == 0
    assert processes().run("train", path, "--out", tmp_path / "whole").code == 0
    ends = [listed(tmp_path / run / "checkpoints")[-1] for run in ("whole", "stopped")]
    for part in ("model", "optimizer"):
        one, other = (load_file(end / f"{part}.safetensors") for end in ends)
        assert same(one, other) == []


@pytest.mark.parametrize("tree", PAIRS[:5:2])
def test_accumulated_batches_make_the_step_of_one_large_batch(tree: config.RecurrentEncoderDecoder) -> None:
    """Two ragged batches and the batch of both, padding and all, have one gradient."""
    model, loss = build(tree), CrossEntropy(0.1)
    lengths, targets = torch.tensor([6, 2, 4, 1]), torch.tensor([3, 5, 1, 4])
    source, target = torch.randint(1, VOCAB, (4, 6)), torch.randint(1, VOCAB, (4, 5))
    wanted = torch.where(torch.arange(5) < targets[:, None], target, IGNORE)

    def batch(rows: list[int]) -> Batch:
        wide, long = int(lengths[rows].max()), int(targets[rows].max())
        return Batch(
            source=source[rows, :wide],
            source_lengths=lengths[rows],
            target_in=target[rows, :long],
            target_out=wanted[rows, :long],
            target_lengths=targets[rows],
            rows=torch.tensor(rows).numpy(),
            targets=int(targets[rows].sum()),
        )

    total = int(targets.sum())
    whole = pair_loss(model, batch([0, 1, 2, 3]), total, loss)
    whole.backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    parts = [pair_loss(model, batch(rows), total, loss) for rows in ([0, 2], [1, 3])]
    for part in parts:
        part.backward()
    assert float(whole.detach()) == pytest.approx(float(sum(parts).detach()), rel=1e-12)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, expected[key]) < 1e-10, key


# --- what can be looked at ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", PAIRS[1:3])
def test_listening_shows_the_attention_and_changes_nothing(tree: config.RecurrentEncoderDecoder) -> None:
    model, lengths = build(tree), torch.tensor([5, 2])
    source, target = torch.randint(VOCAB, (2, 5)), torch.randint(VOCAB, (2, 4))
    with torch.no_grad():
        expected = model(source, lengths, target)
        with record(model, "*") as seen:
            found = model(source, lengths, target)
    assert relative_error(found, expected) < 1e-12
    assert {tap for tap in seen if not tap.endswith("embedding.norm")} == {
        "encoder.embedding.stream",
        "encoder.recurrence.stream",
        "decoder.embedding.stream",
        "decoder.recurrence.stream",
        "decoder.cross_attention.weights",
        "logits",
    }
    [weights] = seen["decoder.cross_attention.weights"]
    assert weights.shape == (2, 1, 4, 5)
    assert (weights[1, :, :, 2:] == 0).all()
    assert relative_error(weights.sum(-1), torch.ones(2, 1, 4, dtype=torch.float64)) < 1e-12
    maps = alignments(model, [[1, 2, 3], [4]], [[5, 6], [7]], start_id=1)
    assert [tuple(one.shape) for one in maps] == [(2, 3), (1, 1)]


def test_where_there_is_no_attention_there_is_no_alignment() -> None:
    with pytest.raises(InputError, match="has no attention"):
        alignments(build(PAIRS[0]), [[1, 2]], [[3]], start_id=1)
    with pytest.raises(InputError, match="layer = 1"):
        alignments(build(PAIRS[1]), [[1, 2]], [[3]], start_id=1, layer=1)


@pytest.mark.parametrize("has_lstm", [None, False], ids=["as here", "no LSTM in bfloat16"])
@pytest.mark.parametrize("tree", [PAIRS[1], PAIRS[3], PAIRS[5], *TEXTS], ids=name)
def test_bfloat16_trains(
    tree: config.RecurrentEncoderDecoder | config.RecurrentDecoderOnly,
    has_lstm: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the processor has no recurrence in bfloat16, that part is float32, and nothing dies."""
    if has_lstm is not None:
        monkeypatch.setattr(recurrence, "_has_lstm", lambda dtype, one_dnn: has_lstm)
    torch.manual_seed(1)
    model = build_model(tree).train()
    tokens = torch.randint(VOCAB, (3, 6))
    pair = isinstance(tree, config.RecurrentEncoderDecoder)
    told = (tokens, torch.tensor([6, 2, 4]), tokens) if pair else (tokens,)
    expected = model.hidden(*told)
    kinds: list[torch.dtype] = []
    kernel = model.decoder.recurrence.kernel
    kernel.register_forward_hook(lambda module, inputs, outputs: kinds.append(outputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.hidden(*told).float()
        found.square().sum().backward()
    assert relative_error(found, expected) < 0.1
    if has_lstm is False:
        assert set(kinds) == {torch.float32}
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert kernel.weight_hh_l0.grad is not None


def test_whether_there_is_a_recurrence_in_bfloat16_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """In inference mode too, and the answer is the one that a training gets."""

    class Refusing(torch.nn.LSTM):
        def forward(self, *given: Any) -> Any:
            raise RuntimeError("could not create a primitive descriptor")

    recurrence._has_lstm.cache_clear()
    with torch.inference_mode():
        here = recurrence._has_lstm(torch.bfloat16, True)
    recurrence._has_lstm.cache_clear()
    assert recurrence._has_lstm(torch.bfloat16, True) == here
    monkeypatch.setattr(torch.nn, "LSTM", Refusing)
    recurrence._has_lstm.cache_clear()
    assert not recurrence._has_lstm(torch.bfloat16, True)
    recurrence._has_lstm.cache_clear()
