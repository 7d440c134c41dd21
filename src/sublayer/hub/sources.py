"""Where the tensors of another library's checkpoint lie, and how they are read: one at a time.

A source knows the names, shapes and types of all its tensors before it reads a single one, so that whatever is wrong
with a checkpoint can be said at once, and reading never holds more than the tensors that are being moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from sublayer.errors import CheckpointError
from sublayer.untrusted import first_line, read_object

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types as a safetensors header names them; others (of 8 bits and less) belong to quantized checkpoints."""

_safe_open: Any = safetensors.safe_open  # pyright: ignore[reportUnknownMemberType]

AGAIN = "Fetch the checkpoint again, whole."


@dataclass(frozen=True)
class Header:
    """What is known of a tensor before it is read. dtype: None where it is a type that torch's models do not have."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None


class Source(Protocol):
    """The tensors of a checkpoint.

    name: for messages. headers: of every tensor, by its name.
    """

    @property
    def name(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, Header]: ...

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        ...


class Safetensors:
    """One safetensors file, or several that belong together. Tensors are views of the files until they are moved.

    Raises:
        CheckpointError: a file is missing, or is damaged.
    """

    def __init__(self, name: str, files: Iterable[Path]) -> None:
        self.name = name
        self.headers: dict[str, Header] = {}
        self._file_of: dict[str, Any] = {}
        self._files = ExitStack()
        for path in files:
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            file = self._files.enter_context(_safe_open(str(path), framework="pt", device="cpu"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing", AGAIN) from None
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or not a safetensors file ({error})", AGAIN) from None
        for tensor in cast("list[str]", file.keys()):
            if tensor in self._file_of:
                raise CheckpointError(f"{path} holds {tensor} a second time", AGAIN)
            part: Any = file.get_slice(tensor)
            self.headers[tensor] = Header(tuple(part.get_shape()), DTYPES.get(part.get_dtype()))
            self._file_of[tensor] = file

    def tensor(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)


class Pickled:
    """PyTorch's own files (`.bin`, `.pt`): pickles, of which only tensors and plain containers are read.

    Raises:
        CheckpointError: a file is missing, damaged, or holds anything else.
    """

    def __init__(self, name: str, files: Iterable[Path]) -> None:
        self.name = name
        self._tensors: dict[str, Tensor] = {}
        for path in files:
            self._tensors |= _unpickled(path)
        self.headers = {name: Header(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


def open_source(folder: Path, *, unsafe_pickle: bool = False) -> Source:
    """The tensors in a folder as Hugging Face's hub keeps it.

    Args:
        unsafe_pickle: also take `.bin` and `.pt` files, where there are no safetensors.

    Raises:
        CheckpointError: there are none, there is only a pickle and `unsafe_pickle` is false, a part is missing (all
            missing ones are named), or a file is damaged.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.is_file():
        return Safetensors(str(index), _parts(index))
    if whole.is_file():
        return Safetensors(str(whole), [whole])
    pickles = [folder / f"pytorch_model.bin{end}" for end in (".index.json", "")]
    pickles += sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    found = next((path for path in pickles if path.is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} holds no model.safetensors", AGAIN)
    if not unsafe_pickle:
        raise CheckpointError(
            f"{folder} holds its weights only as a pickle, {found.name}, and a pickle can carry code",
            "Take a checkpoint in safetensors, or, if you trust where it comes from, ask for it by"
            " unsafe_pickle=True (`--unsafe-pickle`); even then only tensors are read from it.",
        )
    return Pickled(str(found), _parts(found) if found.suffix == ".json" else [found])


def _parts(index: Path) -> list[Path]:
    """The files that an index names; all that are not there are named at once."""
    table: Any = read_object(index, remedy=AGAIN).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index} has no 'weight_map'", AGAIN)
    names = sorted({str(name) for name in cast("dict[str, Any]", table).values()})
    strange = [name for name in names if Path(name).name != name]
    if strange:
        raise CheckpointError(f"{index} names files outside its folder: {', '.join(strange)}", AGAIN)
    files = [index.parent / name for name in names]
    gone = [path.name for path in files if not path.is_file()]
    if gone:
        raise CheckpointError(f"{index} names files that are not there: {', '.join(gone)}", AGAIN)
    return files


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing", AGAIN) from None
    except Exception as error:  # the unpickler raises whatever the file makes it stumble over
        raise CheckpointError(f"{path} is damaged, or holds more than tensors ({first_line(error)})", AGAIN) from None
    if isinstance(found, dict) and isinstance(cast("dict[str, Any]", found).get("state_dict"), dict):
        found = cast("dict[str, Any]", found)["state_dict"]
    if not isinstance(found, dict) or not all(
        isinstance(value, Tensor) for value in cast("dict[str, Any]", found).values()
    ):
        raise CheckpointError(f"{path} holds something else than tensors by name", AGAIN)
    return cast("dict[str, Tensor]", found)


def _is_zip(path: Path) -> bool:
    """Today's format can be mapped into memory; that of torch before 1.6 cannot."""
    with path.open("rb") as handle:
        return handle.read(4) == b"PK\x03\x04"
