"""Changes of the Keras graph: layers put in, taken out, moved and wired as the reference has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.changes import Change
from parity.differences import follows
from parity.layers import BatchNorm, Concat, Conv, ConvTranspose, Dense, Kind, Loss, Merge, Pool, Scale
from parity.rules.making import layer_of
from parity.rules.places import path
from parity.rules.repairs import cells, cropped, trained_alike
from parity.splits import Split
from parity.units import Unit

__all__ = ["apart", "instead", "missing", "moved", "reordered", "surplus"]


def surplus(run: Comparison, unit: Unit) -> tuple[Change, ...]:
    """Takes out what only Keras has."""
    names = dict.fromkeys(
        path(run, unit) if len(unit.layers) == 1 else (run.keras.network[layer].origin or layer)
        for layer in unit.layers
    )
    return tuple(Change("remove", name) for name in names)


def missing(run: Comparison, unit: Unit) -> tuple[Change, ...]:
    """The layer that only the reference has, put where it stands there; with its weights, where Keras keeps its own."""
    kind, graft = unit.kind, _Graft(run, unit)
    made = layer_of(_flattened(run, unit, graft))
    joins = isinstance(kind, Merge | Concat)
    feeders = graft.feeders
    if made is None or not feeders or not all(feeders) or (len(feeders) > 1) != joins:
        return ()
    config = {**made["config"], "name": graft.called}
    values = {"class_name": made["class_name"], "config": config, **({"inputs": feeders} if joins else {})}
    where, how = graft.place
    rewired = list(graft.rewired()) if how == "aside" else []
    if not all(rewired):
        return ()
    insert = Change("insert", where, {**values, **({how: True} if how else {})})
    changes = [insert, *(change for change in rewired if change)]
    if isinstance(kind, Conv | Pool) and any(kind.pad or ()):
        changes += _padding(unit, kind, graft.name)
    elif isinstance(kind, ConvTranspose):
        changes += cropped(graft.name, kind)
    return (*changes, *trained_alike(run, unit, graft.name), *(_values(run, unit, graft.name) if run.own else ()))


def apart(run: Comparison, split: Split) -> tuple[Change, ...]:
    """Two convolutions with what is between them, in the place of the layer that Keras has for the two."""
    made = [missing(run, unit) for unit in split.parts]
    if not all(made):
        return ()
    (insert, *rest), *others = made
    values = {key: insert.values[key] for key in ("class_name", "config")}
    first = Change("insert", path(run, split.one), {**values, "before": True})
    held = (change for change in rest if change.action != "rewire")
    return (first, *held, *(change for part in others for change in part), *surplus(run, split.one))


def _padding(unit: Unit, kind: Conv | Pool, name: str) -> tuple[Change, ...]:
    """Keras' word where it means the reference's cells, which an average leaves out of its count then; else the cells.

    Of a convolution with a stride the word depends on the map's size, and the cells do not.
    """
    dense = isinstance(kind, Pool) or all(step == 1 for step in kind.stride)
    if dense and follows(unit, "same"):
        return (Change("argument", name, {"padding": "same"}),)
    return cells(name, kind.pad)


def _flattened(run: Comparison, unit: Unit, graft: _Graft) -> Kind:
    """A convolution that covers its map is a dense layer where Keras has flattened it before."""
    kind = unit.kind
    if isinstance(kind, Conv) and unit.fed is not None and tuple(unit.fed[:-1]) == tuple(kind.size):
        pair = run.alignment.by_ref.get(run.alignment.source(unit.inputs[0], "ref"))
        if pair is not None and pair.keras.shape is not None and len(pair.keras.shape) == 1:
            return Dense(kind.filters, kind.bias)
    return kind


@dataclass(frozen=True, eq=False)
class _Graft:
    """Where a layer of the reference that has no partner belongs in the Keras graph."""

    run: Comparison
    unit: Unit

    @cached_property
    def called(self) -> str:
        """The new layer's own name, which no Keras layer has."""
        name = "".join(c if c.isalnum() else "_" for c in self.unit.name)
        taken = {(layer.origin or layer.name).split("/")[-1] for layer in self.run.keras.network}
        return f"{name}_ref" if name in taken else name

    @cached_property
    def feeders(self) -> list[str]:
        """The Keras layers (or inputs) that make what it reads, new ones among them; empty for what nothing makes."""
        return [_feeder(self.run, tensor) for tensor in self.run.ref.network.data(self.unit.inputs)]

    @property
    def name(self) -> str:
        """The new layer's path."""
        return "/".join([*self.place[0].split("/")[:-1], self.called])

    @cached_property
    def place(self) -> tuple[str, str]:
        """The Keras layer next to which it goes, and how: behind it (""), "before" it, or "aside".

        Aside where others read what it reads without it. Before the activation that is fused into the layer that it
        reads, where the reference has it between the two.
        """
        if len(self.feeders) > 1:
            return self._joining()
        alone = [other for other in _readers(self.run, self._read[0]) if other is not self.unit]
        if alone and any(not isinstance(r.kind, Loss) for r in _readers(self.run, self.unit.output)):
            return self.feeders[0], "aside"
        fused = f"{self.feeders[0]}:activation"
        if any(path(self.run, pair.keras) == fused for pair in self._behind):
            return fused, "before"
        return self.feeders[0], ""

    @property
    def _read(self) -> list[str]:
        return [_made_by(self.run, tensor) for tensor in self.run.ref.network.data(self.unit.inputs)]

    @property
    def _behind(self) -> list[Pair]:
        """The pairs that read what it makes, through others without a partner."""
        found, waiting, seen = [], [self.unit.output], set()
        while waiting:
            tensor = waiting.pop()
            for reader in _readers(self.run, tensor):
                pair = self.run.alignment.by_ref.get(reader.output)
                if pair is not None:
                    found.append(pair)
                elif reader.output not in seen:
                    seen.add(reader.output)
                    waiting.append(reader.output)
        return found

    def _joining(self) -> tuple[str, str]:
        """A join stands behind what Keras lets the layers behind it read instead; where others read that, aside."""
        alignment = self.run.alignment
        for pair in self._behind:
            for tensor in self.run.keras.network.data(pair.keras.inputs):
                instead = alignment.counterpart(tensor)
                for feeder, read in zip(self.feeders, self._read, strict=True):
                    if alignment.source(read, "ref") == instead:
                        others = [r for r in _readers(self.run, read) if r is not self.unit]
                        return feeder, "aside" if others else ""
        return self.feeders[0], "aside"

    def rewired(self) -> Iterator[Change | None]:
        """What lets those read it that do in the reference; None for one that cannot be told to."""
        for reader in _readers(self.run, self.unit.output):
            pair = self.run.alignment.by_ref.get(reader.output)
            if pair is None:
                continue  # a new layer, or one without effect: it says itself what it reads
            where = path(self.run, pair.keras)
            inputs = [_feeder(self.run, tensor) for tensor in self.run.ref.network.data(reader.inputs)]
            if isinstance(reader.kind, Loss) or where.endswith(":activation") or not all(inputs):
                yield None
            else:
                yield Change("rewire", where, {"inputs": inputs})


