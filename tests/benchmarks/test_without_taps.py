"""The build without taps has none, and computes the same: else the benchmark of what looking costs means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAM = """
import json, sys
import torch
from sublayer import config
from sublayer.models import build_model
from sublayer.nn.tap import Tap
import sublayer
torch.set_num_threads(1)
found = []
for name in ("tiny", "mini-lm", "mini-encoder"):
    torch.manual_seed(3)
    model = build_model(config.preset(name).model_copy(update={"vocab_size": 97})).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    given = torch.arange(4, 16).view(2, 6)
    logits = model(given, None, given) if name == "tiny" else model(given)
    found.append([sum(isinstance(m, Tap) for m in model.modules()), logits.sum().item(), logits.square().sum().item()])
print(json.dumps([sublayer.__file__, found]))
"""


def test_the_copy_has_no_taps_and_computes_the_same(tmp_path):
    sys.path.insert(0, str(BENCHMARKS))
    import without_taps

    cut = without_taps.write(tmp_path)
    own = Path(without_taps.sublayer.__file__).parents[1]

    def run(path: Path) -> list:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{PROGRAM}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    (place, ours), (copy, without) = run(own), run(tmp_path)
    assert Path(place).is_relative_to(own)
    assert Path(copy).is_relative_to(tmp_path)
    assert all(taps > 5 for taps, *_ in ours)
    assert all(taps == 0 for taps, *_ in without)
    assert [sums for _, *sums in ours] == [sums for _, *sums in without]
    assert cut >= 7
    left = [path for path in (tmp_path / "sublayer").rglob("*.py") if "= Tap()" in path.read_text()]
    assert left == []
