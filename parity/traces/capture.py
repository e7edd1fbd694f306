"""From a file (or a live model) to a trace of it: what `parity record` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from parity import batch as batches
from parity.align import align
from parity.errors import BadUsage
from parity.identity import identity, source_file
from parity.lending import lent
from parity.masks import masks_for_ref
from parity.runner import Runner, Targets
from parity.sides import open_one, open_sides
from parity.traces.format import TENSORS, is_trace
from parity.traces.playback import batch_of
from parity.traces.reader import Trace
from parity.traces.recording import record_run
from parity.traces.writer import writing
from parity.transfer import links, transferred
from parity.unopened import Opening

__all__ = ["record"]

Progress = Callable[[str, int, int], None]


@lent
def record(
    output: str | PathLike[str],
    *,
    ref: Any = None,
    keras: Any = None,
    batch: Any = None,
    mode: str = "train",
    steps: int = 3,
    seed: int = 0,
    tensors: str = "all",
    how: Opening | None = None,
    progress: Progress = lambda *_: None,
    option: str = "-o",
) -> Path:
    """Run one side and record every probe of it in one file.

    Args:
        output: where the trace goes; a file that is there is replaced when the new one is whole, and not before.
        ref: the reference to record: a path, a Keras model or a runner.
        keras: the Keras side to record. With `ref` beside it, it takes the reference's weights first, as a comparison
            does, so that its trace can be compared with the reference's.
        batch: as for `parity.compare`; None makes a seeded one. A trace lends its batch, and what its dropout kept.
        mode: `"train"` or `"eval"`.
        steps: updates, in train mode.
        seed: of the probe batch and of dropout.
        tensors: how much of activations and their gradients is kept: `"all"`, `"sample"` or `"stats"`.
        how: files are opened.
        progress: called as progress(what, done, total).
        option: the option that named the output, for messages.

    Returns:
        The path of the trace.

    Raises:
        ParityError: a file cannot be read or run, the options do not go together, or the trace cannot be written.
    """
    import parity
    from parity.reports.output import check_target

    if ref is None and keras is None:
        raise BadUsage("there is nothing to record: name a reference (ref) or a Keras model (keras)")
    if mode not in ("train", "eval"):
        raise BadUsage(f"mode is 'train' or 'eval', not {mode!r}")
    if tensors not in TENSORS:
        raise BadUsage(f"tensors is one of {', '.join(TENSORS)}, not {tensors!r}")
    if steps < 1:
        raise BadUsage(f"steps is at least 1, not {steps}")
    path, how = Path(fspath(output)), how or Opening()
    # A trace may lend its batch to the one that takes its place: it is read before.
    read = [ref, keras, None if is_trace(batch) else batch, how.custom_objects, how.arch, how.ref_recipe]
    check_target(path, option, [source_file(p) for p in read if isinstance(p, str | PathLike)], regular=True)
    progress("reading files", 0, 1)
    lender = Trace(fspath(batch)) if is_trace(batch) else None
    given = batch_of(lender) if lender is not None else batches.load(batch) if batch is not None else None
    slots: Mapping[str, Any] | None = None
    if ref is not None and keras is not None:
        runner, inputs, labels, used, notes, slots = _with_weights(ref, keras, given, how, seed, mode)
    else:
        key = "ref" if keras is None else "keras"
        runner, inputs, labels, used, notes = open_one(
            ref if keras is None else keras, key, given, how, seed, mode, lender.network if lender is not None else None
        )
    source = identity(ref if keras is None else keras)
    facts = {
        "source": source, "batch": identity(batch) or {"source": used.source}, "notes": list(notes),
        "weights": identity(ref) if ref is not None and keras is not None else source,
    }  # fmt: skip
    with writing(path, option, parity.__version__) as sink:
        record_run(
            runner, inputs, labels, sink, mode=mode, steps=steps, seed=seed, tensors=tensors, slots=slots,
            masks=_lent(runner, lender, mode), facts=facts, progress=progress,
        )  # fmt: skip
    return path


def _with_weights(
    ref: Any, keras: Any, given: batches.Batch | None, how: Opening, seed: int, mode: str
) -> tuple[Runner, Mapping[str, Any], Targets | None, batches.Batch, tuple[str, ...], Mapping[str, Any]]:
    """The Keras side with the reference's weights and optimizer slots, as `run_comparison` would start it."""
    from parity.comparison import started

    sides = open_sides(ref, keras, given, how, seed, mode)
    alignment = align(sides.ref.network, sides.keras.network, mode, labelled=sides.data.labels_ref is not None)
    found = links(alignment)
    slots = started(sides.ref, sides.keras, found)
    sides.keras.load(transferred(found, sides.ref.params()))
    return sides.keras, sides.data.keras, sides.data.labels_keras, sides.batch, sides.notes, slots


def _lent(runner: Runner, lender: Trace | None, mode: str) -> Callable[[int], Mapping[str, Any]] | None:
    """What dropout kept in the trace that lent its batch, by the layers of this side; None where it drew nothing."""
    if lender is None or mode != "train" or not lender.seen(1).masks:
        return None
    alignment, passes = align(runner.network, lender.network, mode), len(lender.info["passes"])
    return lambda step: masks_for_ref(alignment, lender.seen(min(step, passes)).masks)
