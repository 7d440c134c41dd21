"""What every test starts from: one thread, known seeds, and properties that are tried the same way each time in CI."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

# One thread: sums come out the same each time, and parallel workers do not fight over the cores.
torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, and so would what is tested: signals do here what they do at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A torch without oneDNN, as `make test-portable` asks for. Tests that start processes hand it on themselves.
if os.environ.get("SUBLAYER_TEST_ONEDNN") == "0":
    torch.backends.mkldnn.enabled = False

# No deadline: a first call compiles, allocates or imports, and a busy machine is not a failed property.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, whichever ran before it and on whichever worker."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # The legacy global state is what libraries draw from.
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
