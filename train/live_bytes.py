"""How many bytes of tensors there are, and were at most: a count that any device gives."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While active, follows every storage that an operation makes until it is freed.

    What kernels use inside of themselves does not show, nor what an allocator rounds up or keeps.

    Attributes:
        now: Bytes of what was made since the beginning, and of `known`, and is there still.
        peak: Most of them at a time.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Count `known` tensors from the beginning, each storage once."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()
        self._add(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        result = func(*args, **(kwargs or {}))
        self._add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._seen:
                continue
            self._seen.add(key)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, key, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
