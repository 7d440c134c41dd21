"""A process that runs the command in forks of itself: one job a line on standard input, one outcome a line back.

Everything is imported once, before the first fork. Nothing is computed here, so no thread is running when it forks.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import sacrebleu.metrics  # noqa: F401
import tokenizers  # noqa: F401
import torch
import torch._dynamo  # the optimizers import it at their first step
from matplotlib.figure import Figure

from machines import ONE_DNN_FASTER
from sublayer import files
from sublayer.cli import main as cli
from sublayer.fast import machine
from sublayer.hub import folder as model_folder
from sublayer.text import Tokenizer
from sublayer.training import checkpoint, trainer

torch.set_num_threads(1)
Figure().savefig(io.BytesIO(), format="png")  # imports fonts and writers of pictures
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).step()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_tensor_file(count: int) -> None:
    """SIGKILL when the count-th file of a checkpoint is half written."""
    real, calls = checkpoint.write_tensors, [0]

    def write(path: Path, tensors: Any) -> None:
        real(path, tensors)
        calls[0] += 1
        if calls[0] == count:
            os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoint.write_tensors = write


def kill_before_rename(count: int) -> None:
    """SIGKILL when the count-th checkpoint is complete, but not yet under its name."""
    real, calls = files._flush, [0]

    def flush(path: Path) -> None:
        real(path)
        calls[0] += "step-" in path.name
        if calls[0] == count:
            die()

    files._flush = flush


def kill_before_recipe() -> None:
    """SIGKILL when the text and the tokenizer are ready, and recipe.toml is written but not yet under its name."""
    real = files._flush

    def flush(path: Path) -> None:
        real(path)
        if "recipe.toml" in path.name:
            die()

    files._flush = flush


def kill_before_tokenizer() -> None:
    """SIGKILL when recipe.toml stands there and tokenizer.json does not."""
    Tokenizer.save = lambda self, path: die()


def kill_in_model() -> None:
    """SIGKILL while the model folder is written."""
    model_folder.write_tensors = lambda path, tensors: die()


def kill_after_step(step: int, delay: float) -> None:
    """SIGKILL so many seconds after that step has begun, wherever the run is then."""
    real = trainer.Trainer._loss

    def loss(self: trainer.Trainer, *arguments: Any) -> Any:
        if self.progress.step + 1 == step:
            threading.Timer(delay, die).start()
        return real(self, *arguments)

    trainer.Trainer._loss = loss


def one_dnn_is_faster(step: int = 0) -> None:
    """The machine is one on which products go through oneDNN; SIGKILL when the step has begun, if one is given."""
    machine._known = ONE_DNN_FASTER
    if step:
        kill_after_step(step, 0.0)


def full_disk(size: int) -> None:
    """No file grows beyond `size` bytes; what the kernel then says is what a full disk says, but for the words."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def signal_at(step: int, number: int) -> None:
    """The signal arrives in the middle of that step."""
    real = trainer.Trainer._loss

    def loss(self: trainer.Trainer, *arguments: Any) -> Any:
        if self.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        return real(self, *arguments)

    trainer.Trainer._loss = loss


def child(job: dict[str, Any], out: int, err: int) -> None:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(bytes.fromhex(job["stdin"]))
        os._exit(0)
    os.close(writing)
    for source, goal in ((reading, 0), (out, 1), (err, 2)):
        os.dup2(source, goal)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    # Whoever started this may have had them ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if job["patience"]:
        faulthandler.dump_traceback_later(job["patience"], exit=True, file=err)
    torch.set_num_threads(job["threads"])
    if job["fault"]:
        name, *numbers = job["fault"]
        globals()[name](*numbers)
    if job["signal_at_step"]:
        signal_at(job["signal_at_step"]["step"], job["signal_at_step"]["signal"])
    sys.argv = ["sublayer", *job["arguments"]]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # what the interpreter does, which a fork does not reach
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    answers = os.dup(1)
    with os.fdopen(answers, "w") as reply:
        for line in sys.stdin.buffer:
            job = json.loads(line)
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                pid = os.fork()
                if pid == 0:
                    child(job, out.fileno(), err.fileno())
                timer = threading.Timer(job["kill_after"] or 0, os.kill, (pid, signal.SIGKILL))
                if job["kill_after"] is not None:
                    timer.start()
                _, status = os.waitpid(pid, 0)
                timer.cancel()
                out.seek(0)
                err.seek(0)
                said = {"out": out.read().decode(errors="replace"), "err": err.read().decode(errors="replace")}
                reply.write(json.dumps({"code": os.waitstatus_to_exitcode(status), **said}) + "\n")
                reply.flush()


if __name__ == "__main__":
    main()
