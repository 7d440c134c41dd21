"""Changes that leave a file what it is: other orders and layouts, other legal values, a key less, another weight.

Most of what they make must be accepted, so that what an accepted file says is looked at too: another order and another
layout mean nothing (`HARMLESS`), and another weight is another weight and nothing else.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import struct
import tomllib
from pathlib import Path
from typing import Any

import packed
import tomli_w
import torch

HARMLESS = frozenset({"order", "layout", "nothing"})
KINDS = ("order", "layout", "value", "value", "value", "drop", "weight", "weight")
WORDS = (
    *("gelu", "relu", "silu", "gelu_new", "float32", "bfloat16", "linear", "dynamic", "default", "llama3", "yarn"),
    *("pre", "post", "adamw", "muon", "sgd", "cosine", "greedy", "sampling", "beam", "layer_norm", "rms_norm", "none"),
    *("El niño", "a dog ran", "x", " ", "a\u00a0b", "☃", "<s>", "__label__", "user", "assistant", "O", "B-PER"),
)
NUMBERS = (0.0, 0.1, 0.5, 0.9, 1.0, 2.0, 1e-6, 1e-5, 100.0, 10_000.0)
WHOLE = (
    *("training.steps", "training.seed", "seed", "training.batches.tokens", "training.validate_every", "model.dim"),
    *("decoding.beam", "decoding.max_extra", "data.max_length", "data.split.test", "tokenizer.vocab_size"),
    *("model.encoder.layers", "model.decoder.layers", "model.encoder.block.attention.heads"),
    *("model.encoder.block.feed_forward.hidden", "training.schedule.warmup", "training.checkpoint_every"),
)
PARTS = (
    *("training.minutes", "training.optimizer.learning_rate", "training.averaging.decay", "decoding.length_penalty"),
    *("model.decoder.block.dropout", "training.label_smoothing", "decoding.max_ratio"),
)
CHOICES = (
    *("training.precision=float32", "tokenizer.type=characters", 'training.averaging={type="none"}'),
    *("training.schedule.type=cosine", 'training.optimizer={type="adamw"}', "training.early_stopping=none"),
)
"""What `--set` may say: settings that are whole numbers, or parts, or one of a few words."""


def change(path: Path, kind: str, draw: random.Random) -> str:
    """Change the file; the kind of change that it came to, where the file knows no such one."""
    held = path.read_bytes()
    if path.suffix == ".safetensors":
        made, kind = _safetensors(held, kind, draw)
    elif path.suffix == ".json":
        made, kind = _json(held, kind, draw)
    elif path.name == "engine.bin":
        made, kind = _engine(held, kind, draw)
    elif path.suffix == ".bin":
        made, kind = _model_bin(path, kind, draw)
    elif path.suffix == ".argosmodel":
        return packed.change(path, kind, draw, change)
    elif path.suffix == ".toml":
        made, kind = _toml(held, kind, draw)
    elif path.suffix == ".gguf":
        return _gguf(path, kind, draw)
    elif path.suffix == ".model":
        made, kind = _pieces(held, kind, draw)
    elif path.suffix == ".jsonl":
        made, kind = _jsonl(held, kind, draw)
    elif path.name == "override.txt":
        made, kind = _override(draw).encode(), "value"
    else:
        made, kind = _lines(held, kind, draw, swap="\t" if path.suffix in (".tsv", ".conll") else "")
    path.write_bytes(made)
    return kind


def _engine(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    """The engine's file: its header as other JSON, or another bit in its numbers."""
    begin = held.index(b"\n") + 9
    end = begin + int.from_bytes(held[begin - 8 : begin], "little")
    numbers = bytearray(held[-(-end // 4096) * 4096 :])
    header = json.loads(held[begin:end])
    if kind == "order":
        header = ordered_anew(header, draw)
    elif kind != "layout":
        numbers[draw.randrange(len(numbers))] ^= 1 << draw.randrange(8)
        kind = "weight"
    told = json.dumps(header, indent=2 if kind == "layout" else None).encode()
    new = held[: begin - 8] + len(told).to_bytes(8, "little") + told
    return new.ljust(-(-len(new) // 4096) * 4096, b"\0") + bytes(numbers), kind


# --- values of JSON and TOML -------------------------------------------------------------------------------------


def _json(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    whole = json.loads(held)
    if kind == "order":
        return json.dumps(ordered_anew(whole, draw)).encode(), kind
    if kind == "layout":
        indent, ascii_only = draw.choice([None, 1, 4, "\t"]), draw.random() < 0.5
        return (json.dumps(whole, indent=indent, ensure_ascii=ascii_only) + "\n" * draw.randint(0, 3)).encode(), kind
    return json.dumps(with_another(whole, kind, draw)).encode(), "drop" if kind == "drop" else "value"


def _toml(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    whole = tomllib.loads(held.decode())
    if kind == "order":
        return tomli_w.dumps(ordered_anew(whole, draw)).encode(), kind
    if kind == "layout":
        lines = [f"{line}  # {draw.choice(WORDS)}" if line else line for line in tomli_w.dumps(whole).split("\n")]
        return "\n\n".join(lines).encode(), kind
    return tomli_w.dumps(with_another(whole, kind, draw)).encode(), "drop" if kind == "drop" else "value"


def _jsonl(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    rows = [json.loads(line) for line in held.decode().splitlines()]
    if kind == "order":
        rows = [ordered_anew(row, draw) for row in rows]
    elif kind != "layout":
        at = draw.randrange(len(rows))
        rows[at] = with_another(rows[at], kind, draw)
        kind = "drop" if kind == "drop" else "value"
    end = "\r\n" if kind == "layout" else "\n"
    return "".join(json.dumps(row, ensure_ascii=kind != "layout") + end for row in rows).encode(), kind


def ordered_anew(value: Any, draw: random.Random) -> Any:
    """The same with the keys of all tables in another order."""
    if isinstance(value, dict):
        pairs = [(key, ordered_anew(one, draw)) for key, one in value.items()]
        draw.shuffle(pairs)
        return dict(pairs)
    return [ordered_anew(one, draw) for one in value] if isinstance(value, list) else value


def inside(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values, of long lists and tables only the first."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path] * bool(path) + [below for key, one in pairs[:60] for below in inside(one, (*path, key))]


def with_another(whole: Any, kind: str, draw: random.Random) -> Any:
    """`whole` with one value exchanged for another of its type, or with a key less."""
    paths = inside(whole)
    if kind == "drop":
        paths = [path for path in paths if isinstance(path[-1], str)]
    if not paths:
        return whole
    *way, last = draw.choice(paths)
    table = whole
    for key in way:
        table = table[key]
    if kind == "drop":
        del table[last]
    else:
        table[last] = another(table[last], draw)
    return whole


def another(value: Any, draw: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return draw.choice([value + 1, max(value - 1, 0), value * 2, max(value // 2, 1), 1, 2, 4])
        case float():
            return draw.choice([value * 2, value / 2, *NUMBERS])
        case str():
            return draw.choice([value.upper(), value + "x", *WORDS])
        case list() if value:
            return draw.choice([value[::-1], value[1:], value[:-1], [*value, value[-1]]])
        case dict() if value:
            left = dict(value)
            left.pop(draw.choice(list(left)))
            return left
        case _:
            return draw.choice([1, 0.5, True, "x", [1], {}])


def _override(draw: random.Random) -> str:
    match draw.randrange(5):
        case 0 | 1:
            return f"{draw.choice(WHOLE)}={draw.choice([1, 2, 4, 8]) * draw.randint(1, 300)}"
        case 2 | 3:
            return f"{draw.choice(PARTS)}={round(draw.random() * draw.choice([0.01, 1, 1, 10]), 5)}"
        case _:
            return draw.choice(CHOICES) if draw.random() < 0.5 else f"name={draw.choice(WORDS).strip() or 'x'}"


# --- numbers of models -------------------------------------------------------------------------------------------


def _safetensors(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    size = int.from_bytes(held[:8], "little")
    header, data = json.loads(held[8 : 8 + size]), bytearray(held[8 + size :])
    names = [name for name in header if name != "__metadata__"]
    floats = [name for name in names if header[name]["dtype"] == "F32" and header[name]["shape"]]
    match kind:
        case "order":
            header = ordered_anew(header, draw)
        case "value":  # two tensors of one shape change their places
            one = draw.choice(names)
            alike = [name for name in names if header[name]["shape"] == header[one]["shape"]]
            other = draw.choice(alike)
            header[one], header[other] = header[other], header[one]
        case "drop":
            del header[draw.choice(names)]
        case "weight" if floats:
            begin, end = header[draw.choice(floats)]["data_offsets"]
            at = draw.randrange(begin, end, 4)
            data[at : at + 4] = struct.pack("<f", struct.unpack("<f", data[at : at + 4])[0] + 0.5)
        case _:
            kind = "layout"
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8 + 8 * draw.randrange(4) * (kind == "layout"))
    return len(told).to_bytes(8, "little") + told + data, kind


def _gguf(path: Path, kind: str, draw: random.Random) -> str:
    """A number in the file's own tables, or a weight, through the library that made the format."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    if kind == "weight":
        tensor = draw.choice([each for each in reader.tensors if each.tensor_type == gguf.GGMLQuantizationType.F32])
        flat = tensor.data.reshape(-1)
        flat[draw.randrange(len(flat))] += 0.5
    else:
        kind = "value"
        whole = {
            name: one for name, one in reader.fields.items() if len(one.types) == 1 and not name.startswith("GGUF")
        }
        found = draw.choice([one for one in whole.values() if one.types[0] != gguf.GGUFValueType.STRING])
        part = found.parts[found.data[0]]
        part[0] = another(part[0].item(), draw)
    reader.data.flush()
    return kind


def _model_bin(path: Path, kind: str, draw: random.Random) -> tuple[bytes, str]:
    """CTranslate2's file: variables in another order, another number, or another weight."""
    from sublayer.hub.ctranslate2 import model_bin

    held, found = bytearray(path.read_bytes()), model_bin.read(path)
    ends = {name: each.place + each.dtype.itemsize * math.prod(each.shape) for name, each in found.variables.items()}
    if kind in ("order", "layout"):
        first = 4 + 2 + len(found.specification) + 1 + 8
        bounds = [first, *ends.values()]
        parts = [bytes(held[begin:end]) for begin, end in itertools.pairwise(bounds)]
        draw.shuffle(parts)
        return bytes(held[:first]) + b"".join(parts) + bytes(held[bounds[-1] :]), "order"
    if kind == "weight":
        # A scale is a whole row's, and a table of sines is a part of the tree.
        strange = ("_scale", "position_encodings/encodings")
        names = [
            name for name, each in found.variables.items()
            if each.shape and each.dtype == torch.float32 and not name.endswith(strange)
        ]  # fmt: skip
        name = draw.choice(names)
        at = draw.randrange(found.variables[name].place, ends[name], 4)
        held[at : at + 4] = struct.pack("<f", struct.unpack("<f", held[at : at + 4])[0] + 0.5)
        return bytes(held), kind
    name = draw.choice([name for name, each in found.variables.items() if not each.shape])
    at = draw.randrange(found.variables[name].place, ends[name])
    held[at] = another(held[at], draw) % 256
    return bytes(held), "value"


def _pieces(held: bytes, kind: str, draw: random.Random) -> tuple[bytes, str]:
    """A SentencePiece model, through the library that made the format."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto.FromString(held)
    normal = [piece for piece in model.pieces if piece.type == pb.ModelProto.SentencePiece.NORMAL]
    match kind:
        case "weight":
            draw.choice(normal).score += draw.choice([-0.5, 0.5])
            kind = "value"  # which cuts of a text it changes is another matter
        case "value":
            settings = model.normalizer_spec
            name = draw.choice(["add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"])
            setattr(settings, name, not getattr(settings, name))
        case "drop":
            model.ClearField(draw.choice(["trainer_spec", "denormalizer_spec"]))
        case _:
            kind = "layout"
    return model.SerializeToString(), kind


# --- lines -------------------------------------------------------------------------------------------------------


def _lines(held: bytes, kind: str, draw: random.Random, swap: str) -> tuple[bytes, str]:
    lines = held.decode().split("\n")
    at = draw.randrange(max(len(lines) - 1, 1))
    if kind in ("order", "layout"):
        return "\r\n".join(lines).encode(), "layout"
    if kind == "drop":
        del lines[at]
    elif swap and draw.random() < 0.7:
        cells = lines[at].split(swap)
        cells[draw.randrange(len(cells))] = draw.choice(WORDS)
        lines[at] = swap.join(cells)
    else:
        other = draw.randrange(max(len(lines) - 1, 1))
        lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines).encode(), "drop" if kind == "drop" else "value"
