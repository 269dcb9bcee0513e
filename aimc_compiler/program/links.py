"""The links of a long transfer as arrays: a multicast over a large mesh takes ten thousand of them."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class Links(Sequence[tuple[int, int]]):
    """A sequence of (resource index, use that it follows or -1), equal to the tuple of the same.

    resources: (links,) indices. Each use follows the one in front of it, but for those where a straight piece of the
    tree begins: heads: (pieces,), their places; before: (pieces,), what they follow.
    """

    __slots__ = ("_before", "_heads", "resources")

    def __init__(self, resources: NDArray[np.int32], heads: Sequence[int], before: Sequence[int]) -> None:
        self.resources = resources
        self._heads = np.array(heads, dtype=np.int32)
        self._before = np.array(before, dtype=np.int32)

    @property
    def before(self) -> NDArray[np.int32]:
        """(links,), the use that each follows, -1 for none."""
        follows = np.arange(-1, len(self.resources) - 1, dtype=np.int32)
        follows[self._heads] = self._before
        return follows

    @property
    def heads(self) -> list[int]:
        """Uses where a straight piece of the tree begins, the first one among them."""
        heads: list[int] = self._heads.tolist()
        return heads

    @property
    def heads_before(self) -> list[int]:
        """(pieces,), what each of ``heads`` follows, -1 for nothing."""
        before: list[int] = self._before.tolist()
        return before

    def __len__(self) -> int:
        return len(self.resources)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | Sequence[tuple[int, int]]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return int(self.resources[index]), int(self.before[index])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.resources.tolist(), self.before.tolist(), strict=True))

    def __eq__(self, other: Any) -> bool:
        if isinstance(other, Links):
            same = np.array_equal(self.resources, other.resources)
            return same and np.array_equal(self.before, other.before)
        return isinstance(other, tuple) and tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
