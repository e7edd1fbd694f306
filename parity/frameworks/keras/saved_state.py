"""An optimizer's state as a file holds it: steps done, and each parameter's slots. Nothing is built for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.frameworks.keras.configs import is_model, layers_of, name_of, with_names
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.slots import Slots, Variable, canonical, slots_of
from parity.frameworks.keras.stored import Stored
from parity.network import Network
from parity.recipe import Recipe

__all__ = ["Lazily", "SavedState", "inner", "saved_state", "with_state"]


class Lazily(Mapping[str, np.ndarray]):
    """Arrays by name that are read when they are asked for: a file's slots are as large as its weights, or twice that.

    Args:
        makers: name → what reads the array.
    """

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads it; raises BadFile where the file is damaged there."""
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


@dataclass(frozen=True, eq=False)
class SavedState:
    """An optimizer's state in a file.

    Attributes:
        ids: param ids of the trained arrays in the order of the model's layers, in which an optimizer has them.
        rows: for each of them, slot's name → array, laid out as the model has it.
        scalars: `steps`, `learning_rate`, `product`, `loss_scale`, `good_steps`, where the file has them.
        steps: updates done.
        notes: what a reader should know.
    """

    ids: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Stored], ...] = ()
    scalars: Mapping[str, Stored] = field(default_factory=dict)
    steps: int = 0
    notes: tuple[str, ...] = ()

    def slots(
        self, read: Callable[[Stored], np.ndarray], rate: float, rule: str
    ) -> dict[str, Mapping[str, np.ndarray]]:
        """Param id → slot's neutral name → array, read when it is asked for; the count of steps is one of them.

        Args:
            read: reads an array.
            rate: the learning rate, which Keras' velocity holds and the neutral momentum does not.
            rule: the optimizer's class.
        """
        found: dict[str, Mapping[str, np.ndarray]] = {}
        for key, row in zip(self.ids, self.rows, strict=False):
            makers = {name: _reader(read, stored, _scale(name, rule, rate)) for name, stored in row.items()}
            if makers or self.steps:  # a schedule goes on from there, whatever the rule keeps
                makers["step"] = lambda: np.asarray(float(self.steps))
            if makers:
                found[key] = Lazily(makers)
        return found


def _scale(slot: str, rule: str, rate: float) -> float:
    return 1 / rate if slot == "momentum" and canonical(rule) == "SGD" and rate else 1.0


def _reader(read: Callable[[Stored], np.ndarray], stored: Stored, scale: float) -> Callable[[], np.ndarray]:
    def value() -> np.ndarray:
        array = read(stored)
        with np.errstate(all="ignore"):  # of a damaged file
            return array if scale == 1 else (array * scale).astype(array.dtype)

    return value


def inner(optimizer: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], bool]:
    """Class and settings of the optimizer that steps, and whether another one scales the loss around it."""
    name, config = str(optimizer.get("class_name", "")), optimizer.get("config")
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    within = settings.get("inner_optimizer", settings.get("optimizer"))
    if "LossScale" in name and isinstance(within, Mapping) and within.get("class_name"):
        found, own, _ = inner(within)
        return found, own, True
    return name, settings, False


def saved_state(file: KerasFile, network: Network) -> SavedState:
    """The state that a file's optimizer is in.

    Args:
        file: the facts of the file.
        network: as lifted from it.
    """
    optimizer = (file.training_config or {}).get("optimizer")
    if not isinstance(optimizer, Mapping) or not file.slots:
        return SavedState()
    name, config, _ = inner(optimizer)
    ids, weights = _trained(file, network)
    originals = [_parts(weight) for weight in weights]
    flat = [part for parts in originals for part in parts]
    found = slots_of(
        file.slots,
        name,
        config,
        [Variable(part.name, part.shape) for part in flat],
        modern=file.era == 3,
    )
    known = bool(found.rows) and len(found.rows) == len(flat)
    rows = _relaid(found, weights, originals) if known else ()
    steps = int(file.read(found.steps)) if found.steps is not None else 0
    every = config.get("gradient_accumulation_steps")
    if isinstance(every, int) and every > 1:
        steps //= every
    scalars = dict(found.scalars) if found.steps is None else {"steps": found.steps, **found.scalars}
    notes: list[str] = []
    if found.steps is None:
        notes.append("the file does not hold how many updates were done")
    left = len(found.unknown) or (0 if known else sum(len(row) for row in found.rows))
    if left:
        word = "array" if left == 1 else "arrays"
        notes.append(f"{left} {word} of the optimizer {name} could not be told apart by parameter")
    return SavedState(tuple(ids), rows, scalars, steps, tuple(notes))


def with_state(recipe: Recipe, file: KerasFile, network: Network) -> Recipe:
    """A file's recipe with the state that its optimizer is in: steps done, and slots that are read when asked for."""
    rule = recipe.optimizer
    if rule is None:
        return recipe
    state = saved_state(file, network)
    name, _, _ = inner((file.training_config or {})["optimizer"])
    slots = state.slots(file.read, recipe.learning_rate.first, name)
    return replace(recipe, slots=slots, steps_done=state.steps, notes=(*recipe.notes, *state.notes))


def _trained(file: KerasFile, network: Network) -> tuple[list[str], list[Stored]]:
    """The trained parameters and their arrays, in the order of the model's layers."""
    arrays = {stored.name: stored for listed in file.weights.values() for stored in listed}
    paths = {id_: layer.origin for layer in network.layers for id_ in layer.params.values()}
    order = {path: i for i, path in enumerate(_leaves(file))}
    chosen = [p for p in network.params.values() if p.trainable and p.source in arrays and paths.get(p.id, "") in order]
    chosen.sort(key=lambda param: order[paths[param.id]])
    return [param.id for param in chosen], [arrays[param.source] for param in chosen]


def _leaves(file: KerasFile) -> Iterator[str]:
    """Paths of the leaves in the order of the layers, which is not that of the calls."""
    if not is_model(file.model_config):
        return
    stored = list(file.weights) if file.format == "hdf5" else []
    seen: set[str] = set()

    def walk(entry: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for layer in layers_of(entry):
            path = f"{prefix}{name_of(layer)}"
            if is_model(layer):
                yield from walk(layer, f"{path}/")
            elif path not in seen:
                seen.add(path)
                yield path

    yield from walk(with_names(file.model_config, stored), "")


def _parts(weight: Stored) -> list[Stored]:
    """The arrays of the file that a weight is made of."""
    return [part for piece in weight.parts for part in _parts(piece)] if weight.parts else [weight]


def _relaid(
    found: Slots, weights: Sequence[Stored], originals: Sequence[Sequence[Stored]]
) -> tuple[Mapping[str, Stored], ...]:
    """Slots made of the file's as the weights are made of the file's: a flipped kernel has a flipped velocity."""
    rows: list[Mapping[str, Stored]] = []
    at = 0
    for weight, parts in zip(weights, originals, strict=True):
        held = found.rows[at : at + len(parts)]
        at += len(parts)
        names = [name for name in held[0] if all(name in row for row in held)] if held else []
        rows.append({name: _instead(weight, iter([row[name] for row in held])) for name in names})
    return tuple(rows)


def _instead(weight: Stored, slots: Iterator[Stored]) -> Stored:
    """A weight with other arrays in the place of the file's."""
    if not weight.parts:
        return next(slots)
    return replace(weight, parts=tuple(_instead(part, slots) for part in weight.parts))
