"""What the processes of a group are asked to do (`group.py`): train small models, and say what came of it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from small_run import recipe as small_recipe
from small_run import write
from small_task import plain, write_text
from sublayer import config
from sublayer.config.presets import merge
from sublayer.data.loader import Loader, Share
from sublayer.models import build_model
from sublayer.nn.adapter import adapt
from sublayer.training import task_data
from sublayer.training.distributed import many, tensor
from sublayer.training.distributed.ranks import Ranks, joined
from sublayer.training.distributed.tensor import SharedMatrices
from sublayer.training.metrics import MetricsLog, NoLog, read_metrics
from sublayer.training.progress import Silent
from sublayer.training.run import processes_of
from sublayer.training.trainable import trainable_parameters
from sublayer.training.trainer import Trainer, TrainerContext

BLOCK: dict[str, Any] = {
    "attention": {"heads": 4},
    "feed_forward": {"type": "position-wise", "hidden": 24},
    "norm_placement": "pre",
}
STACK: dict[str, Any] = {"layers": 2, "block": BLOCK}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder-decoder": (
        "translation",
        {"kind": "encoder-decoder", "dim": 16, "max_length": 24, "encoder": STACK, "decoder": STACK, "tied": "all"},
    ),
    "decoder-only": (
        "causal",
        {
            "kind": "decoder-only",
            "dim": 16,
            "max_length": 32,
            "tied": False,
            "decoder": {
                "layers": 2,
                "block": {
                    "attention": {"heads": 4, "kv_heads": 2, "query_key_norm": {"type": "rms"}},
                    "feed_forward": {"type": "gated", "hidden": 24},
                    "norm": {"type": "rms"},
                    "norm_placement": "pre",
                },
                "position": {"type": "rotary"},
            },
        },
    ),
    "encoder-only": (
        "masked",
        {
            "kind": "encoder-only",
            "dim": 16,
            "max_length": 32,
            "encoder": {"layers": 2, "block": BLOCK | {"norm_placement": "post"}, "position": {"type": "relative"}},
            "head": {"type": "masked-language"},
        },
    ),
}
"""By shape: the task that it is trained for, and the model's tree."""


class NoWord(Silent):
    """Nothing is to be said: that something does not work here is an error."""

    def say(self, text: str) -> None:
        raise AssertionError(text)


def import_all() -> None:
    """Whatever else a job imports, so that it is there before the first fork."""
    import sacrebleu.metrics  # noqa: F401
    import torch._dynamo
    import torch.distributed.checkpoint
    from matplotlib.figure import Figure

    import sublayer.cli.train
    import sublayer.training.distributed.many
    import sublayer.training.distributed.sharded  # noqa: F401

    Figure().savefig(io.BytesIO(), format="png")
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).step()


def recipe_of(shape: str, training: Mapping[str, Any], model: Mapping[str, Any]) -> config.Recipe:
    """A small recipe for a shape, with settings of the training and of the model laid on it; or with another model, if
    that says its kind."""
    task, tree = SHAPES[shape]
    base = small_recipe() if task == "translation" else plain(task)
    base["model"] = dict(model) if "kind" in model else merge(tree, model)
    base["training"] = merge(
        {
            **base["training"],
            "steps": 20,
            "batches": {"tokens": 160},
            "clip_norm": 0.5,
            "label_smoothing": 0.1,
            "schedule": {"type": "linear", "warmup": 5},
            "averaging": {"type": "ema", "decay": 0.9},
            "validate_every": 1000,
            "checkpoint_every": 1000,
        },
        training,
    )
    return config.Recipe.parse(base, shape)


def build(
    ranks: Ranks, folder: Path, recipe: config.Recipe, *, double: bool = True, lora: bool = False
) -> Trainer[Any]:
    """A trainer of this process for the recipe, whose text stands in the folder."""
    data = task_data.prepare(recipe, folder, None, Silent(), ranks)
    recipe = data.recipe
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model)
    if double:
        model = model.double()
    if lora:
        adapt(model, config.LowRank(rank=2, dropout=0.0), [])
        # B is zero at the start, and A would have no gradient.
        for name, parameter in trainable_parameters(model).items():
            if name.endswith(".up"):
                torch.nn.init.normal_(parameter, std=0.1)
    c = recipe.training
    processes = processes_of(ranks, model, task_data.objective(data), c, torch.device("cpu"), NoWord())
    log = MetricsLog(folder / "metrics.jsonl") if ranks.first else NoLog()
    context = TrainerContext(log, Silent(), folder / "checkpoints", lambda: None)
    loader = Loader(data.training, c.batches, recipe.seed, processes.share)
    return Trainer(model, loader, processes.objective, c, precision=torch.float32, context=context, processes=processes)


