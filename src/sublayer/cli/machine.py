"""`sublayer describe --machine`: what this machine was measured to be fast at, and what is chosen by it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from sublayer.cli import terminal
from sublayer.cli.tables import show, table_of
from sublayer.fast.choices import BFLOAT16_PAYS, LIBRARIES, TRAINED, Choices
from sublayer.fast.facts import CLEARLY, SIZES, Attention, Machine, Product, Way
from sublayer.fast.machine import machine, machine_file, multiply_dtype

PRODUCTS: tuple[tuple[Product, str], ...] = (
    ("forward", "forward (x Wᵀ)"),
    ("to_input", "gradient of the input (g W)"),
    ("to_weight", "gradient of the weight (gᵀ x)"),
)
NAMES: dict[str, str] = {
    "torch": "torch",
    "onednn": "oneDNN",
    "transposed": "torch, weight transposed once",
    "packed": "oneDNN, weight packed once",
}


def print_machine() -> None:
    """Print the facts and the choices as tables."""
    here, console = machine(), terminal.console()
    made = Choices.of(here)
    who = here.identity
    console.print(f"[bold]{who.processor}[/]", highlight=False)
    console.print(
        f"{who.cores} cores; {who.instructions} instructions{''.join(f', {limit}' for limit in who.limits)}; "
        f"torch {who.torch}; oneDNN {'on' if who.one_dnn else 'off'}; "
        f"memory is copied at {here.bandwidth / 1e9:.1f} GB/s (read and write)",
        highlight=False,
    )
    console.print(f"engine: {_engine()}", highlight=False)
    for title, table in (
        ("Products of one core, in GFLOP/s (int8: GOP/s)", _speeds(here)),
        ("Square products in float32 by number of threads, in GFLOP/s", _threads(here)),
        ("Attention in half precision, forward and backward, in milliseconds", _attention(here.attention)),
        (f"What is chosen (another than the default must be {CLEARLY} times as fast)", _choices(here, made)),
    ):
        show(title, table)
    console.print(
        "\nA dash was not measured: the library refuses it, or the type was hopeless at the size 'probe'.\n"
        f"To measure again, remove {machine_file(who)}",
        highlight=False,
        soft_wrap=True,
    )


def _engine() -> str:
    """What the engine uses of the processor, or why there is none."""
    from sublayer.fast.engine.library import ISA, Unavailable, instruction_set, instruction_sets

    try:
        return f"{instruction_set()} (of {', '.join(instruction_sets())}; {ISA} forces one)"
    except Unavailable as reason:
        return f"not there, so models run as modules: {reason}"


def _speeds(here: Machine) -> Table:
    table = table_of("size", "rows x in x out", "type", "way", "forward", "to input", "to weight", words=4)
    found = {(s.size, s.dtype, s.way, s.product): s.gflops for s in here.speeds}
    for name, size in SIZES.items():
        rows = dict.fromkeys((dtype, way) for (of, dtype, way, _) in found if of == name)
        for index, (dtype, way) in enumerate(rows):
            speeds = [found.get((name, dtype, way, product)) for product, _ in PRODUCTS]
            shown = ["-" if speed is None else f"{speed:,.3g}" if speed < 1000 else f"{speed:,.0f}" for speed in speeds]
            shape = " x ".join(f"{number:,}" for number in size)
            table.add_row(*((name, shape) if index == 0 else ("", "")), dtype, NAMES[way], *shown)
        table.add_section()
    return table


def _threads(here: Machine) -> Table:
    counts = sorted({found.threads for found in here.threads})
    table = table_of("width", *(f"{count} thread{'s' * (count > 1)}" for count in counts), "help", words=0)
    for width in sorted({found.width for found in here.threads}):
        speeds = {found.threads: found.gflops for found in here.threads if found.width == width}
        helping = 1
        for count, speed in sorted(speeds.items()):
            helping = count if speed > CLEARLY * speeds[helping] else helping
        shown = [f"{speeds[count]:,.3g}" if count in speeds else "-" for count in counts]
        table.add_row(f"{width}", *shown, f"{helping}" if len(speeds) > 1 else "-")
    return table


def _attention(measured: Iterable[Attention]) -> Table:
    table = table_of("type", "torch's fused kernel", "plain products")
    for times in measured:
        table.add_row(times.dtype, f"{times.fused * 1e3:.2f}", f"{times.products * 1e3:.2f}")
    return table


def _choices(here: Machine, made: Choices) -> Table:
    table = table_of("for", "is chosen", "because", words=3)
    precision = "bfloat16" if made.bfloat16_gain >= BFLOAT16_PAYS else "float32"
    gain = f"bfloat16 is {made.bfloat16_gain:.2f} times as fast" if made.bfloat16_gain else "bfloat16 is hopeless"
    table.add_row("training.precision = auto", precision, f"{gain} (from {BFLOAT16_PAYS} on)")
    rates = [f"{name} {here.gflops('square', name):.3g} GFLOP/s" for name in ("float32", "bfloat16")]
    table.add_row("Muon's products", str(multiply_dtype("cpu")).removeprefix("torch."), _known(rates))
    table.add_section()
    for size in TRAINED:
        for product, called in PRODUCTS:
            way = made.libraries[size][product]
            why = [f"{NAMES[by]} {here.gflops(size, 'float32', by, product):.3g} GFLOP/s" for by in LIBRARIES]
            table.add_row(f"{size}: {called}", NAMES[way], _known(why))
        table.add_section()
    for size, way in made.prepared.items():
        ways: tuple[Way, ...] = ("packed", "transposed")
        why = [f"{NAMES[by].split(',')[1].split()[1]} {here.gflops(size, 'float32', by):.3g} GFLOP/s" for by in ways]
        table.add_row(f"decoding, {size}", NAMES[way], _known(why))
    table.add_section()
    for dtype in ("bfloat16", "float16"):
        chosen = "plain products" if dtype in made.half_products else "fused kernel"
        times = next((t for t in here.attention if t.dtype == dtype), None)
        why = "" if times is None else f"products {times.products * 1e3:.2f} ms, kernel {times.fused * 1e3:.2f} ms"
        table.add_row(f"attention in {dtype}", chosen, why)
    return table


def _known(rates: Iterable[str]) -> str:
    """Those that were measured."""
    return ", ".join(rate.replace(" 0 GFLOP/s", " not measured") for rate in rates)
