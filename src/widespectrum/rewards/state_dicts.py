"""The tensors of a checkpoint's pickle by their names in the state dict, whichever way they were packed.

A state dict, at the top or under `state_dict`, `model` or `module`; a pickled network; a TorchScript archive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from widespectrum.errors import InputError

from .unpickling import Recorded, Storage

__all__ = ["TensorRecord", "tensor_records"]

_NESTED = ("state_dict", "model", "module")
_NOT_WEIGHTS = frozenset({"context_length", "input_resolution", "vocab_size"})
"""Settings that OpenAI's archive of CLIP keeps among its weights."""

_MOST = 200_000
_DEEPEST = 64


class TensorRecord(NamedTuple):
    """A tensor as a pickle describes it; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether the numbers lie one after the other in reading order."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != expected:
                return 0 in self.shape
            expected *= size
        return True


def tensor_records(tree: Any, where: str) -> dict[str, TensorRecord]:
    """The tensors of what `read_pickle` gave, by their names in the state dict; a common `module.` is taken off.

    A network also gives the buffers that its state dict leaves out: what it computed once is what it goes on with.
    InputError where there are no tensors.
    """
    found = dict(_named(_weights(tree), where))
    if not found:
        raise InputError(f"{where} holds no weights: expected a state dict, or a dict with one under 'state_dict'")
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): record for name, record in found.items()}
    return found


def _weights(tree: Any) -> Any:
    """The state dict or the network in what was saved."""
    for _ in range(_DEEPEST):
        inner = [tree[key] for key in _NESTED if isinstance(tree, dict) and _has_weights(tree.get(key))]
        if not inner:
            break
        tree = inner[0]
    return tree


def _has_weights(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Recorded) and isinstance(value.state, dict))


def _named(tree: Any, where: str) -> Iterator[tuple[str, TensorRecord]]:
    """(name, tensor) of everything below a network or state dict."""
    # a pickle of a few bytes can hold a network inside itself, or one for each of 2**64 ways to it
    left = _MOST
    pending = [("", 0, tree)]
    while pending:
        prefix, depth, node = pending.pop()
        below = []
        for name, value in _entries(node):
            left -= 1
            if left < 0 or depth > _DEEPEST:
                raise InputError(f"{where} holds over {_MOST} modules and tensors, or modules over {_DEEPEST} deep")
            record = _tensor(value, where)
            if record is not None and not (depth == 0 and name in _NOT_WEIGHTS):
                yield f"{prefix}{name}", record
            elif isinstance(node, Recorded) and isinstance(value, Recorded):
                below.append((f"{prefix}{name}.", depth + 1, value))
        pending.extend(reversed(below))


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """What a network or state dict holds directly: tensors, modules and anything else."""
    state = tree.state if isinstance(tree, Recorded) else tree
    if not isinstance(state, dict):
        return
    groups: list[Mapping[Any, Any]] = [state]
    if isinstance(tree, Recorded) and "_modules" in state:
        groups = [_dict(state, key) for key in ("_parameters", "_buffers", "_modules")]
    for group in groups:
        yield from ((name, value) for name, value in group.items() if isinstance(name, str))


def _dict(state: Mapping[Any, Any], key: str) -> dict[Any, Any]:
    value = state.get(key)
    return value if isinstance(value, dict) else {}


def _tensor(value: Any, where: str) -> TensorRecord | None:
    """The tensor that a record stands for, or None where it stands for something else."""
    for _ in range(_DEEPEST):
        if not isinstance(value, Recorded) or not value.name.startswith(("torch._utils._rebuild", "torch._tensor.")):
            return None
        kind = value.name.rpartition(".")[2]
        if kind in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _checked(value.args, where)
        if kind in ("_rebuild_parameter", "_rebuild_parameter_with_state") and value.args:
            value = value.args[0]
        # a tensor with attributes of its own: (function, class, arguments, attributes)
        elif kind == "_rebuild_from_type_v2" and len(value.args) >= 3 and isinstance(value.args[2], tuple):
            function, _, arguments = value.args[:3]
            if not (isinstance(function, type) and issubclass(function, Recorded)):
                return None
            value = function(*arguments)
        else:
            return None
    return None


def _checked(args: tuple[Any, ...], where: str) -> TensorRecord:
    """The tensor of these arguments; InputError where they describe none."""
    if len(args) >= 4 and isinstance(args[0], Storage) and all(isinstance(each, tuple) for each in args[2:4]):
        record = TensorRecord(*args[:4])
        numbers = (record.offset, *record.shape, *record.stride)
        if len(record.shape) == len(record.stride) and all(type(n) is int and 0 <= n < 2**62 for n in numbers):
            return record
    raise InputError(f"{where} is damaged, it describes a tensor that cannot be: download it again")
