"""`python -m sublayer` is the command."""

import subprocess
import sys


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sublayer", "--version"], capture_output=True, text=True, check=True, timeout=120
    )
    command = subprocess.run(
        [sys.executable, "-c", "from sublayer.cli.main import main; main()", "--version"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == command.stdout != ""


def test_an_error_is_one_line_and_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sublayer", "translate", "no/such/model", "x"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("sublayer: ")
    assert "Traceback" not in done.stderr
