"""`sublayer plan`: what a training will take of each of many GPUs, before it runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import RecipeName
from sublayer.cli.terminal import say
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from sublayer.config.plan import Plan


def plan(
    recipe: RecipeName,
    gpus: Annotated[int, typer.Option(min=1, max=2**20, help="How many GPUs there are.")] = 8,
    memory: Annotated[str, typer.Option(help="Memory of a GPU, e.g. 80GB or 74GiB.")] = "80GB",
    peak: Annotated[float, typer.Option(help="Peak of a GPU, in operations a second (H100, bfloat16).")] = 989e12,
    efficiency: Annotated[float, typer.Option(help="Part of the peak that matrix products reach.")] = 0.6,
    bandwidth: Annotated[float, typer.Option(help="Bytes a second that a GPU sends to other nodes.")] = 50e9,
    node_bandwidth: Annotated[float, typer.Option(help="Bytes a second that a GPU sends within its node.")] = 450e9,
    memory_bandwidth: Annotated[float, typer.Option(help="Bytes a second between a GPU and its memory.")] = 3.35e12,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a text; of a pair, of each side. Default: data.max_length.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting of the recipe; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan a training over several GPUs: memory of each, which layouts of [training.parallel] fit, time of a step.

    The batch of the recipe (training.batches.tokens) is that of all GPUs together. Time and utilisation are those of a
    roofline, which a real step does not reach (docs/planning.md).

    Example: sublayer plan wikitext-2 --gpus 8 --memory 80GB
    """
    from sublayer.config.load import load_recipe
    from sublayer.config.plan import Hardware, plan, plans
    from sublayer.errors import InputError

    rates = {"--peak": peak, "--bandwidth": bandwidth, "--node-bandwidth": node_bandwidth}
    for name, value in {**rates, "--memory-bandwidth": memory_bandwidth, "--efficiency": efficiency}.items():
        if not 0 < value < float("inf") or (name == "--efficiency" and value > 1):
            raise InputError(f"{name} = {value:g} is no such rate", "Give a number over 0; an efficiency is 1 at most.")
    made = load_recipe(recipe, overrides or []).recipe
    hardware = Hardware(gpus, _bytes(memory), peak, efficiency, bandwidth, node_bandwidth, memory_bandwidth)
    texts = min(length or made.data.max_length, made.model.max_length)
    found = plans(made.model, made.training, hardware, texts)
    own = made.training.parallel
    asked = None
    if gpus % own.tensor == 0:
        asked = plan(made.model, made.training, own, hardware, texts)
    if as_json:
        say(to_json({"asked": asked and _plain(asked), "layouts": [_plain(each) for each in found]}, indent=2))
        return
    _print(found, asked)


def _print(found: list[Plan], asked: Plan | None) -> None:
    from rich.table import Table

    table = Table("data", "tensor", "recomputed", "memory", "fits", "step", "tokens/s", "MFU")
    for each in found:
        c = each.parallel
        fits = "yes" if each.fits else "no"
        speed = (f"{each.step * 1e3:,.1f} ms", f"{each.tokens_a_second:,.0f}", f"{each.utilisation:.0%}")
        table.add_row(c.data, str(c.tensor), c.activation_checkpointing, f"{each.total / 1e9:,.2f} GB", fits, *speed)
    terminal.console().print(table)
    best = found[0]
    if not best.fits:
        say(f"Nothing fits: the smallest takes {best.total / 1e9:,.2f} GB. Lower training.batches.tokens.")
    for title, each in (("As the recipe says", asked), ("The fastest that fits", best if best.fits else None)):
        if each is not None:
            c = each.parallel
            say(f"{title}: data = '{c.data}', tensor = {c.tensor}, recomputed '{c.activation_checkpointing}'")
            _say("  memory of a GPU", {what: f"{count / 1e9:,.3f} GB" for what, count in each.memory.items() if count})
            _say("  sent by a GPU in a step", {what: f"{count / 1e9:,.3f} GB" for what, count in each.sent.items()})
            _say("  time", {what: f"{seconds * 1e3:,.2f} ms" for what, seconds in each.seconds.items() if seconds})
            again = f", and {each.again / 1e12:,.2f} again" if each.again else ""
            say(f"  operations of a GPU in a step: {each.flops / 1e12:,.2f} · 10¹²{again}; {each.tokens:,} tokens")


def _say(title: str, parts: dict[str, str]) -> None:
    if parts:
        say(f"{title}: {', '.join(f'{what} {amount}' for what, amount in parts.items())}")


def _plain(found: Plan) -> dict[str, object]:
    return {
        "parallel": found.parallel.plain(),
        "memory": found.memory,
        "bytes": found.total,
        "fits": found.fits,
        "flops": found.flops,
        "recomputed_flops": found.again,
        "sent": found.sent,
        "seconds": found.seconds,
        "step": found.step,
        "tokens_a_second": found.tokens_a_second,
        "utilisation": found.utilisation,
    }


_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _bytes(said: str) -> float:
    from sublayer.errors import InputError

    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?)?B?\s*", said)
    if found is None or not float(found[1]):
        raise InputError(f"--memory = '{said}' is no amount of memory", "Write it like 80GB or 74.5GiB.")
    return float(found[1]) * _UNITS[found[2] or ""]
