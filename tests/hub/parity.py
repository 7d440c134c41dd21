"""The harness of all families: a row is a small configuration of one, `transformers` is the oracle.

For each row a model is made on the spot with `transformers`, all its weights are redrawn large, and it is written with
`save_pretrained`; that folder is imported, and what comes out must compute the same, go on with the same words, and be
written back as the same file, to the bit.

`exactly` lets the oracle compute in float64 throughout: its code turns to float32 by name in norms, softmaxes and
rotary tables, and here these names mean float64.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from sublayer import laws
from sublayer.hub.importing import Imported, import_folder


@dataclass(frozen=True)
class Row:
    """A family, or a variant of one.

    name: of the test. architecture: the class in `transformers`. settings: its config.
    lengths: of the texts in the batch, longest first. types: kinds of token, where the family has them.
    generation: what its generation_config has, beside what follows from its config.
    """

    name: str
    architecture: str
    settings: Mapping[str, Any]
    lengths: tuple[int, ...] = (13, 9, 4)
    types: int = 0
    generation: Mapping[str, Any] = field(default_factory=lambda: {"eos_token_id": None, "pad_token_id": 0})


@dataclass(eq=False, repr=False)
class Case:
    """A row, made: the oracle in float64, its folder, and what we read from it."""

    row: Row
    oracle: Any
    folder: Path
    imported: Imported
    batch: Batch


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Texts of several lengths. tokens: padded on the right with 0; `left` the same, padded on the left."""

    tokens: Tensor
    lengths: Tensor
    left: Tensor = field(init=False)

    def __post_init__(self) -> None:
        size = self.tokens.shape[1]
        rows = [torch.roll(row, size - int(n)) for row, n in zip(self.tokens, self.lengths, strict=True)]
        object.__setattr__(self, "left", torch.stack(rows))

    @property
    def real(self) -> Tensor:
        """[B, S] bool, for padding on the right."""
        return torch.arange(self.tokens.shape[1]) < self.lengths.unsqueeze(1)

    @property
    def left_real(self) -> Tensor:
        """[B, S] bool, for padding on the left."""
        return self.real.flip(1)

    @property
    def left_positions(self) -> Tensor:
        """[B, S]: the position of each token, 0 for padding."""
        return (self.left_real.cumsum(1) - 1).clamp(min=0)


@contextmanager
def exactly() -> Generator[None]:
    """In here float32 means float64, in `transformers`' code and in torch's defaults."""
    kept = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype(), torch.FloatTensor
    try:
        torch.set_default_dtype(torch.float64)
        torch.float32 = torch.float = torch.float64  # type: ignore[misc]
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        torch.FloatTensor = torch.DoubleTensor  # type: ignore[misc]
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = kept[0], kept[1], kept[2]
        torch.set_default_dtype(kept[3])
        torch.FloatTensor = kept[4]  # type: ignore[misc]


def make(row: Row, folder: Path) -> Case:
    """The oracle of a row, its folder, and our reading of it."""
    torch.manual_seed(sum(map(ord, row.name)))
    oracle = build_oracle(row)
    oracle.save_pretrained(folder)
    batch = draw_batch(oracle.config.get_text_config().vocab_size, row.lengths)
    return Case(row, oracle, folder, import_folder(folder), batch)


def build_oracle(row: Row) -> Any:
    """`transformers`' model in float64, with large random weights, on its plainest attention."""
    kind = getattr(transformers, row.architecture)
    with exactly():
        oracle = kind(plainest(kind.config_class(**dict(row.settings)))).eval()
        redraw(oracle)
    if oracle.can_generate():
        for key, value in row.generation.items():
            setattr(oracle.generation_config, key, value)
    return oracle


def plainest(settings: Any) -> Any:
    """The config, asking for the code that knows float64 and no fused kernel."""
    settings._attn_implementation = settings._experts_implementation = "eager"
    return settings


@torch.no_grad()
def redraw(model: Any) -> None:
    """Every parameter anew: matrices that keep numbers at their size; norms and biases of either sign, large.

    Fixed tables are kept, and a bias that is no parameter is one all the same.
    """
    biases = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("bias")]
    learned = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in [*learned, *biases]:
        if parameter.dim() == 1:
            size = torch.rand_like(parameter) + 0.5
            parameter.copy_(torch.where(torch.rand_like(parameter) < 0.5, -size, size))
            if name.endswith("bias"):
                parameter.mul_(0.5)
        elif re.search("embed|wte|wpe", name):
            parameter.normal_()
        else:
            parameter.normal_(std=1.3 * parameter.shape[-1] ** -0.5)


def draw_batch(vocab_size: int, lengths: tuple[int, ...]) -> Batch:
    tokens = torch.randint(4, vocab_size, (len(lengths), lengths[0]))
    count = torch.tensor(lengths)
    return Batch(torch.where(torch.arange(lengths[0]) < count.unsqueeze(1), tokens, 0), count)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """max |a - b| / max |b|."""
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def tensors_of(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def assert_same_file(ours: Path, theirs: Path) -> None:
    """The same names, types and bits."""
    mine, other = tensors_of(ours), tensors_of(theirs)
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


def load_again(row: Row, folder: Path) -> Any:
    """What `transformers` makes of a folder of ours; no name may be missing, unexpected or misshapen."""
    kind = getattr(transformers, row.architecture)
    with exactly():
        settings = plainest(kind.config_class.from_pretrained(folder))
        model, report = kind.from_pretrained(folder, config=settings, output_loading_info=True)
    assert not report["missing_keys"], report["missing_keys"]
    assert not report["unexpected_keys"], report["unexpected_keys"]
    assert not report["mismatched_keys"], report["mismatched_keys"]
    return model.eval()


LAWS = (
    laws.equivalences.batched_is_single,
    laws.equivalences.padding_is_ignored,
    laws.equivalences.packed_is_separate,
    laws.decoding.left_padded_is_unpadded,
    laws.reach.layers_see_their_windows,
    laws.search.batched_greedy_is_single,
)
"""Those in which what a family alone has (its positions, its windows, its experts) meets batches and padding."""


def assert_lawful(case: Case) -> None:
    """The laws on an imported model; the words that greedy search says also in float32, where a runner may step."""
    assert_holds(case.imported.model, *LAWS)
    assert_holds(import_folder(case.folder, dtype=torch.float32).model, laws.search.batched_greedy_is_single)


def assert_holds(model: Any, *tried: laws.Law[Any]) -> None:
    inputs = laws.Inputs.draw(model, seed=1)
    findings = [law(model, inputs) for law in tried if not law.not_applicable(model)]
    assert not [finding for finding in findings if not finding.passed or "tie" in finding.detail]


def altered(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a folder whose config.json has other values; None takes a key away."""
    import json

    shutil.copytree(folder, to)
    path = to / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return to
