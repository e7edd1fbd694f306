"""Two recorded runs as the sides of a comparison, up to their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.align import Map, align
from parity.batch import Batch
from parity.case import Comparison, Data
from parity.feeds import Side, data_inputs, inputs_for, matched_inputs, only_fed, only_recorded, targets_for
from parity.network import Network
from parity.runner import Targets
from parity.stretches import Tensor, same
from parity.structure import compare_inputs, compare_labels, compare_structure, compare_weights
from parity.tensors import named
from parity.traces.assembled import Assembled
from parity.traces.folders import Few, First
from parity.traces.reader import Trace
from parity.transfer import Joined, Link, links

__all__ = ["READ", "Laid", "Recorded", "begun_traces"]

Array = np.ndarray

READ = 1 << 22
"""Elements of the largest array that rules look into: they hold it whole, several times over."""


class Recorded:
    """A trace in the part that rules and reports want of a runner: who it is, not what it runs."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.network, self.recipe = trace.network, trace.recipe
        self.remarks = [str(r) for r in trace.info.get("remarks", [])]

    @property
    def engine(self) -> Mapping[str, Any]:
        """What executed the model when it was recorded."""
        return {**self.trace.engine, "recorded": f"parity {self.trace.header.parity}"}

    def params(self) -> Mapping[str, Array]:
        """Param id → its value before the first step, read when asked for; very large ones are left out."""
        return Few(self.trace, "weights/0", READ)


class Laid(Mapping[str, Tensor]):
    """Keras id → a recorded array of the reference's parameter in the Keras layout, not read where that need not be.

    Args:
        all_links: how parameters correspond.
        ref: the reference's trace.
        group: `weights/0`, `step1/param_grads`.
        keras: the Keras network, whose shapes the arrays get.
    """

    def __init__(self, all_links: tuple[Link, ...], ref: Trace, group: str, keras: Network) -> None:
        self.held, self.keras = ref.unread(group), keras
        self.links = {
            link.keras: link
            for link in all_links
            if link.to_keras is not None and link.keras and all(key in self.held for key in link.ref)
        }

    def __getitem__(self, key: str) -> Tensor:
        link = self.links[key]
        if link.plain:
            return replace(self.held[link.ref[0]], shape=tuple(self.keras.params[key].shape))
        if isinstance(link.to_keras, Joined):
            return Assembled(link.to_keras, {name: self.held[name] for name in link.ref})
        assert link.to_keras is not None
        return link.to_keras({name: self.held[name].value() for name in link.ref})

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)

    def __contains__(self, key: object) -> bool:
        return key in self.links


def begun_traces(
    ref: Trace, keras: Trace, *, mode: str = "train", mapping: Map | None = None, batch: Batch | None = None
) -> Comparison:
    """The comparison of two recorded runs up to their weights.

    Args:
        ref: the reference's trace.
        keras: the Keras side's.
        mode: `"train"` or `"eval"`: what both were recorded in.
        mapping: pairs that the user fixes.
        batch: what the user says that both were fed; None believes the traces.

    Raises:
        CannotCompare: another mode or batch than recorded, or nothing in common.
    """
    for trace in (ref, keras):
        only_recorded(trace.path, trace.mode, mode)
    if batch is not None:
        partners = matched_inputs(data_inputs(ref.network), data_inputs(keras.network))
        turned = {mine: theirs for theirs, mine in partners.items()}
        _check_batch(ref, Side("ref", "the reference"), batch, keras.network, turned)
        _check_batch(keras, Side("keras", "the Keras model"), batch, ref.network, partners)
    sides = Recorded(ref), Recorded(keras)
    labelled = bool(ref.names("labels"))
    alignment = align(sides[0].network, sides[1].network, mode, mapping, labelled=labelled)
    found = links(alignment)
    images = First(ref, "inputs", READ), First(keras, "inputs", READ)
    data = Data(*images, _targets(ref), _targets(keras))
    run = Comparison(
        sides[0], sides[1], data, mode, True, alignment, found, named(alignment, found), old_values=sides[1].params()  # type: ignore[arg-type]
    )  # fmt: skip
    run.probes += compare_inputs(alignment, ref.unread("inputs"), keras.unread("inputs"))
    if labelled and keras.names("labels"):
        run.probes += compare_labels(alignment, ref.unread("labels"), keras.unread("labels"))
    run.probes += compare_structure(alignment, found, ref.unread("weights/0"), training=bool(ref.steps and keras.steps))
    expected = Laid(found, ref, "weights/0", keras.network)
    run.probes += compare_weights(found, expected, keras.unread("weights/0"), own=True)
    return run


def _targets(trace: Trace) -> Targets | None:
    """The labels, of which very large ones are not all read."""
    labels = First(trace, "labels", READ)
    return Targets(labels, First(trace, "label_weights", READ)) if len(labels) else None


def _check_batch(trace: Trace, side: Side, batch: Batch, other: Network, partners: Mapping[str, str]) -> None:
    """Raise CannotCompare where a side was recorded on another batch than this."""
    feeds = inputs_for(batch, side, data_inputs(trace.network), partners, channels_first=True)
    labels = targets_for(batch, side, trace.network, other)[0]

    def alike() -> bool:
        held = trace.unread("inputs")
        return all(n in feeds and feeds[n].shape == own.shape and same(feeds[n], own) for n, own in held.items())

    only_fed(trace.path, labels, trace.labels, alike)
