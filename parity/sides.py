"""The two sides of a comparison, from paths or live objects to runners, and the batch that both take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.align import align
from parity.batch import Batch
from parity.carried import carried
from parity.case import Data
from parity.errors import CannotCompare
from parity.feeds import data_inputs, inputs_for, matched_inputs, only_fed, only_recorded, targets_for
from parity.interrupts import heeded
from parity.joined import joined
from parity.network import Network
from parity.probes import open_extents, probe_inputs, with_targets
from parity.runner import Runner, Targets
from parity.unopened import KERAS, REF, Opening, Unopened

if TYPE_CHECKING:
    pass

__all__ = ["Sides", "open_one", "open_sides"]


@dataclass(frozen=True, eq=False)
class Sides:
    """Both sides, ready to be compared.

    Attributes:
        ref, keras: the runners.
        data: the batch as each takes it.
        batch: the batch itself.
        notes: what a reader should know of how they were opened.
    """

    ref: Runner
    keras: Runner
    data: Data
    batch: Batch
    notes: tuple[str, ...] = ()


@heeded()  # this is where frameworks are imported
def open_sides(ref: Any, keras: Any, given: Batch | None, how: Opening, seed: int, mode: str) -> Sides:
    """Both runners, and the batch as each takes it.

    Args:
        ref: path, Keras model or runner of the reference.
        keras: the same of the Keras side.
        given: the batch; None makes a seeded one of the shapes that the files name.
        how: files are opened.
        seed: of the probe batch.
        mode: `"train"` or `"eval"`.

    Raises:
        ParityError: a file cannot be read, or the batch does not fit it.
    """
    if ref is keras and hasattr(ref, "get_config"):
        from parity.frameworks.keras.live import copied

        ref = copied(keras)  # two runners must not step the same weights
    if how.backend:
        from parity.frameworks.keras.choice import use_backend

        use_backend(how.backend)
    mine, theirs = Unopened(ref, REF, how), Unopened(keras, KERAS, how)
    theirs.take_inputs_of(mine)
    if theirs.framework == "trace":
        raise CannotCompare(f"{theirs.path}: layers of a recorded Keras model cannot be run alone; name the model")
    given = _as_recorded(given, mine, mode)
    keras_to_ref = matched_inputs(mine.inputs, theirs.inputs)
    ref_to_keras = {b: a for a, b in keras_to_ref.items()}
    rng = np.random.default_rng(seed)
    generated = given is None
    if given is None:
        given = probe_inputs(mine.network, _shapes(mine, theirs, ref_to_keras), rng, mine.vocabularies)
        given = replace(given, source=f"a probe batch (seed {seed})")
    said: list[str] = []
    feeds_ref = inputs_for(given, REF, mine.inputs, ref_to_keras, channels_first=mine.channels_first, notes=said)
    feeds_keras = inputs_for(
        given, KERAS, theirs.inputs, keras_to_ref, channels_first=theirs.channels_first, notes=said
    )
    ref_runner, keras_runner = (carried(joined(r)) for r in (mine.open(feeds_ref), theirs.open(feeds_keras)))
    notes = [*_adopted(ref_runner, keras_runner), *said]
    networks = ref_runner.network, keras_runner.network
    partners = _paired_losses(*networks, mode)
    if generated:
        told = dict(zip((u.name for u in networks[0].losses), (v.name for v in networks[1].losses), strict=False))
        kinds = {mine: networks[1][theirs].kind for mine, theirs in (partners or told).items()}
        given = with_targets(given, networks[0] if networks[0].losses else networks[1], rng, kinds)
    labels_ref, remarks_ref = targets_for(given, REF, *networks, partners)
    _check_recorded(
        mine, feeds_ref, labels_ref, ref_to_keras, lambda own: targets_for(own, REF, *networks, partners)[0]
    )
    turned = None if partners is None else {theirs: mine for mine, theirs in partners.items()}
    labels_keras, remarks_keras = targets_for(given, KERAS, networks[1], networks[0], turned)
    if mode == "train" and labels_ref is None and networks[0].losses:
        notes.append("The batch has no labels: loss, backward and update could not be compared.")
    data = Data(
        ref=_named(feeds_ref, networks[0]),
        keras=_named(feeds_keras, networks[1]),
        labels_ref=labels_ref,
        labels_keras=labels_keras,
    )
    notes += [*given.notes, *remarks_ref, *remarks_keras]
    return Sides(ref_runner, keras_runner, data, given, tuple(dict.fromkeys(notes)))


@heeded()
def open_one(
    given: Any, key: str, batch: Batch | None, how: Opening, seed: int, mode: str, lender: Network | None = None
) -> tuple[Runner, Mapping[str, np.ndarray], Targets | None, Batch, tuple[str, ...]]:
    """One side alone, to be recorded: its runner, the batch as it takes it, the batch itself, and remarks.

    Args:
        given: path, Keras model or runner.
        key: `"ref"` or `"keras"`: which side it will be.
        batch: None makes a seeded one.
        how: files are opened.
        seed: of the probe batch.
        mode: `"train"` or `"eval"`.
        lender: the network of the trace that the batch is from, whose names its arrays bear.

    Raises:
        ParityError: a file cannot be read, or the batch does not fit it.
    """
    side = REF if key == "ref" else KERAS
    if how.backend:
        from parity.frameworks.keras.choice import use_backend

        use_backend(how.backend)
    mine = Unopened(given, side, how)
    used, rng = _as_recorded(batch, mine, mode), np.random.default_rng(seed)
    generated = used is None
    if used is None:
        used = probe_inputs(
            mine.network, _shapes(mine, mine, {name: name for name in mine.inputs}), rng, mine.vocabularies
        )
        used = replace(used, source=f"a probe batch (seed {seed})")
    said: list[str] = []
    partners = {} if lender is None else matched_inputs(data_inputs(lender), mine.inputs)
    feeds = inputs_for(used, side, mine.inputs, partners, channels_first=mine.channels_first, notes=said)
    runner = carried(joined(mine.open(feeds)))
    if generated:
        used = with_targets(used, runner.network, rng)
    network = runner.network
    labels, remarks = targets_for(used, side, network, lender or network)
    _check_recorded(mine, feeds, labels, {}, lambda own: targets_for(own, side, network, network)[0])
    return runner, _named(feeds, network), labels, used, (*used.notes, *said, *remarks)


def _as_recorded(given: Batch | None, side: Unopened, mode: str) -> Batch | None:
    """The batch that is given; or the one that a side was recorded with, where it is a recording."""
    recorded = side.recorded
    if recorded is None:
        return given
    batch, recorded_mode = recorded
    only_recorded(side.path, recorded_mode, mode)
    return batch if given is None else given


def _check_recorded(
    side: Unopened,
    feeds: Mapping[str, np.ndarray],
    labels: Targets | None,
    partners: Mapping[str, str],
    told: Callable[[Batch], Targets | None],
) -> None:
    """Raise CannotCompare where a recorded side is fed, or held against, another batch than its own."""
    if side.recorded is None:
        return
    batch = side.recorded[0]
    own = inputs_for(batch, side.side, side.inputs, partners, channels_first=side.channels_first)
    only_fed(side.path, labels, told(batch), lambda: all(np.array_equal(feeds[name], own[name]) for name in feeds))


def _shapes(mine: Unopened, theirs: Unopened, partners: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Input → shape of what is generated: every input of the reference, then what only Keras has."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in mine.inputs.items():
        own = open_extents(shape or None) or open_extents(theirs.inputs.get(partners.get(name, "")) or None)
        if own is None:
            raise CannotCompare(
                "neither file says how large its input is, so no probe batch can be made; give images with --batch"
            )
        shapes[name] = own
    for name in theirs.inputs:
        own = open_extents(theirs.inputs[name] or None)
        if own is not None and name not in partners.values():
            shapes[name] = own
    return shapes


def _paired_losses(ref: Network, keras: Network, mode: str) -> dict[str, str] | None:
    """The reference's loss → the Keras one, where each side has several; None where order is as good."""
    if len(ref.losses) < 2 or len(keras.losses) < 2:
        return None
    pairs = align(ref, keras, mode).pairs
    return {p.ref.layers[-1]: p.keras.layers[-1] for p in pairs if p.ref.core == "Loss"}


