"""The weights of a checkpoint, read in portions: into tensors that are there, or as tensors of one's own.

Files are read, not mapped: what has been read takes no more memory than where it was read to, plus one portion.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

from widespectrum.errors import InputError

from .containers import Stored, reading
from .identity import identify, listed, looks_like

__all__ = ["Take", "Weights", "new_buffer"]

_PORTION = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Take:
    """Where a parameter comes from: `source`, of it `rows` (of the first axis), then transposed, then reshaped."""

    source: str
    rows: slice | None = None
    transpose: bool = False
    reshape: tuple[int, ...] | None = None


class Weights:
    """The tensors of a checkpoint by name; `where` names the checkpoint, `wanted` the model, for messages."""

    def __init__(self, where: str, stored: Mapping[str, Stored], wanted: str) -> None:
        self.where, self.wanted = where, wanted
        self._stored = dict(stored)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor; no number is read."""
        return {name: each.shape for name, each in self._stored.items()}

    @property
    def dtypes(self) -> Mapping[str, str]:
        """The name of every tensor's type as torch calls it ("float16"); no number is read."""
        return {name: each.dtype for name, each in self._stored.items()}

    def depth(self, pattern: str) -> int:
        """The number of layers: 1 + the highest number in place of `{}` that any tensor has; 0 where none has one.

        A layer that is not whole is counted, so that what it lacks is missed.
        """
        # No model has a thousand layers, and to build so many for a damaged name would take hours.
        layer = re.compile(re.escape(pattern.partition("{}")[0]) + r"(\d{1,3})\.")
        return 1 + max((int(found[1]) for name in self._stored if (found := layer.match(name))), default=-1)

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """These tensors as copies of one's own, in the type that they have in the file. InputError for missing ones."""
        import torch

        wanted = list(names)
        self.require(wanted)
        found, buffer = {}, new_buffer()
        for name in wanted:
            stored = self._stored[name]
            # a tensor that repeats its numbers can be of any size
            if math.prod(stored.shape) * stored.size > stored.file.stat().st_size:
                raise InputError(f"{self.where} is damaged, {name} is larger than the file: download it again")
            found[name] = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
            self.copy(Take(name), found[name], buffer)
        return found

    def require(self, names: Iterable[str], *, more: bool = False) -> None:
        """InputError where one of the names is not there, listing what is missing, and what the file looks like.

        `more` says that there are names which nobody can tell, those of layers that are missing altogether.
        """
        wanted = set(names)
        missing = sorted(wanted - self._stored.keys())
        if not missing:
            return
        own = looks_like(self.shapes, self.wanted)
        whole = 2 * len(missing) < len(wanted) and identify(self.shapes) is None
        remedy = "it is incomplete, download it again" if own or whole else f"give the checkpoint of {self.wanted}"
        count = f"{len(missing)}{' or more' if more else ''} {'weights' if more or len(missing) > 1 else 'weight'}"
        raise InputError(f"{self.where} lacks {count} of {self.wanted}, {listed(missing)}{self.looks}: {remedy}")

    def expect(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """InputError where a tensor has another shape."""
        came = {name: (self.shapes[name], shape) for name, shape in shapes.items()}
        wrong = [
            f"{name} has shape {got} where {expected} is expected"
            for name, (got, expected) in came.items()
            if got != expected
        ]
        if wrong:
            self.refuse(wrong)

    def refuse(self, reasons: Sequence[str]) -> NoReturn:
        """InputError that says why these are not the weights of the model."""
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        raise InputError(f"{self.where} is no checkpoint of {self.wanted}: {'; '.join(reasons[:3])}{more}{self.looks}")

    @property
    def looks(self) -> str:
        """For messages: which other model it looks like, or nothing where that cannot be told."""
        like = identify(self.shapes)
        return f"; it looks like {like}" if like and not looks_like(self.shapes, self.wanted) else ""

    def shape_of(self, take: Take) -> tuple[int, ...]:
        """The shape of what `take` takes; InputError where its `reshape` does not fit the tensor."""
        shape = self.shapes[take.source]
        if take.rows is not None and shape:
            shape = (len(range(*take.rows.indices(shape[0]))), *shape[1:])
        if take.transpose:
            shape = shape[::-1]
        if take.reshape is None:
            return shape
        if math.prod(take.reshape) != math.prod(shape):
            raise InputError(f"{self.where}: {take.source} has shape {shape}, expected one like {take.reshape}")
        return take.reshape

    def place_of(self, take: Take) -> tuple[str, int]:
        """Where it begins; reading in this order goes through the files from front to back."""
        stored = self._stored[take.source]
        return str(stored.file), stored.start

    def copy(self, take: Take, target: Any, buffer: Any) -> None:
        """Fill `target`, a tensor of any type on any device, with what is taken, by way of a `new_buffer`."""
        stored, rows = self._stored[take.source], take.rows
        if rows is not None and rows.step in (None, 1) and stored.stride is None:
            stored, rows = _rows(stored, rows), None
        if rows is None and not take.transpose and stored.stride is None and target.is_contiguous():
            flat, start = target.view(-1), 0
            for portion in _portions(stored, buffer):
                flat[start : start + len(portion)].copy_(portion)
                start += len(portion)
            return
        whole = _whole(stored, buffer)
        whole = whole if rows is None else whole[rows]
        target.copy_((whole.permute(*range(whole.ndim)[::-1]) if take.transpose else whole).reshape(target.shape))


def _rows(stored: Stored, rows: slice) -> Stored:
    """Consecutive rows of a tensor whose numbers lie in reading order."""
    first, end, _ = rows.indices(stored.shape[0])
    shape = (max(0, end - first), *stored.shape[1:])
    start = stored.start + first * math.prod(stored.shape[1:]) * stored.size
    return replace(stored, start=start, shape=shape, checksum=stored.checksum if shape == stored.shape else 0)


def _whole(stored: Stored, buffer: Any) -> Any:
    """A tensor as a view of the bytes in which it lies, all in memory."""
    import torch

    flat = replace(stored, shape=(stored.span // stored.size,), stride=None)
    numbers = torch.empty(flat.shape, dtype=getattr(torch, stored.dtype))
    start = 0
    for portion in _portions(flat, buffer):
        numbers[start : start + len(portion)] = portion
        start += len(portion)
    return numbers.view(stored.shape) if stored.stride is None else numbers.as_strided(stored.shape, stored.stride)


def new_buffer() -> Any:
    """Memory for one portion. It is made once for a whole checkpoint: freed ones would leave holes between tensors."""
    import torch

    return torch.empty(_PORTION, dtype=torch.uint8)


def _portions(stored: Stored, buffer: Any) -> Iterator[Any]:
    """The numbers as flat tensors, one portion after the other in the memory of `buffer`."""
    import torch

    left, checksum = stored.span, 0
    with reading(stored.file), stored.file.open("rb", buffering=0) as file:
        file.seek(stored.start)
        while left:
            part = buffer[: min(left, len(buffer))]
            _read_all(file, part.numpy().data, stored)
            checksum = zlib.crc32(part.numpy(), checksum) if stored.checksum else 0
            left -= len(part)
            yield part.view(getattr(torch, stored.dtype))
    if checksum != stored.checksum:
        raise InputError(f"{stored.file} is damaged, a checksum in it does not match: download it again")


def _read_all(file: Any, part: memoryview, stored: Stored) -> None:
    done = 0
    while done < len(part):
        got = file.readinto(part[done:])
        if not got:
            raise InputError(f"{stored.file} is cut short: download it again")
        done += got
