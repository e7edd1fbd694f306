"""The comparison itself: both sides run, every layer alone and end to end, phase by phase.

Nothing here renders and nothing here names a cause: it makes `Probe`s, and keeps what the rules need for experiments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from parity.activity import added_probes
from parity.align import Alignment, Map, align
from parity.bench import Bench
from parity.case import Comparison, Data
from parity.detail import Album
from parity.feeds import without_ignored
from parity.judge import examine
from parity.layers import BatchNorm, Loss, Opaque
from parity.looks import look_alone, look_at_updates, look_end_to_end
from parity.masks import masks_for_keras, masks_for_ref
from parity.network import STATISTICS
from parity.orders import hidden_orders
from parity.preparation import prepared
from parity.propagation import propagated_distances, propagated_probes
from parity.regions import regrouped
from parity.rehearsal import rehearse
from parity.report import Outcome, Probe
from parity.runner import Pass, Runner, Targets
from parity.structure import compare_inputs, compare_labels, compare_structure, compare_weights
from parity.tensors import named
from parity.transfer import Link, links, transferred
from parity.updates import Course, Move, free_step, isolated_moves

__all__ = ["Slots", "begun", "outcome_of", "run_comparison", "same_labels", "started", "unmoved", "update_probe"]

Array = np.ndarray
Slots = dict[str, dict[str, Array]]


def run_comparison(
    ref: Runner,
    keras: Runner,
    data: Data,
    *,
    mode: str = "train",
    own: bool = False,
    steps: int = 3,
    mapping: Map | None = None,
    limits: tuple[float, float] | None = None,
    details: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Comparison:
    """Compare two runners on one batch.

    Args:
        ref: the reference's runner.
        keras: the Keras runner; the model's weights are changed.
        data: the batch.
        mode: `"train"` (all phases) or `"eval"` (input to loss).
        own: keep the Keras model's own weights.
        steps: training steps in the update phase.
        mapping: pairs that the user fixes.
        limits: (rtol, atol) in place of the measured floors.
        details: keep where and how tensors differ (`Comparison.album`).
        progress: called as progress(what, done, total).

    Raises:
        CannotCompare: nothing of one side has a partner on the other.
    """
    run, slots = begun(ref, keras, data, mode=mode, own=own, mapping=mapping)
    run.album = Album() if details else None
    alignment = run.alignment
    has_loss = alignment.has_loss
    backward = mode == "train" and has_loss
    total = (2 * steps if backward else 2) + len(alignment.pairs) + (1 if backward else 0)
    done = 0

    def tick(what: str) -> None:
        nonlocal done
        progress(what, done, total)
        done += 1

    _run_freely(run, steps if backward else 0, slots, tick)
    seen_ref = run.course.passes[0]
    ref.load(run.course.weights[0])
    keras.load(run.free.weights[0])
    run.bench = Bench(
        ref=ref,
        keras=keras,
        alignment=alignment,
        links=run.links,
        named=run.named,
        observed=seen_ref,
        mode=mode,
        backward=backward,
        labels_ref=data.labels_ref if has_loss else None,
        labels_keras=same_labels(alignment, data) if has_loss else None,
        masks=run.free.passes[0].masks,
        limits=limits,
    )
    for pair in alignment.pairs:
        tick(pair.ref.name)
        trial = run.bench.trial(pair)
        run.verdicts[pair.ref.name] = examine(trial)
        look_alone(run, trial, run.verdicts[pair.ref.name])
    run.probes += added_probes(run)
    run.probes += propagated_probes(run)
    if backward:
        tick("optimizer")
        _updates(run, slots)
    progress("done", total, total)
    return run


def begun(
    ref: Runner, keras: Runner, data: Data, *, mode: str, own: bool = False, mapping: Map | None = None
) -> tuple[Comparison, Slots]:
    """A comparison up to where something runs: partners, input, structure, weights; the weights are loaded.

    Args are those of `run_comparison`.

    Returns:
        The comparison, and the slots to start the Keras optimizer from.
    """
    alignment = align(ref.network, keras.network, mode, mapping, labelled=data.labels_ref is not None)
    alignment, notes = regrouped(alignment, ref, keras, data.ref, mode, own=own)
    alignment, fed, prepares = prepared(alignment, data.ref, data.keras)
    found = links(alignment)
    run = Comparison(ref, keras, data, mode, own, alignment, found, named(alignment, found), keras.params())
    run.notes = (*notes, *prepares)
    slots = started(ref, keras, found)
    values = ref.params()
    run.probes += compare_inputs(alignment, data.ref, fed)
    run.probes += compare_labels(alignment, *_given(data))
    training = mode == "train" and alignment.has_loss
    run.probes += compare_structure(alignment, run.links, values, training=training)
    loaded = transferred(run.links, values)
    if own:
        run.orders = hidden_orders(alignment, found, loaded, run.old_values)
        run.old_values = {**run.old_values, **run.orders.values}
        keras.load(run.orders.values)
    run.probes += compare_weights(run.links, loaded, run.old_values, own=own)
    if not own:
        keras.load(loaded)
    return run, slots


def _given(data: Data) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """The labels of both sides, -1 where a class is weighed with 0; none where one side has none."""
    ref, keras = data.labels_ref, data.labels_keras
    return ({}, {}) if ref is None or keras is None else (_counted(ref), _counted(keras))


def _counted(targets: Targets) -> dict[str, Array]:
    made: dict[str, Array] = {}
    for label, value in targets.values.items():
        weights = targets.weights.get(label)
        alike = weights is not None and value.dtype.kind == "i" and np.shape(weights) == value.shape
        made[label] = np.where(weights == 0, -1, value) if alike else value
    return made


def same_labels(alignment: Alignment, data: Data) -> Targets | None:
    """What a Keras loss is held against when it runs alone: the reference's labels, as it is given its inputs."""
    ref, keras = data.labels_ref, data.labels_keras
    if ref is None or keras is None or not compare_labels(alignment, *_given(data)):
        return keras
    values, weights = dict(keras.values), dict(keras.weights)
    for mine, theirs in alignment.labels.items():
        if mine in ref.values and theirs in keras.values:
            values[theirs] = value = ref.values[mine]
            if value.dtype.kind == "i" and value.min(initial=0) < 0:
                values[theirs], weights[theirs] = without_ignored(value)
    return Targets(values, weights)


