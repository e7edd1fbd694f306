"""MatConvNet's solvers (examples/+solver) and what a checkpoint keeps of them in `state.solverState`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.network import STATISTICS
from parity.optimizers import Adadelta, Adagrad, Adam, RMSprop, UpdateRule

if TYPE_CHECKING:
    from parity.network import Param

__all__ = ["SOLVERS", "Solver", "lift_slots", "shaped", "solver_of"]


@dataclass(frozen=True)
class Solver:
    """One function of examples/+solver.

    Attributes:
        rule: the update rule with its defaults.
        options: its option → the rule's field.
        fields: field of its state → the rule's slot; the empty field where the state is an array.
    """

    rule: UpdateRule
    options: Mapping[str, str]
    fields: Mapping[str, str]


SOLVERS: dict[str, Solver] = {
    "adagrad": Solver(Adagrad(), {"epsilon": "epsilon", "rho": "rho"}, {"": "square"}),
    "rmsprop": Solver(RMSprop(), {"epsilon": "epsilon", "rho": "rho"}, {"": "square"}),
    "adadelta": Solver(Adadelta(), {"epsilon": "epsilon", "rho": "rho"}, {"g_sqr": "square", "delta_sqr": "delta"}),
    "adam": Solver(
        Adam(),
        {"beta1": "beta1", "beta2": "beta2", "eps": "epsilon"},
        {"m": "mean", "v": "square", "t": "step"},
    ),
}
"""Name → solver."""


def lift_slots(
    state: Any, rule: UpdateRule | None, places: Mapping[str, tuple[int, ...]], params: Mapping[str, Param]
) -> dict[str, dict[str, np.ndarray]]:
    """Param id → slot → array (in the param's axes) of a checkpoint's `state.solverState`; empty without one.

    SGD's `momentum` is MatConvNet's m, which points downhill and does not hold the rate. A state of 0 is one that no
    update has touched; batch moments have none.

    Args:
        state: the checkpoint's `state`.
        rule: the recipe's update rule, whose fields the state has.
        places: param id → indices from 0: layer and cell (SimpleNN), or parameter (DagNN).
        params: id → `Param`.

    Raises:
        ValueError: a slot's shape is not its parameter's.
    """
    fields = next((s.fields for s in SOLVERS.values() if type(s.rule) is type(rule)), {"": "momentum"})
    kept = _kept(state)
    found: dict[str, dict[str, np.ndarray]] = {}
    for id_, place in places.items():
        part = _part(kept, place)
        if params[id_].role in STATISTICS or part is None:
            continue
        arrays = part if isinstance(part, Mapping) else {"": part}
        slots = {slot: arrays[name] for name, slot in fields.items() if isinstance(arrays.get(name), np.ndarray)}
        if any(value.size > 1 or value.any() for value in slots.values()):
            where = "state.solverState" + "".join(f"{{{at + 1}}}" for at in place)
            found[id_] = {slot: _slot(value, slot, params[id_], where) for slot, value in slots.items()}
    return found


def solver_of(state: Any) -> str:
    """The solver whose state a checkpoint holds, empty where it cannot be told: Adam and AdaDelta keep structs."""
    for part in _parts(_kept(state)):
        for name, solver in SOLVERS.items():
            if isinstance(part, Mapping) and set(part) == set(solver.fields):
                return name
    return ""


def _kept(state: Any) -> Any:
    """`state.solverState` (releases before it call it `momentum`), or None; one of several graphics cards'."""
    if isinstance(state, list):
        state = state[0] if state else None
    return state.get("solverState", state.get("momentum")) if isinstance(state, Mapping) else None


def _part(kept: Any, place: tuple[int, ...]) -> Any:
    for at in place:
        if not isinstance(kept, list) or at >= len(kept):
            return None
        kept = kept[at]
    return kept


def _parts(kept: Any) -> Iterator[Any]:
    """Every element of nested cells."""
    for item in kept if isinstance(kept, list) else ():
        if isinstance(item, list):
            yield from _parts(item)
        else:
            yield item


def _slot(value: np.ndarray, slot: str, param: Param, where: str) -> np.ndarray:
    """A slot in its parameter's axes."""
    if value.dtype.kind != "f":
        raise ValueError(f"{where} is of class {value.dtype}, not single or double")
    if slot == "step":
        if value.size != 1:
            raise ValueError(f"{where} has {value.size} step counts, not one")
        return np.asarray(float(value.flat[0]))
    return shaped(value, param, where)


def shaped(value: np.ndarray, param: Param, where: str = "an array") -> np.ndarray:
    """A MATLAB array in a parameter's axes: vectors flat, kernels with the trailing axes that MATLAB drops.

    Raises:
        ValueError: it has another shape than the parameter.
    """
    flat = len(param.shape) == 1
    own = value.reshape(-1, order="F") if flat else value.reshape(value.shape + (1,) * (len(param.shape) - value.ndim))
    if own.shape != param.shape:
        raise ValueError(f"{where} has shape {own.shape}, but {param.source} has {param.shape}")
    return np.ascontiguousarray(own)
