"""Pickles read as data: what a pickle would call is written down, and nothing is ever called.

Official checkpoints are pickles (torch.save, TorchScript archives, and one pickled network), and a pickle is a program.
Here every class or function that it names becomes an inert record of its name, arguments and state, whatever library it
is of; the library is not imported. Any name outside the ones that such checkpoints need is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import IO, Any, ClassVar, NamedTuple, Self

from widespectrum.errors import InputError

__all__ = ["LARGEST_PICKLE", "Recorded", "Storage", "read_pickle"]

LARGEST_PICKLE = 32 * 2**20
"""Bytes that are read of a pickle; the numbers of a checkpoint lie outside it, and it is far smaller."""

_ROOTS = frozenset({"__torch__", "einops", "open_clip", "timm", "torch", "trainer", "transformers"})
"""Packages whose names are recorded."""

_NAMES = frozenset(
    {
        *("_codecs.encode", "argparse.Namespace", "functools.partial"),
        *("collections.Counter", "collections.defaultdict", "collections.deque"),
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    }
)
"""Further names that are recorded: they appear in the settings of networks and of trainings, never in the weights."""

_PLAIN: dict[str, type] = {each.__name__: each for each in (dict, frozenset, list, set, tuple)}
"""The builtins that are taken as they are: containers, which do nothing but hold what they are given."""

_BUILTINS = ("builtins", "__builtin__")


class Storage(NamedTuple):
    """Where the numbers of tensors lie: the name of a torch storage class, and a key of the container."""

    kind: str
    key: str


class Recorded:
    """What a pickle would have made: `name` with `args`, then given `state`. Nothing of it was done.

    Every name that a pickle mentions has its own class below this one, made for one reading. As each has a
    `__setstate__`, no pickle can set attributes of an object or of a class.
    """

    __slots__ = ("args", "items", "state")
    name: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **_: Any) -> Self:
        """What stands for the object; keyword arguments are not needed."""
        made = object.__new__(cls)
        made.args, made.state, made.items = args, None, {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Take an item that a list-like object is given."""
        self.items[len(self.items)] = value


class _Ordered(dict[Any, Any]):
    """An OrderedDict; whatever attributes a pickle gives it (torch: `_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def read_pickle(stream: IO[bytes], where: str, storages: dict[str, Storage] | None = None) -> Any:
    """The next pickle of a stream as plain containers, `Recorded` and `Storage`; the stream then stands behind it.

    `storages` takes every storage that it mentions, by key.

    InputError where the pickle is damaged, or names a class or function that has no place in a checkpoint.
    """
    start = stream.tell()
    try:
        content = stream.read(LARGEST_PICKLE)
        length = _look_through(content)
        stream.seek(start + length)
        return _Reader(io.BytesIO(content[:length]), where, {} if storages is None else storages).load()
    except (InputError, OSError):
        raise
    # what a malformed pickle raises is whatever the operation at fault raises
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise InputError(f"{where} is damaged or no checkpoint ({reason}): download it again") from None


def _look_through(content: bytes) -> int:
    """Go through the operations without doing them; the length. ValueError for those that no checkpoint needs."""
    end = 0
    for operation, value, position in pickletools.genops(content):
        # A registered extension is found without asking `find_class`.
        if operation.name.startswith("EXT"):
            raise ValueError("it uses the extension registry of pickle")
        # A memo index reserves memory for all indices below it.
        if operation.name.endswith("PUT") and int(value or 0) > len(content):
            raise ValueError("its memo is larger than the file")
        # the last one is a single byte
        end = (position or 0) + 1
    return end


class _Reader(pickle.Unpickler):
    """The one unpickler of the package."""

    def __init__(self, stream: IO[bytes], where: str, storages: dict[str, Storage]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._where, self._storages, self._classes = where, storages, dict[str, type]()

    def find_class(self, module: str, name: str) -> Any:
        """A class that records, or a plain container; never anything of the module itself."""
        full = f"{module}.{name}"[:200]
        if full == "collections.OrderedDict":
            return _Ordered
        if module in _BUILTINS and name in _PLAIN:
            return _PLAIN[name]
        if module.partition(".")[0] not in _ROOTS and full not in _NAMES:
            raise InputError(
                f"{self._where}: this checkpoint would have to run {full!r} to load, which is refused; convert it to "
                "safetensors where you trust it"
            )
        return self._classes.setdefault(full, type("Recorded", (Recorded,), {"__slots__": (), "name": full}))

    def persistent_load(self, pid: Any) -> Any:
        """A storage; for a class that was saved with its source code (torch before 1.0), the class's record."""
        kind, first, *rest = pid
        if kind == "module":
            return first
        if kind != "storage" or not issubclass(first, Recorded):
            raise ValueError("it refers to something that is no storage of numbers")
        key, _, _, *view = rest
        if any(each is not None for each in view):
            raise ValueError("a storage is described in a way that torch has not used since 0.4")
        return self._storages.setdefault(str(key), Storage(first.name.rpartition(".")[2], str(key)))
