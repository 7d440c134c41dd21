"""A process that is forked from one whose engine has threads, and whose threads may be running it, runs it itself."""

from __future__ import annotations

import os
import subprocess
import sys

# In a process of its own, as pytest's has threads of others, and a child that waits for ever must be ended.
SCRIPT = """
import os, threading, torch
from sublayer.fast.decoding.tensors import Inputs, run as run_engine
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.packing import Matrices, executable
from sublayer.fast.engine.program import Positions, Program

torch.set_num_threads(1)
program, table = Program(), torch.randn(512, 512)
x = program.embed(table, 1.0, Positions(1))
for _ in range(4):
    x = program.linear(x, table / 20)
program.mark("found", x)
tokens = torch.arange(32).view(-1, 1)
engine = Engine(executable(program, Matrices("float32")), 3)
expected = run_engine(engine, tokens, "found", Inputs())
ended = False

def run():
    while not ended:
        run_engine(engine, tokens, "found", Inputs())

def forked():
    child = os.fork()
    if child == 0:
        right = all(run_engine(engine, tokens, "found", Inputs()).equal(expected) for _ in range(3))
        found = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 3
        os._exit(0 if right and found == 3 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert forked() == 0
other = threading.Thread(target=run)
other.start()
results = [forked() for _ in range(20)]
ended = True
other.join()
assert results == [0] * 20, results
assert run_engine(engine, tokens, "found", Inputs()).equal(expected)
"""


def test_a_forked_process_runs_the_engine_with_threads_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