def _run_freely(run: Comparison, steps: int, slots: Slots, tick: Callable[[str], None]) -> None:
    """Both sides end to end, step by step; Keras first, since the dropout masks that it draws are the reference's too.

    Where the reference is a recorded run, Keras drops what that run dropped.

    What the first step showed is compared at once, so that the Keras side's tensors can go.
    """
    ref, keras, data = run.ref, run.keras, run.data
    has_loss = run.alignment.has_loss
    wanted = _wanted(run)
    if steps:
        keras.reset(slots)
        ref.reset(ref.recipe.slots or None)
    for step in range(max(1, steps)):
        tick(f"Keras, step {step + 1}")
        given = masks_for_keras(run.alignment, ref, step + 1) if run.mode == "train" else {}
        if steps:
            theirs = free_step(keras, run.free, data.keras, data.labels_keras, masks=given, keep=wanted)
        else:
            labels = data.labels_keras if has_loss else None
            theirs = _look(keras, run.free, data.keras, labels, run.mode, wanted, given)
        tick(f"reference, step {step + 1}")
        masks = masks_for_ref(run.alignment, theirs.masks)
        if steps:
            mine = free_step(ref, run.course, data.ref, data.labels_ref, masks=masks)
        else:
            mine = _look(ref, run.course, data.ref, data.labels_ref if has_loss else None, run.mode, masks=masks)
        if step == 0:
            run.apart = propagated_distances(run, mine, theirs)
            run.outcome = outcome_of(run, mine, theirs)
            look_end_to_end(run, mine, theirs)
            theirs.outputs.clear()
            theirs.output_grads.clear()


