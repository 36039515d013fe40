"""The weights of a checkpoint, read in portions: into a network that is still empty, or as tensors of one's own.

Files are read, not mapped: what has been read takes no more memory than where it was read to, plus one portion.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError, ModelError

from .containers import Stored, reading
from .identity import identify, listed

__all__ = ["Take", "Weights", "empty", "fill"]

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
        """The number of layers: 0, 1, 2, ... in place of `{}`, as long as there is such a tensor."""
        return next(n for n in count() if pattern.format(n) not in self._stored)

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

    def require(self, names: Iterable[str]) -> None:
        """InputError where one of the names is not there, listing what is missing, and what the file looks like."""
        missing = sorted({name for name in names if name not in self._stored})
        if missing:
            raise InputError(
                f"{self.where} lacks {_number(missing)} of {self.wanted}, {listed(missing)}{self.looks}: give the "
                f"checkpoint of {self.wanted}"
            )

    @property
    def looks(self) -> str:
        """For messages: which model it looks like, or nothing where that cannot be told."""
        like = identify(self.shapes)
        return f"; it looks like {like}" if like else ""

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


def _number(names: Collection[str]) -> str:
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"


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


def empty(build: Callable[[], Any]) -> Any:
    """What `build` builds, with parameters that have a shape but no memory (meta device) and buffers that are real."""
    ensure_torchvision()
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build()


def fill(
    module: Any,
    weights: Weights,
    names: Mapping[str, str | Take],
    *,
    dtype: Any,
    device: Any,
    optional: Collection[str] = (),
) -> None:
    """Give every parameter and persistent buffer of `module` its weights, freeze it, and set it to eval mode.

    `names` says for each of them where it comes from; tensors that are tied need it once. Numbers become `dtype`;
    whole numbers and the buffers that no checkpoint holds stay of the type that they have. Everything goes to `device`.
    What `names` lists may be absent from the file if it is `optional`: then a buffer stays as it was built, and a
    parameter stays empty, so that to compute with it fails.

    InputError where a weight is missing or of another shape, or where something of the module would stay unfilled.
    """
    import torch

    takes = {target: Take(source) if isinstance(source, str) else source for target, source in names.items()}
    weights.require(take.source for target, take in takes.items() if target not in optional)
    takes = {target: take for target, take in takes.items() if take.source in weights.shapes}
    targets = _targets(module)
    _check(targets, weights, takes, names.keys(), optional)
    jobs = [(takes[place], target) for target in targets for place in list(target.places & takes.keys())[:1]]
    with _in_memory(weights.wanted):
        buffer = new_buffer()
        for take, target in sorted(jobs, key=lambda job: weights.place_of(job[0])):
            own = dtype if target.tensor.is_floating_point() else target.tensor.dtype
            made = torch.empty(target.tensor.shape, dtype=own, device=device)
            weights.copy(take, made, buffer)
            target.put(made)
        for owner in module.modules():
            owner._buffers.update({key: each.to(device) for key, each in owner._buffers.items() if each is not None})
    module.eval()


@dataclass(frozen=True, slots=True)
class _Target:
    """A parameter or persistent buffer, with the modules that have it and all the names under which they do."""

    tensor: Any
    places: set[str]
    owners: list[tuple[dict[str, Any], str]]

    def put(self, made: Any) -> None:
        """Put a tensor in its place, everywhere."""
        from torch.nn import Parameter

        is_parameter = isinstance(self.tensor, Parameter)
        made = Parameter(made, requires_grad=False) if is_parameter else made
        for table, key in self.owners:
            table[key] = made


def _targets(module: Any) -> list[_Target]:
    """What has to be filled; a tensor that is tied comes once."""
    found: dict[Any, _Target] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        kept = {key: each for key, each in owner._buffers.items() if key not in owner._non_persistent_buffers_set}
        for table, entries in ((owner._parameters, owner._parameters), (owner._buffers, kept)):
            for key, tensor in entries.items():
                if tensor is not None:
                    # ties are told by the memory: without it (`empty`), every place has a tensor object of its own
                    memory = tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()
                    target = found.setdefault(memory, _Target(tensor, set(), []))
                    target.places.add(f"{prefix}.{key}".removeprefix("."))
                    target.owners.append((table, key))
    return list(found.values())


def _check(
    targets: list[_Target],
    weights: Weights,
    takes: Mapping[str, Take],
    named: Collection[str],
    optional: Collection[str],
) -> None:
    """InputError where a shape does not fit or something is left over; ValueError for a name that the module lacks."""
    shapes = {place: tuple(target.tensor.shape) for target in targets for place in target.places}
    if unknown := set(named) - set(shapes):
        raise ValueError(f"the network of {weights.wanted} has no {listed(unknown)}")
    left = [min(target.places) for target in targets if not target.places & {*takes, *optional}]
    if left:
        raise InputError(f"{weights.where} leaves {_number(left)} of {weights.wanted} unfilled: {listed(left)}")
    came = {target: weights.shape_of(take) for target, take in takes.items()}
    wrong = [
        f"{takes[target].source} has shape {shape} where {shapes[target]} is expected"
        for target, shape in came.items()
        if shape != shapes[target]
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{weights.where} is no checkpoint of {weights.wanted}: {'; '.join(wrong[:3])}{more}{weights.looks}"
        )


@contextmanager
def _in_memory(wanted: str) -> Iterator[None]:
    """A lack of memory is a ModelError that says what helps."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise ModelError(f"{wanted} does not fit into memory: take dtype bfloat16, or another device") from error
        raise
