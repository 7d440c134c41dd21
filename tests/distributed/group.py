"""Groups of processes that know each other, as `torchrun` starts them: forked from one that has everything imported.

One job a line on standard input, one answer a line back. A job names a function of `jobs.py`, which every process of
the group calls; what the process of each rank answers, or how it ended, comes back by rank. Where one process dies, the
others are ended, as `torchrun` does it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a process ended: a negative code is the signal that killed it."""

    code: int
    answer: Any
    err: str


class Groups:
    """Starts groups of processes, one after the other."""

    def __init__(self) -> None:
        # Several threads on a core would spin while they wait for each other.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        atexit.register(self._server.communicate)

    def run(self, size: int, job: str, kill: tuple[int, float] | None = None, **settings: Any) -> list[Ended]:
        """Call the function in a group of so many processes. settings: its arguments, as JSON has them.

        kill: a rank that gets SIGKILL after so many seconds.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(
            json.dumps({"size": size, "job": job, "kill": kill, "settings": settings}).encode() + b"\n"
        )
        self._server.stdin.flush()
        return [Ended(**each) for each in json.loads(self._server.stdout.readline())]

    def answer(self, size: int, job: str, **settings: Any) -> Any:
        """The same, where all must end well: what rank 0 answers."""
        ended = self.run(size, job, **settings)
        assert all(each.code == 0 for each in ended), "\n".join(each.err for each in ended if each.code)
        return ended[0].answer


@cache
def groups() -> Groups:
    """The one server of this test session, started when first asked for."""
    return Groups()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _member(rank: int, asked: dict[str, Any], port: int, folder: Path) -> None:
    """One process of a group; it does not return."""
    import jobs

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(asked["size"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (folder / f"{rank}.err").open("w", buffering=1) as err:
        os.dup2(err.fileno(), 2)
        os.dup2(err.fileno(), 1)
        code = 0
        try:
            answer = getattr(jobs, asked["job"])(**asked["settings"])
            (folder / f"{rank}.json").write_text(json.dumps(answer))
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _waited(members: list[int], kill: tuple[int, float] | None) -> list[int]:
    """How each process ended, by rank."""
    codes: dict[int, int] = {}
    timer = threading.Timer(kill[1], os.kill, (members[kill[0]], signal.SIGKILL)) if kill else None
    if timer is not None:
        timer.start()
    last: list[threading.Timer] = []
    while len(codes) < len(members):
        pid, status = os.waitpid(-1, 0)
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid]:
            others = [other for other in members if other not in codes]
            for other in others:
                os.kill(other, signal.SIGTERM)
            # One that waits for the others to begin does not hear of it.
            last.append(threading.Timer(8.0, _end, (others, codes)))
            last[-1].start()
    for each in [*last, *([timer] if timer else [])]:
        each.cancel()
        each.join()
    return [codes[pid] for pid in members]


def _end(members: list[int], ended: dict[int, int]) -> None:
    for each in members:
        if each not in ended:
            os.kill(each, signal.SIGKILL)


def _serve() -> None:
    replies = os.dup(1)
    sys.path[:0] = [str(TESTS), str(TESTS / "distributed")]
    import jobs

    jobs.import_all()
    with os.fdopen(replies, "w") as reply:
        for line in sys.stdin.buffer:
            asked, port = json.loads(line), free_port()
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                members: list[int] = []
                for rank in range(asked["size"]):
                    pid = os.fork()
                    if pid == 0:
                        _member(rank, asked, port, folder)
                    members.append(pid)
                codes = _waited(members, asked["kill"])
                found: list[dict[str, Any]] = []
                for rank, code in enumerate(codes):
                    answer, err = folder / f"{rank}.json", folder / f"{rank}.err"
                    found.append(
                        {
                            "code": code,
                            "answer": json.loads(answer.read_text()) if answer.is_file() else None,
                            "err": err.read_text(errors="replace") if err.is_file() else "",
                        }
                    )
            reply.write(json.dumps(found) + "\n")
            reply.flush()


if __name__ == "__main__":
    _serve()
