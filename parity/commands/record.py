"""`parity record`: one side, run and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from parity.commands.selection import Backend, Engine, Mode, RefVersion
from parity.errors import BadUsage

__all__ = ["record"]


def record(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the trace.")],
    ref: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="A reference to record: a MatConvNet .mat (or a Keras) file.")
    ] = None,
    keras: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="A Keras model to record; with --ref it takes that one's weights first."),
    ] = None,
    batch: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Images and labels: an .npz, an imdb.mat, or another trace's."),
    ] = None,
    tensors: Annotated[
        str, typer.Option(metavar="WHAT", help="Keep tensors whole (all), a sample, or statistics alone (stats).")
    ] = "all",
    mode: Annotated[Mode, typer.Option(help="Run it as in training or as in evaluation.")] = Mode.train,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Updates to record (in train mode).")] = 3,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the probe batch and of dropout.")] = 0,
    custom_objects: Annotated[
        Optional[Path], typer.Option(metavar="FILE.py", help="Python file with the model's custom classes; it is run.")
    ] = None,
    ref_recipe: Annotated[
        Optional[Path], typer.Option(metavar="FILE.toml", help="What the .mat does not say of its training.")
    ] = None,
    ref_version: Annotated[
        Optional[RefVersion], typer.Option(help="Whose raw loss is told: sums (beta25) or means (head).")
    ] = None,
    keras_engine: Annotated[Engine, typer.Option(help="Which Keras runs the model.")] = Engine.auto,
    keras_arch: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="For weights alone: model.json, or module.py:build.")
    ] = None,
    backend: Annotated[Optional[Backend], typer.Option(help="What Keras 3 runs on.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let code that comes with a model file run.")] = False,
) -> int:
    """Run one side and write every activation, gradient and update into one file, to be compared later."""
    from parity.reports.output import progress_on, show

    if ref is None and keras is None:
        raise BadUsage("there is nothing to record: name a file with --ref or --keras")
    from parity.traces.capture import record as capture
    from parity.traces.format import TENSORS
    from parity.traces.reader import Trace
    from parity.traces.recording import forward_alone
    from parity.unopened import Opening

    if tensors not in TENSORS:
        raise BadUsage(f"--tensors is one of {', '.join(TENSORS)}, not {tensors!r}")
    how = Opening(
        custom_objects=None if custom_objects is None else str(custom_objects),
        engine=keras_engine.value,
        backend=backend.value if backend else "",
        arch=keras_arch,
        trust=trust,
        ref_recipe=None if ref_recipe is None else str(ref_recipe),
        ref_version=ref_version.value if ref_version else "",
    )
    with progress_on() as progress:
        capture(
            output, ref=ref, keras=keras, batch=batch, mode=mode.value, steps=steps, seed=seed, tensors=tensors,
            how=how, progress=progress or (lambda *_: None), option="--output",
        )  # fmt: skip
    with Trace(output, verify=False) as trace:
        why = forward_alone(trace.network) if trace.mode == "train" else ""
        show(_told(output, trace.network.name, trace.steps, tensors) + (f"\n{why}" if why else ""))
    return 0


def _told(output: Path, name: str, steps: int, tensors: str) -> str:
    size = output.stat().st_size
    many = next(
        (f"{size / unit:.1f} {word}" for unit, word in ((1 << 30, "GiB"), (1 << 20, "MiB")) if size >= unit), ""
    )
    what = {"all": "every tensor", "sample": "a sample of every tensor", "stats": "statistics of every tensor"}[tensors]
    updates = f", {steps} update{'s' if steps != 1 else ''}" if steps else ""
    return f"wrote {output} ({many or f'{size / 1024:.0f} KiB'})\n{what} of {name}{updates}"