def _named(feeds: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """The arrays by the names that the opened network has for its inputs."""
    own = network.data(network.inputs)
    if set(own) == set(feeds) or len(own) != len(feeds):
        return dict(feeds)
    return dict(zip(own, feeds.values(), strict=True))


def _adopted(ref: Runner, keras: Runner) -> list[str]:
    """A Keras model that is not compiled takes the other side's loss and recipe; and the report says so."""
    notes: list[str] = []
    if ref.network.losses and ref.recipe.optimizer is None and keras.recipe.optimizer is not None:
        take = getattr(ref, "adopt", None)  # a file of Keras may hold the loss alone
        if take is not None:
            take(keras.recipe, whose="the Keras model", donor=keras)
            notes.append(
                "The reference's file does not say which optimizer trained it: it is updated by a translation of the "
                "Keras model's, so nothing is said about that."
            )
    if keras.recipe.optimizer is not None and keras.recipe.loss is not None:
        return notes
    losses = ref.network.losses
    adopt = getattr(keras, "adopt", None)
    if not losses or adopt is None:
        return notes
    adopt(ref.recipe, losses[0].kind, donor=ref)
    notes.append(
        "The Keras model is not compiled: it is compared with the reference's loss and a translation of its recipe, so "
        "nothing is said about its own training."
    )
    return notes
