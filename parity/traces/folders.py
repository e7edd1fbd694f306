"""The folders of a trace as mappings: their arrays are read when somebody asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from parity.traces.held import Held
    from parity.traces.reader import Trace

__all__ = ["Few", "First", "Lazy", "Unread"]

Array = np.ndarray


class _Folder(Mapping[str, Any]):
    """The names of one folder of a trace."""

    def __init__(self, trace: Trace, group: str) -> None:
        self.trace, self.group = trace, group

    def __iter__(self) -> Iterator[str]:
        return iter(self.trace.names(self.group))

    def __len__(self) -> int:
        return len(self.trace.names(self.group))

    def __contains__(self, name: object) -> bool:
        return name in self.trace.names(self.group)

    def held(self, name: str) -> Held:
        """What the folder holds of a name; raises KeyError if nothing."""
        found = self.trace.held(self.group, name)
        if found is None:
            raise KeyError(name)
        return found


class Lazy(_Folder):
    """Name → array of one folder of a trace, read when it is asked for."""

    def __getitem__(self, name: str) -> Array:
        return self.held(name).value()


class Unread(_Folder):
    """Name → what one folder of a trace holds of it, to be read stretch by stretch."""

    def __getitem__(self, name: str) -> Held:
        return self.held(name)


class Few(Lazy):
    """The arrays of one folder that have so many elements at most: as if it did not hold the others."""

    def __init__(self, trace: Trace, group: str, most: int) -> None:
        super().__init__(trace, group)
        self.most = most

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) and math.prod(self.held(str(name)).shape) <= self.most

    def __getitem__(self, name: str) -> Array:
        if name not in self:
            raise KeyError(name)
        return super().__getitem__(name)


class First(Lazy):
    """The first images of the arrays of one folder, as many as have so many elements; or the top of the first one."""

    def __init__(self, trace: Trace, group: str, most: int) -> None:
        super().__init__(trace, group)
        self.most = most

    def __getitem__(self, name: str) -> Array:
        held = self.held(name)
        if math.prod(held.shape) <= self.most:
            return held.value()
        each, line = (max(1, math.prod(held.shape[n:])) for n in (1, 2))
        if each > self.most:
            count = max(1, self.most // line)
            return held.span(0, count * line).reshape(1, count, *held.shape[2:])
        count = self.most // each
        return held.span(0, count * each).reshape(count, *held.shape[1:])
