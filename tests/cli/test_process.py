"""The command as a process: its streams closed, full, gone, or of another encoding; signals that end it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sublayer.files import ASIDE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and devices as POSIX has them")
COMMAND = "from sublayer.cli.main import main; main()"
UNIT = "from sublayer.cli.process import run; "


def python(script: str, *words: object, env: Sequence[str] = (), **how: Any) -> subprocess.CompletedProcess[bytes]:
    """The script in a process of its own. env: NAME=VALUE."""
    environment = os.environ | dict(each.split("=", 1) for each in env)
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], check=False, timeout=300, env=environment, **how
    )


def test_a_full_disk_behind_standard_output() -> None:
    with Path("/dev/full").open("wb") as full:
        found = python(COMMAND, "--version", stdout=full)
    assert (found.returncode, found.stderr.decode()) == (
        2,
        f"sublayer: could not write standard output: {os.strerror(errno.ENOSPC)}. Free space, or send it elsewhere.\n",
    )


@pytest.mark.parametrize("text", ["'x'", "'x' * 100_000"])
def test_nobody_reads_standard_output(text: str) -> None:
    """Whether it is noticed at a write or at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    script = (
        "import sys, typer; from sublayer.cli import main; main.app_of = lambda _: lambda: print("
        + text
        + "); main.main()"
    )
    found = python(script, stdout=writing)
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, b"")


def test_nobody_reads_what_typer_writes() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    found = python(COMMAND, "--version", stdout=writing)
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """What is written to them must not go into a file that was opened in their place."""

    def close() -> None:
        for number in closed:
            os.close(number)

    script = (
        "import sys, os\n"
        f"{UNIT}\n"
        "def command():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        file.write('kept')\n"
        "        file.flush()\n"
        "        for number in (1, 2): os.write(number, b'noise')\n"
        "        print('noise'); print('noise', file=sys.stderr); sys.stdin.read()\n"
        "run(command)"
    )
    found = python(script, tmp_path / "file", preexec_fn=close, stdin=subprocess.DEVNULL)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", b"caf\\xe9 \\u4f60 \\udce9"), ("latin-1", b"caf\xe9 \\u4f60 \\udce9"), ("utf-8", None)],
)
def test_letters_that_standard_output_has_not(encoding: str, written: bytes | None) -> None:
    script = UNIT + "run(lambda: print('caf\\xe9 \\u4f60 \\udce9', end=''))"
    found = python(script, env=[f"PYTHONIOENCODING={encoding}"])
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout == ("café 你 ".encode() + b"\\udce9" if written is None else written)


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("data", "list"), ("--nothing",)], ids=" ".join)
def test_a_terminal_of_one_column(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = python(COMMAND, *words, env=["COLUMNS=1", f"SUBLAYER_CACHE={tmp_path}"])
    assert found.returncode == (2 if words == ("--nothing",) else 0)
    assert b"Traceback" not in found.stderr


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    for words, env in (
        (("data", "list"), ["SUBLAYER_CACHE=~nosuch"]),
        (("train", "~nosuch/recipe.toml"), []),
        (("describe", "~nosuch/model"), []),
        (("pull", "~nosuch/model", tmp_path / "out"), []),
    ):
        found = python(COMMAND, *words, env=env)
        assert found.returncode == 2
        assert found.stderr.startswith(b"sublayer: ")
        assert b"~nosuch" in found.stderr
        assert found.stderr.count(b"\n") == 1


WAITING = (
    "import sys, time; from pathlib import Path; from sublayer.files import working_folder\n"
    f"{UNIT}\n"
    "def command():\n"
    "    with working_folder(Path(sys.argv[1])):\n"
    "        print('ready', flush=True)\n"
    "        time.sleep(float(sys.argv[2]))\n"
    "run(command)"
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_it_lets_it_tidy_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    def heed() -> None:
        # These tests may themselves run where somebody said nohup.
        signal.signal(number, signal.SIG_DFL)

    words = [sys.executable, "-c", WAITING, str(tmp_path), "100"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=heed)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert list(tmp_path.glob(f"{ASIDE}*"))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_respected(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    words = [sys.executable, "-c", WAITING, str(tmp_path), "1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=ignore)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