def _look(
    runner: Runner,
    course: Course,
    inputs: Mapping[str, Array],
    labels: Targets | None,
    mode: str,
    keep: frozenset[str] | None = None,
    masks: Mapping[str, Array] | None = None,
) -> Pass:
    """One forward pass, without a step."""
    seen = runner.run(inputs, labels, mode=mode, backward=False, masks=masks, keep=keep)
    course.weights.append(runner.params())
    course.passes.append(seen)
    return seen


def _wanted(run: Comparison) -> frozenset[str]:
    """The Keras tensors that are compared: what units read and make, not what passes inside them."""
    pairs = run.alignment.pairs
    outputs = run.keras.network.outputs
    return frozenset([*(t for p in pairs for t in (*p.keras.inputs, p.keras.output)), *outputs])


def started(ref: Runner, keras: Runner, all_links: tuple[Link, ...]) -> Slots:
    """Tell an adopted recipe the reference's factors; the slots to start the Keras optimizer from, by Keras id."""
    translate = getattr(keras, "translate", None)
    if translate is not None:
        translate(_factors(ref, all_links))
    return _slots(ref, all_links)


def _factors(ref: Runner, all_links: tuple[Link, ...]) -> dict[str, tuple[float, float]]:
    """Keras id → the reference's factors on the learning rate and the weight decay, for a recipe that is adopted."""
    params = ref.network.params
    made: dict[str, tuple[float, float]] = {}
    for link in all_links:
        if link.ref and link.keras and link.linear:
            source = params[link.ref[0]]
            made[link.keras] = (source.rate_multiplier, source.decay_multiplier)
    return made


def _slots(ref: Runner, all_links: tuple[Link, ...]) -> Slots:
    """The reference's optimizer slots (a training checkpoint's) by Keras id."""
    made: Slots = {}
    for link in all_links:
        if not (link.linear and link.to_keras is not None and link.ref and link.keras):
            continue
        held = [ref.recipe.slots.get(key) for key in link.ref]
        if any(h is None for h in held):
            continue
        names = set.intersection(*(set(h or {}) for h in held))
        given = {name: {key: (h or {})[name] for key, h in zip(link.ref, held, strict=True)} for name in names}
        # A count of steps is laid out in no axes.
        made[link.keras] = {
            name: next(iter(of.values())) if np.ndim(next(iter(of.values()))) == 0 else link.to_keras(of)
            for name, of in given.items()
        }
    return made


def _updates(run: Comparison, slots: Slots) -> None:
    """The update phase, after everything before it is known."""
    run.moves = isolated_moves(
        run.alignment,
        run.links,
        run.keras,
        run.course,
        run.free,
        slots=slots,
        unmoved=unmoved(run),
        watch=lambda step, reached, moves: look_at_updates(run, step, reached, moves),
    )
    run.rehearsal = rehearse(run.ref, run.keras, run.course.passes[0])
    before = any(p.status in ("born", "unpaired", "inherited") for p in run.probes)
    moved_apart = min((m.step for m in run.moves if m.status == "born"), default=math.inf)
    rehearsal = run.rehearsal if moved_apart == math.inf else None
    unseen = rehearsal is not None and rehearsal.differ(run.ref.recipe, run.keras.recipe)
    for move in sorted(run.moves, key=lambda m: m.step):
        before_it = before or moved_apart <= move.step  # a later step is no cause of this one
        run.probes.append(update_probe(move, before=before_it, unseen=bool(unseen)))