def _grafted(run: Comparison, unit: Unit) -> bool:
    """Whether a unit of the reference is one that is put into the Keras model."""
    alone = any(unit is other for other in run.alignment.ref_only)
    return alone and all(unit is not mine for mine, _ in run.alignment.moved) and layer_of(unit.kind) is not None


def _made_by(run: Comparison, tensor: str) -> str:
    """The nearest tensor at or above one of the reference's that a pair, a new layer or an input makes."""
    makers, alignment = run.alignment.ref_makers, run.alignment
    seen: set[str] = set()
    while tensor in makers and tensor not in alignment.by_ref and tensor not in seen:
        seen.add(tensor)
        unit = makers[tensor]
        if _grafted(run, unit) or not unit.inputs:
            break
        tensor = unit.inputs[0]
    return tensor


def _readers(run: Comparison, tensor: str) -> list[Unit]:
    """The units of the reference that read a tensor, looked at through those without effect."""
    known = [u for u in run.alignment.ref_units if u.output in run.alignment.by_ref or _grafted(run, u)]
    return [unit for unit in known if any(_made_by(run, read) == tensor for read in run.ref.network.data(unit.inputs))]


def _feeder(run: Comparison, tensor: str) -> str:
    """The path of the Keras layer (or input), new ones among them, that makes what a tensor of the reference holds."""
    made = _made_by(run, tensor)
    pair = run.alignment.by_ref.get(made)
    if pair is not None:
        return path(run, pair.keras).removesuffix(":activation")
    unit = run.alignment.ref_makers.get(made)
    if unit is not None:
        return _Graft(run, unit).name if _grafted(run, unit) and all(_Graft(run, unit).feeders) else ""
    return {mine: theirs for theirs, mine in run.alignment.inputs.items()}.get(made, "")