def steps_of(ranks: Ranks, case: Mapping[str, Any]) -> dict[str, list[float]]:
    """The loss, the norm of the gradient and a sum of the averaged weights of a small training.

    case: "shape", "training", "model", and "double", "lora" as in `build`.
    """
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        write_text(folder)
        write(folder, lines=90, longest=5)
        recipe = recipe_of(case["shape"], case.get("training", {}), case.get("model", {}))
        trainer = build(ranks, folder, recipe, double=case.get("double", True), lora=case.get("lora", False))
        trainer.train()
        trainer.context.log.close()
        with trainer.processes.whole(trainer.average) as model:
            sums = [] if model is None else [float(p.detach().double().abs().sum()) for p in model.parameters()]
            found = {} if model is None else trainer.objective.evaluate(model)
        lines = read_metrics(folder / "metrics.jsonl") if ranks.first else []
    steps = [line for line in lines if "loss" in line]
    return {
        "loss": [line["loss"] for line in steps],
        "norm": [line["gradient_norm"] for line in steps],
        "weights": sums,
        "validation": list(found.values()),
    }


def train_cases(cases: Sequence[Mapping[str, Any]], mutation: str | None = None) -> list[dict[str, list[float]]]:
    """`steps_of` each case, one after the other in one group. mutation: what is broken (`MUTATIONS`)."""
    if mutation is not None:
        MUTATIONS[mutation]()
    with joined(torch.device("cpu")) as ranks:
        return [steps_of(ranks, case) for case in cases]


def _own_targets() -> None:
    """Losses are divided by the targets of this process."""
    real = many.ManyProcesses.sum
    many.ManyProcesses.sum = lambda self, own: own if isinstance(own, int) else real(self, own)


def _same_rows() -> None:
    """Every process takes the first rows of a batch."""
    many.Share = lambda reader, readers: Share(0, readers)


def _norm_of_a_part() -> None:
    """Clipping goes by the norm of what this process has."""
    many.DTensor = type(None)
    real = torch.nn.utils.get_total_norm
    torch.nn.utils.get_total_norm = lambda gradients: real([each.to_local() for each in gradients])


def _norm_without_the_shared() -> None:
    """Of matrices that are shared out, clipping knows this process' part."""
    many.dist = SimpleNamespace(all_reduce=lambda *given, **named: None)


def _bias_from_each() -> None:
    tensor._summed_once = lambda group, others, linear, inputs, output: tensor.summed(output, group)


def _no_sum_within() -> None:
    """The gradients of norms that see some of the heads are those of these heads."""
    tensor.SharedMatrices = lambda cuts, within: SharedMatrices(cuts, frozenset())


def _no_sum_back() -> None:
    tensor.copied = lambda x, group: x


MUTATIONS: dict[str, Callable[[], None]] = {
    "own targets": _own_targets,
    "the same rows": _same_rows,
    "norm of a part": _norm_of_a_part,
    "norm without the shared": _norm_without_the_shared,
    "a bias from each": _bias_from_each,
    "no sum within": _no_sum_within,
    "no sum on the way back": _no_sum_back,
}


def command(arguments: Sequence[str]) -> None:
    """`sublayer ARGUMENTS`, through the command's own entry point; ends as it ends."""
    import sys

    from sublayer.cli import main

    sys.argv = ["sublayer", *arguments]
    main.main()


def command_stopped(arguments: Sequence[str], rank: int) -> None:
    """The same; in its third step the process of that rank gets SIGTERM."""
    import os
    import signal

    real = Trainer._loss

    def loss(self: Trainer[Any], *given: Any) -> Any:
        if self.progress.step == 2 and self.ranks.rank == rank:
            signal.raise_signal(signal.SIGTERM)
        return real(self, *given)

    Trainer._loss = loss
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert int(os.environ["WORLD_SIZE"]) > rank
    command(arguments)


def command_killed_early(arguments: Sequence[str], rank: int) -> None:
    """The same; the process of that rank is killed before it has met the others, who end without being asked to."""
    import os
    import signal

    import torch.distributed as dist

    from sublayer.training.distributed import ranks

    ranks.LAST_WORDS = 0.0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ranks.rank() == rank:
        dist.init_process_group = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
    command(arguments)