def update_probe(move: Move, *, before: bool, unseen: bool = False) -> Probe:
    """The probe of one parameter's move.

    Args:
        move: of it.
        before: whether a fault came before it that it may have inherited.
        unseen: whether the optimizers differ, where no gradient of this batch shows it.
    """
    status, note = move.status, move.note
    travelled = move.propagated
    far = travelled is not None and travelled.relative > 1e-4 and travelled.rms > move.floor
    if status == "match" and far and before:
        status = "inherited"
    if unseen and status == "match" and move.link.learned:
        status, note = "masked", "the optimizers differ, but this batch does not show it"
    pair, apart = move.link.pair, move.propagated or move.isolated
    x_floor = None
    if move.propagated is not None and move.floor > 0:
        x_floor = move.propagated.rms / move.floor
    return Probe(
        layer=pair.ref.name,
        keras_layer=pair.keras.origin,
        phase="update",
        tensor=move.link.role,
        step=move.step,
        shape=move.shape,
        status=status,
        max_abs=apart.max_abs if apart else None,
        rms_rel=apart.relative if apart else None,
        floor=move.floor or None,
        isolated_x_floor=move.x_floor,
        propagated_x_floor=x_floor,
        note=note,
    )


def unmoved(run: Comparison) -> dict[str, str]:
    """Parameter of the reference → why nothing can be said of its update."""
    network, first = run.ref.network, run.course.passes[0]
    code = any(isinstance(n.kind, Opaque) and n.kind.runs_code and n.output not in first.outputs for n in network)
    made: dict[str, str] = {}
    for link in run.links:
        kind = link.pair.ref.kind
        for key in link.ref:
            if isinstance(kind, BatchNorm) and kind.momentum is None and link.role in STATISTICS:
                # Without a rate for them MatConvNet's trainer stops with an index error at the first update.
                made[key] = "the reference's trainer stops here: it has no averaging rate for the moments"
            elif link.learned and (run.ref.recipe.optimizer is None) != (run.keras.recipe.optimizer is None):
                made[key] = "one side has no optimizer, and the other's cannot stand in"
            elif code and network.params[key].trainable and key not in first.param_grads:
                made[key] = "its gradient passes through a layer whose code parity does not have"
    return made


def outcome_of(run: Comparison, ref: Pass, keras: Pass) -> Outcome | None:
    """How many top-1 predictions differ; None where the outputs are not one score vector per image."""
    names = score_names(run, ref, keras)
    mine, theirs = ref.outputs.get(names[0]), keras.outputs.get(names[1])
    if mine is None or theirs is None or mine.size != theirs.size or mine.size // mine.shape[0] != mine.shape[-1]:
        return None
    images = mine.shape[0]
    a, b = mine.reshape(images, -1), theirs.reshape(images, -1)
    if a.shape[1] < 2:
        return None
    top_a, top_b = a.argmax(axis=1), b.argmax(axis=1)

    def right(top: Array, targets: Targets | None, runner: Runner) -> int | None:
        network = runner.network
        labels = targets.values.get(network.label_of(network.losses[0])) if targets and network.losses else None
        if labels is None or labels.size != images or labels.dtype.kind not in "iu":
            return None
        return int(np.count_nonzero(top == labels.reshape(images)))

    return Outcome(
        images=images,
        differ=int(np.count_nonzero(top_a != top_b)),
        ref_correct=right(top_a, run.data.labels_ref, run.ref),
        keras_correct=right(top_b, run.data.labels_keras, run.keras),
    )


def score_names(run: Comparison, ref: Pass, keras: Pass) -> tuple[str, str]:
    """The tensors with both sides' scores per class: what the paired loss reads, else the networks' outputs.

    The logits, not probabilities: float32 makes close logits equal probabilities, and then the first class would win.
    """
    pair = next((p for p in run.alignment.pairs if isinstance(p.ref.kind, Loss)), None)
    if pair is not None:
        mine = next(iter(run.ref.network.data(pair.ref.inputs)), "")
        theirs = next(iter(run.keras.network.data(pair.keras.inputs)), "")
        if mine in ref.outputs and theirs in keras.outputs:
            return mine, theirs
    return "".join(run.ref.network.outputs[:1]), "".join(run.keras.network.outputs[:1])
