"""A server under full load for half an hour, with clients that hang up and clients that talk nonsense.

    python tests/serving/endurance.py --minutes 30
    python tests/serving/endurance.py --minutes 2 --clients 16

A tenth of the clients are cut off in the middle, one in fifty sends what is no request. Every answer that comes is
compared with the library's own. Prints memory, rows and counts each minute, and ends with 1 where an answer was wrong,
a row was lost, something answered 500 or memory grew by more than a tenth after the first third. At the end the server
is killed and started again, and answers.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import requests  # noqa: E402

from served import LINES, generator, tokenizer, translator  # noqa: E402
from sublayer import config  # noqa: E402
from sublayer.generation.generator import Generator  # noqa: E402
from sublayer.generation.translator import Translator  # noqa: E402
from sublayer.hub.folder import ModelBundle, ModelCard, write  # noqa: E402

CUT, MALFORMED = 0.1, 0.02
WORDS = " ".join(LINES).replace("?", "").replace(".", "").replace(";", "").split()


@dataclass
class Question:
    """A request, and what the library answers."""

    path: str
    body: dict[str, Any]
    expected: Any


def questions(count: int, seed: int) -> list[Question]:
    """Texts to go on from, greedy, sampled and by beams, and sentences to translate; with the library's answers."""
    draw = random.Random(seed)
    writer, own = generator(), translator()
    return [_translation(draw, own) if draw.random() < 0.4 else _text(draw, writer, n) for n in range(count)]


def _text(draw: random.Random, writer: Generator[Any], seed: int) -> Question:
    prompt = ("the house of the old man " * draw.choice([0, 0, 3])) + " ".join(
        draw.choices(WORDS, k=draw.randint(1, 12))
    )
    most = draw.randint(1, 40)
    body: dict[str, Any] = {"model": "lm", "prompt": prompt, "max_tokens": most}
    search: config.Search
    match draw.randrange(3):
        case 0:
            body["temperature"] = 0
            search = config.Greedy()
        case 1:
            body["num_beams"] = 3
            search = config.Beam(size=3)
        case _:
            body |= {"temperature": 1.0, "seed": seed}
            search = config.Sampling()
    found = writer.generate([prompt], search=search, max_tokens=most, stop=[], seed=seed)[0].text
    return Question("/v1/completions", body, found)


def _translation(draw: random.Random, own: Translator) -> Question:
    words = draw.choices(WORDS, k=draw.randint(1, 10))
    body = {"q": " ".join(words), "source": "en", "target": "es"}
    expected = own.translate([body["q"]])[0].text
    if draw.random() < 0.3:
        # With a tag inside of it, a sentence is aligned too; without its tags it says the same.
        marked = draw.randrange(len(words))
        words[marked] = f"<b>{words[marked]}</b>"
        body |= {"q": " ".join(words), "format": "html"}
    return Question("/translate", body, expected)


