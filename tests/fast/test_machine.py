"""The facts of a machine: measured once, remembered, and the choices that they make."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from machines import ONE_DNN_FASTER, TORCH_FASTER, machine_with
from sublayer.fast import choices, machine, products
from sublayer.fast.facts import SIZES, Identity, Machine
from sublayer.fast.machine import machine_is, machine_of_run, multiply_dtype, read_machine, write_machine
from sublayer.fast.measure import best, measure
from sublayer.training.runtime import resolve_precision

CPU = torch.device("cpu")
needs_one_dnn = pytest.mark.skipif(products.ONE_DNN is None, reason="this torch has no oneDNN")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and nothing known yet."""
    monkeypatch.setenv("SUBLAYER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "_known", None)
    return tmp_path / "cache" / "machine"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Machine]:
    """What was measured so far; each is a little faster than the one before."""
    made: list[Machine] = []

    def pretended() -> Machine:
        made.append(machine_with(float32={"torch": 100.0 + len(made)}))
        return made[-1]

    monkeypatch.setattr(machine, "measure", pretended)
    return made


def again(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What another process would know."""
    monkeypatch.setattr(machine, "_known", None)
    return machine.machine()


def test_a_machine_is_measured_once(cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    first = machine.machine()
    assert machine.machine() is first
    assert again(monkeypatch) == first
    assert len(measured) == 1
    assert [Machine.model_validate_json(file.read_bytes()) for file in cache.iterdir()] == [first]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "SSE41"), ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2")],
)
def test_a_simulated_machine_is_another(
    cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    machine.machine()
    monkeypatch.setenv(name, value)
    again(monkeypatch)
    assert len(measured) == 2
    monkeypatch.delenv(name)
    assert again(monkeypatch) == measured[0]
    assert len(measured) == 2


def test_one_dnn_switched_off_is_another_machine(
    cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Identity.here()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not Identity.here().one_dnn
    assert machine.machine_file(before) != machine.machine_file(Identity.here()) or not before.one_dnn


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"identity": 3}', b"\xff\xfe", None])
def test_a_damaged_cache_is_measured_again(
    cache: Path,
    measured: list[Machine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: bytes | None,
) -> None:
    machine.machine()
    assert caplog.messages == []
    (file,) = cache.iterdir()
    if damage is None:  # whole, but another machine's
        page = json.loads(file.read_text())
        page["identity"]["processor"] = "another"
        damage = json.dumps(page).encode()
    file.write_bytes(damage)
    assert again(monkeypatch) == measured[1]
    assert read_machine(file) == measured[1]
    assert caplog.messages == [f"{file} is damaged, or another machine's; this one is measured anew"]


def test_a_cache_that_cannot_be_written_is_no_error(
    cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert machine.machine() is measured[0]
    assert again(monkeypatch) is measured[1]


def test_without_a_home_it_is_measured(cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SUBLAYER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert machine.machine() is measured[0]


def test_of_two_processes_that_measure_at_once_one_is_believed(
    cache: Path, measured: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = machine_with(float32={"torch": 7.0})

    def overtaken() -> Machine:
        write_machine(other, machine.machine_file(Identity.here()))
        return machine_with(float32={"torch": 8.0})

    monkeypatch.setattr(machine, "measure", overtaken)
    assert machine.machine() == other


def test_importing_and_asking_for_help_measure_nothing(tmp_path: Path) -> None:
    for command in (
        "import sublayer",
        "from sublayer.cli.main import main; sys.argv[1:] = ['describe', 'tiny']; main()",
    ):
        program = (
            "import sys\n"
            "import sublayer.fast.machine as m\n"
            "def measure(): raise SystemExit('measured')\n"
            f"m.measure = measure\ntry:\n    {command}\nexcept SystemExit as e:\n    assert not e.code, e.code"
        )
        environment = {"SUBLAYER_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_measuring_takes_a_second_and_leaves_everything_as_it_was() -> None:
    """The clock is this process's own: other programs may hold the cores."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    took: list[float] = []
    for _ in range(3):
        start = time.process_time()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            facts = measure()
        took.append(time.process_time() - start)
        if took[-1] < 1:
            break
    assert min(took) < 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    for size in SIZES:
        assert facts.gflops(size, "float32") > 0
    assert facts.gflops("probe", "bfloat16") > 0
    assert facts.gflops("probe", "float16") > 0
    assert facts.bandwidth > 1e8
    assert Machine.model_validate_json(facts.model_dump_json()) == facts


def test_a_slow_loop_is_tried_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without half precision, as one where every such product takes a tenth of a second."""
    from sublayer.fast import measure as module

    asked: list[torch.Size] = []
    real = products.TORCH

    def slow(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if x.dtype is torch.bfloat16:
            asked.append(weight.shape)
            start = time.thread_time()
            while time.thread_time() - start < 0.05:
                pass
        return real.forward(x, weight, bias)

    monkeypatch.setattr(module, "TORCH", real._replace(forward=slow))
    facts = measure()
    assert {tuple(shape) for shape in asked} == {(128, 128)}
    assert len(asked) <= 3
    with machine_is(facts):
        assert multiply_dtype("cpu") is torch.float32
        assert resolve_precision("auto", CPU) is torch.float32


def test_the_best_of_several_in_turn() -> None:
    order: list[str] = []
    clock = iter(range(1000))
    found = best([lambda: order.append("a"), lambda: order.append("b")], tries=2, long=100, clock=lambda: next(clock))
    assert order == ["a", "b"] * 3
    assert found == [1, 1]


def test_what_is_long_is_called_once() -> None:
    called: list[int] = []
    times = iter([0.0, 11.0])
    assert best([lambda: called.append(1)], tries=4, long=1, clock=lambda: next(times)) == [11.0]
    assert called == [1]


def test_what_a_library_prepares_at_its_first_call_is_not_counted() -> None:
    times = iter([0.0, 9.0, 9.0, 9.5, 10.0, 11.0])
    assert best([lambda: None], tries=2, long=1, clock=lambda: next(times)) == [0.5]


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [(None, torch.float32), (0.5, torch.float32), (105.0, torch.float32), (300.0, torch.bfloat16)],
    ids=["not measured", "a plain loop", "as fast, within noise", "faster"],
)
def test_the_type_of_medium_products(bfloat16: float | None, chosen: torch.dtype) -> None:
    with machine_is(machine_with(float32={"torch": 100.0}, bfloat16=bfloat16)):
        assert multiply_dtype("cpu") is chosen
        assert multiply_dtype(torch.device("meta")) is torch.float32


@pytest.mark.parametrize(
    ("float32", "bfloat16", "gain"),
    [
        ({"torch": 100.0}, 200.0, 2.0),
        ({"torch": 50.0, "onednn": 100.0}, 200.0, 2.0),  # against the better library
        ({"torch": 100.0}, None, 0.0),
        ({}, 200.0, 0.0),
    ],
)
def test_the_gain_of_bfloat16(float32: dict[str, float], bfloat16: float | None, gain: float) -> None:
    with machine_is(machine_with(float32=float32, bfloat16=bfloat16)):
        assert choices.bfloat16_gain() == gain
        wanted = torch.bfloat16 if gain >= 1.7 else torch.float32
        assert resolve_precision("auto", CPU) is wanted


def test_a_gain_that_the_gradients_lose_is_none() -> None:
    facts = machine_with(float32={"torch": 100.0}, bfloat16=300.0)
    slow = [
        s.model_copy(update={"gflops": 1.0})
        if (s.size, s.dtype, s.product) == ("training", "bfloat16", "to_weight")
        else s
        for s in facts.speeds
    ]
    with machine_is(facts.model_copy(update={"speeds": tuple(slow)})):
        assert choices.bfloat16_gain() < 0.1


@needs_one_dnn
@pytest.mark.parametrize("rows", [4, 500])
@pytest.mark.parametrize("out", [300, 30_000])
def test_the_library_of_training(rows: int, out: int) -> None:
    assert products.ONE_DNN is not None
    with machine_is(ONE_DNN_FASTER):
        assert choices.training_products(rows, out) is products.ONE_DNN
    with machine_is(TORCH_FASTER):
        assert choices.training_products(rows, out) is products.TORCH
    with machine_is(machine_with(float32={"torch": 100, "onednn": 110})):
        assert choices.training_products(rows, out) is products.TORCH


@needs_one_dnn
def test_each_product_by_its_own_library() -> None:
    assert products.ONE_DNN is not None
    speeds = tuple(
        s.model_copy(update={"gflops": 60.0})
        if s.way == "torch" and s.product == "to_weight" and s.size == "training"
        else s
        for s in TORCH_FASTER.speeds
    )
    speeds = tuple(
        s.model_copy(update={"gflops": 90.0}) if s.way == "onednn" and s.product == "to_weight" else s for s in speeds
    )
    with machine_is(TORCH_FASTER.model_copy(update={"speeds": speeds})):
        mixed = choices.training_products(500, 300)
        assert mixed == (products.TORCH.forward, products.TORCH.to_input, products.ONE_DNN.to_weight)
        assert choices.training_products(500, 30_000) is products.TORCH


def test_attention_in_half_precision() -> None:
    for half, by_products in (((0.3, 0.1), True), ((0.1, 0.11), True), ((0.1, 0.2), False), (None, True)):
        with machine_is(machine_with(half=half)):
            assert choices.attention_by_products(torch.bfloat16) is by_products
            assert choices.attention_by_products(torch.float16) is by_products


def test_a_run_goes_on_with_the_facts_that_it_began_with(tmp_path: Path) -> None:
    with machine_is(ONE_DNN_FASTER):
        write_machine(machine.machine(), tmp_path / "machine.json")
    with machine_is(TORCH_FASTER):
        with machine_of_run(tmp_path, resume=True):
            assert machine.machine() == ONE_DNN_FASTER
        with machine_of_run(tmp_path, resume=False):
            assert machine.machine() is TORCH_FASTER
        (tmp_path / "machine.json").write_text("{")
        with machine_of_run(tmp_path, resume=True):
            assert machine.machine() is TORCH_FASTER
        assert machine.machine() is TORCH_FASTER