# What is there already ------------------------------------------------------------------------------------------------


def moved(run: Comparison, unit: Unit, other: Unit) -> tuple[Change, ...]:
    """Moves a Keras layer to where the reference has its like."""
    feeders = _Graft(run, unit).feeders
    if len(feeders) != 1 or not feeders[0]:
        return ()
    where, how = _Graft(run, unit).place
    if any(unit.inputs[0] in each.inputs for each in run.alignment.ref_units if each is not unit):
        return _between(run, unit, other)
    if how != "before":
        return (Change("rewire", path(run, other), {"behind": where}),)
    made = layer_of(unit.kind)
    if made is None or unit.params:
        return ()
    return (Change("remove", path(run, other)), Change("insert", where, {**made, "before": True}))


def _between(run: Comparison, unit: Unit, other: Unit) -> tuple[Change, ...]:
    """Moves a Keras layer into one of several branches: it and all that read it, on either side, are told what to."""
    alignment, own = run.alignment, path(run, other)
    keras = {pair for pair in alignment.pairs if other.output in run.keras.network.data(pair.keras.inputs)}
    ref = {pair for pair in alignment.pairs if unit.output in run.ref.network.data(pair.ref.inputs)}
    made: list[Change] = [Change("rewire", own, {"inputs": _Graft(run, unit).feeders})]
    for pair in alignment.pairs:
        if pair not in keras | ref:
            continue
        where = path(run, pair.keras)
        read = run.ref.network.data(pair.ref.inputs)
        inputs = [own if tensor == unit.output else _feeder(run, tensor) for tensor in read]
        if isinstance(pair.ref.kind, Loss) or not all(inputs) or ":" in where:
            return ()
        made.append(Change("rewire", where, {"inputs": inputs}))
    return () if ":" in own else tuple(made)


def reordered(run: Comparison, pair: Pair) -> tuple[Change, ...]:
    """Lets a layer read the partners of what its own partner reads, in that order."""
    inputs = [_feeder(run, tensor) for tensor in run.ref.network.data(pair.ref.inputs)]
    where = path(run, pair.keras)
    if not all(inputs) or ":" in where:
        return ()
    if len(set(inputs)) < len(inputs):  # a layer that is called several times has one name for all that it makes
        present = [run.alignment.counterpart(tensor) for tensor in run.keras.network.data(pair.keras.inputs)]
        wanted = [run.alignment.source(tensor, "ref") for tensor in run.ref.network.data(pair.ref.inputs)]
        if len(set(wanted)) < len(wanted) or set(present) != set(wanted) or len(present) != len(wanted):
            return ()
        return (Change("rewire", where, {"order": [present.index(tensor) for tensor in wanted]}),)
    return (Change("rewire", where, {"inputs": inputs}),)


def instead(run: Comparison, pair: Pair) -> tuple[Change, ...]:
    """The layer that the reference has, in the place of the operations that write it out."""
    made = layer_of(pair.ref.kind)
    feeders = [_feeder(run, tensor) for tensor in run.ref.network.data(pair.ref.inputs)]
    if made is None or len(feeders) != 1 or not all(feeders):
        return ()
    where = path(run, pair.keras)
    return (Change("replace", where, made), Change("rewire", where, {"inputs": feeders}))


# Weights of new layers ------------------------------------------------------------------------------------------------


def _values(run: Comparison, unit: Unit, name: str) -> Iterator[Change]:
    """The reference's values for the parameters of a layer that is new in a model that keeps its own weights."""
    kind, values = unit.kind, run.ref.params()
    for role, ids in unit.params.items():
        pieces = [values[key] for key in ids if key in values]
        if not pieces:
            continue
        value = np.concatenate(pieces, axis=-1) if len(pieces) > 1 else np.asarray(pieces[0])
        if role == "deviation" and isinstance(kind, BatchNorm):
            role, value = "variance", np.square(value, dtype=np.float64) - kind.epsilon
        if isinstance(kind, Scale) and role == "gamma":
            value = value.reshape(1, 1, -1, 1)
        elif value.ndim != 4:
            value = np.ravel(value)
        yield Change("weights", name, {"role": role, "value": np.asarray(value, np.float32)})
