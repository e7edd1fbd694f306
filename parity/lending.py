"""Models that a user lends: parity loads weights into them and steps them, and gives them back as they were."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["Loan", "lent"]

P = ParamSpec("P")
R = TypeVar("R")


class Loan:
    """What live models held when they were lent.

    Every variable is kept: weights, statistics, counters of random seeds. Optimizers need not be, since it is always a
    new one of the same settings that parity steps.

    Args:
        *given: sides of a comparison; what is no live Keras model (a path, a runner) is passed over.
    """

    def __init__(self, *given: Any) -> None:
        models = {id(side): side for side in given if hasattr(side, "get_config") and callable(side)}
        self._models, self._held, self._out = tuple(models.values()), list[tuple[Any, Any]](), False
        self.take()

    def take(self) -> None:
        """Borrow the models, as they are now; nothing where they are borrowed already."""
        if self._out:
            return
        self._out, self._held = True, []
        for model in self._models:
            from parity.frameworks.keras.engine import engine_of

            if not getattr(model, "built", True):
                continue  # it has no weights yet that anybody could miss
            engine = engine_of(model)
            self._held += [(variable, engine.backend.snapshot(variable)) for variable in engine.state(model)]

    def give_back(self) -> None:
        """Put everything back; nothing where that was done, since what the models hold now is their owner's."""
        if self._out:
            for variable, value in self._held:
                variable.assign(value)
        self._out, self._held = False, []


def lent(function: Callable[P, R]) -> Callable[P, R]:
    """A function that gives the live models back that it takes as `ref` and `keras`, by keyword, whatever happens."""

    @functools.wraps(function)
    def giving_back(*args: P.args, **options: P.kwargs) -> R:
        loan = Loan(options.get("ref"), options.get("keras"))
        try:
            return function(*args, **options)
        finally:
            loan.give_back()

    return giving_back
