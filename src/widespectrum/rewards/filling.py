"""A network that is built without memory, and filled with the weights of a checkpoint portion by portion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError, ModelError

from .identity import listed
from .weights import Take, Weights, new_buffer

__all__ = ["empty", "fill"]


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
        count = f"{len(left)} weight{'s' if len(left) > 1 else ''}"
        raise InputError(f"{weights.where} leaves {count} of {weights.wanted} unfilled: {listed(left)}")
    came = {target: weights.shape_of(take) for target, take in takes.items()}
    # A tensor of which several parameters are made is named once.
    wrong = {
        takes[target].source: f"{takes[target].source} has shape {shape} where {shapes[target]} is expected"
        for target, shape in came.items()
        if shape != shapes[target]
    }
    if wrong:
        weights.refuse(list(wrong.values()))


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
