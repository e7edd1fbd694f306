"""What is compared and how: the options that `compare`, `debug` and their like share, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from parity.errors import BadUsage

__all__ = ["Selection", "with_selection"]


class Mode(str, Enum):
    """How both sides run."""

    train = "train"
    eval = "eval"


class Weights(str, Enum):
    """Whose weights the Keras side gets."""

    ref = "ref"
    own = "own"


class RefVersion(str, Enum):
    """Releases of MatConvNet whose losses have other values."""

    beta25 = "beta25"
    head = "head"


class Engine(str, Enum):
    """Which Keras runs a model."""

    auto = "auto"
    keras3 = "keras3"
    tf_keras = "tf_keras"


class Backend(str, Enum):
    """What Keras 3 runs on."""

    tensorflow = "tensorflow"
    torch = "torch"
    jax = "jax"


@dataclass(frozen=True)
class Selection:
    """The options of a comparison, as the command line has them (`parity.session.check_and_fix` says what they do)."""

    ref: Annotated[
        str, typer.Option(metavar="FILE", help="The reference: a MatConvNet .mat, a Keras file, or a trace.")
    ]
    keras: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The Keras model: .keras, .h5, a SavedModel folder, module.py:build; or a trace."
        ),
    ]
    batch: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Images and labels: an .npz with x and y, or an imdb.mat.")
    ] = None
    mode: Annotated[Mode, typer.Option(help="Run both sides as in training or as in evaluation.")] = Mode.train
    weights: Annotated[
        Weights, typer.Option(help="Load the reference's weights into the Keras model, or leave it its own.")
    ] = Weights.ref
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Updates to compare (in train mode).")] = 3
    map: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Which layer belongs to which, where parity errs.")
    ] = None
    custom_objects: Annotated[
        Optional[Path], typer.Option(metavar="FILE.py", help="Python file with the model's custom classes; it is run.")
    ] = None
    rtol: Annotated[
        Optional[float], typer.Option(metavar="X", help="Judge by this relative tolerance, not by noise; with --atol.")
    ] = None
    atol: Annotated[Optional[float], typer.Option(metavar="X", help="The absolute tolerance; with --rtol.")] = None
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the probe batch and of dropout.")] = 0
    only: Annotated[Optional[str], typer.Option(metavar="GLOB", help="Show and judge only layers whose name fits.")] = (
        None
    )
    allow: Annotated[
        Optional[list[str]],
        typer.Option(metavar="STATUS:GLOB", help="Permit a verdict by name, e.g. unpaired:aug_*; may be repeated."),
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Fail on what differs but does not show here.")] = False
    ref_recipe: Annotated[
        Optional[Path], typer.Option(metavar="FILE.toml", help="What the .mat does not say of its training.")
    ] = None
    ref_version: Annotated[
        Optional[RefVersion], typer.Option(help="Whose raw loss is told: sums (beta25) or means (head).")
    ] = None
    keras_engine: Annotated[Engine, typer.Option(help="Which Keras runs the model.")] = Engine.auto
    keras_arch: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="For weights alone: model.json, or module.py:build.")
    ] = None
    backend: Annotated[Optional[Backend], typer.Option(help="What Keras 3 runs on.")] = None
    trust: Annotated[bool, typer.Option("--trust", help="Let code that comes with a model file run.")] = False

    @property
    def files(self) -> list[Path]:
        """The files that it reads."""
        from parity.identity import source_file

        named = (self.ref, self.keras, self.batch, self.map, self.custom_objects, self.keras_arch, self.ref_recipe)
        return [source_file(p) for p in named if p is not None]

    def keywords(self) -> dict[str, Any]:
        """The same as keywords of `parity.session.check_and_fix`.

        Raises:
            BadUsage: options do not go together, in the command line's words.
        """
        from parity.options import allowance, tolerances

        tolerances(self.rtol, self.atol, dashes="--")
        for item in self.allow or ():
            allowance(item, dashes="--")
        if self.only is not None and not self.only:
            raise BadUsage("--only needs a pattern, e.g. --only 'conv*'")
        values = {name: getattr(self, name) for name in type(self).__dataclass_fields__}
        plain = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
        return {**plain, "allow": tuple(self.allow or ()), **{n: plain[n] or "" for n in ("backend", "ref_version")}}


def with_selection(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose first parameter is a `Selection` takes each of its fields as an option of its own.

    Args:
        command: its other parameters are options too, and have defaults.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    hints = get_type_hints(command, include_extras=True)
    shared = inspect.signature(Selection).parameters
    kinds = get_type_hints(Selection, include_extras=True)

    @wraps(command)
    def flat(**values: Any) -> int:
        return command(Selection(**{name: values.pop(name) for name in shared}), **values)

    parameters = [
        *(p.replace(kind=p.KEYWORD_ONLY, annotation=kinds[name]) for name, p in shared.items()),
        *(p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in own),
    ]
    flat.__dict__["__signature__"] = inspect.Signature(parameters)
    flat.__annotations__ = {p.name: p.annotation for p in parameters}
    return flat
