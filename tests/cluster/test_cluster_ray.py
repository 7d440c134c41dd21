"""Two workers of a local Ray cluster: each row comes out once, whoever is killed; and the server as a deployment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.rows import LONG, TRANSLATOR, Row, rows, write, written
from small_run import sublayer as command
from sublayer import cluster, load
from sublayer.cluster.parts import Part

# What CI installs has Ray: there it is an error if it is missing.
if not os.environ.get("CI"):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sublayer[cluster]'")

# Ray's own warnings are not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

PART = 100
WAIT = 120.0
"""Seconds for what takes a few where the machine has nothing else to do."""


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[None]:
    """A cluster that all runs of this process find, which is started once: that takes ten seconds."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def corpus(folder: Path, files: int = 4, count: int = 500) -> list[Row]:
    """Files of rows, some of which fail; all rows."""
    found: list[Row] = []
    for number in range(files):
        some = rows(count, number * count)
        some[3]["text"], some[count // 2]["text"] = "", LONG
        write(folder / f"{number}.parquet", some)
        found += some
    return found


def require_each_row_once(out: Path, given: list[Row], beam: int) -> None:
    """The output holds the rows of the input, in its order, as the model alone translates them."""
    found = written(out)
    assert [row["id"] for row in found] == [row["id"] for row in given]
    fine = [row for row in given if row["text"] not in ("", LONG)]
    want = {
        row["id"]: one.text
        for row, one in zip(fine, load(TRANSLATOR).translate([row["text"] for row in fine], beam=beam), strict=True)
    }
    assert {row["id"]: row["translation"] for row in found if row["error"] is None} == want
    assert {row["id"] for row in found if row["error"] is not None} == {row["id"] for row in given} - want.keys()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@dataclass
class Killer:
    """Kills workers in the middle of a part: once the part has been begun, and before it stands.

    killed: process and part of each.
    """

    out: Path
    times: int
    killed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def __call__(self) -> None:
        until = time.monotonic() + WAIT
        while len(self.killed) < self.times and time.monotonic() < until:
            for aside in self.out.glob(".part-*"):
                if self._kill(aside):
                    break
            time.sleep(0.001)

    def _kill(self, aside: Path) -> bool:
        _, part, _, pid, _ = aside.name.split(".")
        try:
            process = psutil.Process(int(pid))
            process.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            return False
        if not aside.exists():  # it was done in this instant
            return False
        assert not (self.out / f"{part}.parquet").exists()
        self.killed.append((int(pid), part))
        return True


def with_killer(out: Path, times: int, work: Any) -> tuple[Killer, Any]:
    killer = Killer(out, times)
    thread = threading.Thread(target=killer)
    thread.start()
    try:
        return killer, work()
    finally:
        thread.join()


def test_both_workers_work_and_every_row_comes_out_once(tmp_path: Path) -> None:
    given = corpus(tmp_path / "in")
    summary = cluster.translate(TRANSLATOR, tmp_path / "in" / "*.parquet", tmp_path / "out", beam=2, rows_per_part=PART)
    require_each_row_once(tmp_path / "out", given, 2)
    assert (summary.rows, summary.failed, summary.parts, summary.faults) == (2000, 8, 20, [])
    assert summary.first is not None


def test_a_worker_is_killed_in_the_middle(tmp_path: Path) -> None:
    given = corpus(tmp_path / "in")
    killer, summary = with_killer(
        tmp_path / "out",
        2,
        lambda: cluster.translate(
            TRANSLATOR, tmp_path / "in" / "*.parquet", tmp_path / "out", beam=2, rows_per_part=PART, workers=2
        ),
    )
    assert len(killer.killed) == 2
    assert (summary.rows, summary.failed, summary.faults) == (2000, 8, [])
    for aside in (tmp_path / "out").glob(".part-*"):
        # Left by those that were killed, until the next run begins.
        _, part, _, pid, _ = aside.name.split(".")
        assert (int(pid), part) in killer.killed
        aside.unlink()
    require_each_row_once(tmp_path / "out", given, 2)


def test_a_row_that_kills_its_worker_does_not_go_on_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is left after some deaths, and all others are done."""
    corpus(tmp_path / "in", 1, 300)
    from sublayer.cluster import running
    from sublayer.cluster.worker import Outcome, Worker

    class Mortal(Worker):
        def done(self, part: Part) -> Outcome:
            if part.number == 1:
                (self._out / f".part-{part.number:06}.parquet.{os.getpid()}.abc").touch()
                if len([*self._out.glob(".part-000001*")]) <= 3:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().done(part)

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(running, "Worker", Mortal)
    summary = cluster.translate(TRANSLATOR, tmp_path / "in" / "*", tmp_path / "out", rows_per_part=PART, workers=2)
    assert summary.rows == 200
    assert len(summary.faults) == 1
    assert "3 workers have died in it" in summary.faults[0]


def test_the_model_is_refused_in_its_own_words(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(3))
    outcome = command("classify", TRANSLATOR, "--cluster", "--in", tmp_path / "in.jsonl", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert f"{TRANSLATOR} does not classify texts: it is a Translator" in outcome.complaints[0]


def test_the_driver_is_killed_and_started_again(tmp_path: Path) -> None:
    given = corpus(tmp_path / "in")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "sublayer", "translate", str(TRANSLATOR), "--cluster", "--in"]
    words += [str(tmp_path / "in" / "*.parquet"), "--out", str(out), "--rows-per-part", str(PART), "--workers", "2"]
    words += ["--beam", "2", "--address", "local"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    driver = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + WAIT
    while time.monotonic() < until and not (len([*out.glob("part-*")]) >= 3 and [*out.glob(".part-*")]):
        time.sleep(0.001)
    others = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(others, timeout=30)
    stood = {path: path.stat().st_ino for path in out.glob("part-*")}
    try:
        assert 3 <= len(stood) < 20
        again = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    finally:
        for each in others:
            if each.is_running():
                each.kill()
    assert again.returncode == 0, again.stderr
    assert "2,000 rows in 20 parts" in again.stderr
    assert {path: path.stat().st_ino for path in stood} == stood
    require_each_row_once(out, given, 2)


def ask(address: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def test_the_server_as_a_deployment() -> None:
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(cluster.deployment([f"en-es={TRANSLATOR}"], replicas=2), name="sublayer")
        address = f"http://127.0.0.1:{port}"
        assert ask(f"{address}/health")["status"] == "ok"
        reply = ask(f"{address}/translate", {"q": "ba co di", "source": "en", "target": "es"})
        assert reply["translatedText"] == load(TRANSLATOR).translate(["ba co di"])[0].text
    finally:
        serve.shutdown()