@dataclass
class Load:
    """Clients that ask one after another, without a pause. wrong: what must not have happened."""

    address: str
    asked: list[Question]
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])

    def client(self, number: int) -> None:
        draw = random.Random(number)
        while not self.stop.is_set():
            question, luck = draw.choice(self.asked), draw.random()
            try:
                if luck < MALFORMED:
                    self._malformed(draw, question)
                elif luck < MALFORMED + CUT:
                    self._cut_off(draw, question)
                else:
                    self._ask(question)
            except (OSError, requests.RequestException) as error:
                if not self.stop.is_set():
                    self.wrong.append(f"{type(error).__name__}: {error}"[:200])

    def _ask(self, question: Question) -> None:
        reply = requests.post(self.address + question.path, json=question.body, timeout=120)
        self.counts[str(reply.status_code)] += 1
        if reply.status_code == 429:
            time.sleep(0.2)
            return
        if reply.status_code != 200:
            self.wrong.append(f"{reply.status_code}: {reply.text[:200]}")
            return
        told = reply.json()
        found = told["translatedText"] if question.path == "/translate" else told["choices"][0]["text"]
        if question.body.get("format") == "html":
            found = html.unescape(re.sub("</?b>", "", found))
        if found != question.expected:
            self.wrong.append(f"{question.body} was answered {found!r}, where it should be {question.expected!r}")

    def _cut_off(self, draw: random.Random, question: Question) -> None:
        """Hang up: before the body is whole, while waiting, or in the middle of a stream."""
        host = self.address.removeprefix("http://")
        streams = question.path != "/translate" and draw.random() < 0.5
        held = json.dumps({**question.body, **({"stream": True} if streams else {})}).encode()
        head = f"POST {question.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        with socket.create_connection(host.split(":"), timeout=60) as connection:
            connection.sendall(f"{head}content-length: {len(held)}\r\n\r\n".encode())
            connection.sendall(held[: draw.choice([len(held) // 2, len(held), len(held)])])
            time.sleep(draw.random() * 0.2)
        self.counts["cut off"] += 1

    def _malformed(self, draw: random.Random, question: Question) -> None:
        body: Any = draw.choice(
            ["{", "[]", json.dumps({**question.body, "nonsense": 1}), json.dumps({"prompt": 5}), "\x00"]
        )
        kind = {"content-type": draw.choice(["application/json", "text/plain"])}
        reply = requests.post(self.address + question.path, data=body, headers=kind, timeout=60)
        self.counts["malformed"] += 1
        if not 400 <= reply.status_code < 500:
            self.wrong.append(f"what is malformed was answered {reply.status_code}")


class Serving:
    """`sublayer serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        code = "from sublayer.cli.main import main; main()"
        models = [f"lm={folder / 'lm'}", f"en-es={folder / 'en-es'}"]
        command = [sys.executable, "-c", code, "serve", *models, "--port", "0", "--rows", "24", "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+[0-9]", self.process.stdout.readline())
        assert found, "the server did not start"
        self.address = found[0]

    @property
    def memory(self) -> float:
        """Resident, in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def rows(self) -> float:
        page = requests.get(self.address + "/metrics", timeout=60).text
        found = re.findall(r"^sublayer_(?:batch_rows|queue_texts|reading_prompts)\{.*\} (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--questions", type=int, default=300, help="different ones")
    options = parser.parse_args()
    asked = questions(options.questions, 1)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        card = ModelCard("", "A model for tests.\n")
        write(folder / "lm", ModelBundle(generator().model, tokenizer(), generator().decoding.plain()), card)  # type: ignore[arg-type]
        own = translator()
        write(folder / "en-es", ModelBundle(own.model, own.tokenizer, own.decoding.plain()), card)
        serving = Serving(folder)
        load = Load(serving.address, asked)
        threads = [threading.Thread(target=load.client, args=(n,), daemon=True) for n in range(options.clients)]
        for thread in threads:
            thread.start()
        memory: list[float] = []
        begun, end = time.monotonic(), time.monotonic() + 60 * options.minutes
        pause = min(60.0, 6 * options.minutes)
        while time.monotonic() < end and serving.process.poll() is None:
            time.sleep(pause)
            memory.append(serving.memory)
            minutes = (time.monotonic() - begun) / 60
            print(
                f"{minutes:5.1f} min: {memory[-1]:6.1f} MiB, {dict(load.counts)}, {len(load.wrong)} wrong", flush=True
            )
        load.stop.set()
        for thread in threads:
            thread.join(60)
        time.sleep(1)
        rows = serving.rows()
        # Memory of the first third is what a server comes to; from then on it is flat.
        settled = memory[len(memory) // 3 :]
        grown = max(settled) / settled[0] - 1
        print(f"memory from the first third on: {settled[0]:.1f} to {max(settled):.1f} MiB; rows left: {rows:g}")
        serving.process.send_signal(signal.SIGKILL)
        serving.process.wait()
        again = Serving(folder)
        after = Load(again.address, asked)
        for question in asked[:20]:
            after._ask(question)
        again.process.kill()
        again.process.wait()
        wrong = [*load.wrong, *after.wrong]
        if rows:
            wrong.append(f"{rows:g} rows, texts or prompts are left")
        if grown > 0.1:
            wrong.append(f"memory grew by {100 * grown:.0f} %")
        print(f"{sum(load.counts.values())} requests; {len(wrong)} wrong")
        for line in wrong[:20]:
            print(line)
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
