"""The command line: `parity compare`, `parity inspect`, `parity rule`.

`main` runs a command in-process and returns its exit code: 0 parity, 1 divergence, 2 could not compare. What goes wrong
is one line on standard error; `PARITY_DEBUG=1` adds the traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import parity
from parity.errors import BadUsage, ParityError

__all__ = ["main", "run"]

_INTERRUPTED = 130  # what typer makes of control-C

app = typer.Typer(
    name="parity",
    help="Find the first layer where a Keras model and the MatConvNet network it was rebuilt from part, and why.",
    epilog="Exit codes: 0 parity, 1 divergence, 2 could not compare.",
    rich_markup_mode=None,  # plain help: rich would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    pretty_exceptions_enable=False,
)


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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"parity {parity.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> int:
    """Find the first layer where a Keras model and the MatConvNet network it was rebuilt from part, and why."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return 2
    return 0


@app.command(short_help="Compare two files layer by layer.")
def compare(
    ref: Annotated[str, typer.Option(metavar="FILE", help="The reference: a MatConvNet .mat (or a Keras) file.")],
    keras: Annotated[
        str,
        typer.Option(metavar="FILE", help="The Keras model: .keras, .h5, a SavedModel folder, or module.py:build."),
    ],
    batch: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Images and labels: an .npz with x and y, or an imdb.mat.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Run both sides as in training or as in evaluation.")] = Mode.train,
    weights: Annotated[
        Weights, typer.Option(help="Load the reference's weights into the Keras model, or leave it its own.")
    ] = Weights.ref,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Updates to compare (in train mode).")] = 3,
    map_file: Annotated[
        Optional[Path], typer.Option("--map", metavar="FILE", help="Which layer belongs to which, where parity errs.")
    ] = None,
    custom_objects: Annotated[
        Optional[Path], typer.Option(metavar="FILE.py", help="Python file with the model's custom classes; it is run.")
    ] = None,
    rtol: Annotated[
        Optional[float], typer.Option(metavar="X", help="Judge by this relative tolerance, not by noise; with --atol.")
    ] = None,
    atol: Annotated[Optional[float], typer.Option(metavar="X", help="The absolute tolerance; with --rtol.")] = None,
    json: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write the report as JSON.")] = None,
    fix: Annotated[
        Optional[Path], typer.Option(metavar="OUT.keras", help="Write a repaired copy of the Keras model.")
    ] = None,
    fix_script: Annotated[
        Optional[Path], typer.Option(metavar="OUT.py", help="Write a script that repairs the Keras model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the probe batch and of dropout.")] = 0,
    only: Annotated[
        Optional[str], typer.Option(metavar="GLOB", help="Show and judge only layers whose name fits.")
    ] = None,
    allow: Annotated[
        Optional[list[str]],
        typer.Option(metavar="STATUS:GLOB", help="Permit a verdict by name, e.g. unpaired:aug_*; may be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on what differs but does not show here.")] = False,
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
    """Compare two files layer by layer: activations, gradients and optimizer updates."""
    from parity.options import allowance, tolerances
    from parity.reports.fix import FixView, check_fix, save_fix
    from parity.reports.output import check_target, progress_on, show, write

    tolerances(rtol, atol, dashes="--")
    for item in allow or ():
        allowance(item, dashes="--")
    if only is not None and not only:
        raise BadUsage("--only needs a pattern, e.g. --only 'conv*'")
    if json is not None:
        check_target(json, "--json")
    check_fix(fix, fix_script, [Path(p) for p in (ref, keras, batch, map_file, custom_objects) if p is not None])
    from parity.session import check_and_fix

    with progress_on() as progress:
        repair = check_and_fix(
            ref=ref,
            keras=keras,
            batch=batch,
            mode=mode.value,
            weights=weights.value,
            steps=steps,
            map=map_file,
            custom_objects=custom_objects,
            rtol=rtol,
            atol=atol,
            seed=seed,
            only=only,
            allow=tuple(allow or ()),
            strict=strict,
            keras_engine=keras_engine.value,
            keras_arch=keras_arch,
            backend=backend.value if backend else "",
            trust=trust,
            ref_recipe=ref_recipe,
            ref_version=ref_version.value if ref_version else "",
            progress=progress,
            fixes="always" if fix or fix_script else "diverged",
        )
    report = repair.before
    if json is not None:
        write(json, report.to_json(), "--json")
    show(report)
    if fix is not None or fix_script is not None:
        show(FixView(repair))
        for line in save_fix(repair, fix, fix_script, keras=Path(keras), custom_objects=custom_objects):
            show(line)
    if report.exit_code == 2:
        from parity.reports.console import verdict_line

        _complain(verdict_line(report) + _remedy(report))
    return report.exit_code


@app.command(short_help="Show the layers and the recipe of a file.")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MatConvNet or Keras file.")],
    input_size: Annotated[
        Optional[str], typer.Option(metavar="H,W[,C]", help="Work out shapes and memory for inputs of this size.")
    ] = None,
) -> int:
    """Show the layers, parameters and recipe of a file; nothing in it is built or run."""
    from parity.reports.output import show

    show(parity.inspect(file, input_size=None if input_size is None else _extents(input_size)))
    return 0


def _extents(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise BadUsage(f"--input-size is H,W or H,W,C in whole numbers, not {text!r}") from None


@app.command(short_help="Explain a cause, or list all of them.")
def rule(slug: Annotated[Optional[str], typer.Argument(metavar="SLUG", help="e.g. bn-epsilon")] = None) -> int:
    """What a cause is, how it shows itself, an example, and its fix in Keras; without SLUG, all causes."""
    from parity.reports.output import show
    from parity.reports.rule import listing, sheet

    show(sheet(slug) if slug else listing())
    return 0


def _remedy(report: parity.Report) -> str:
    """What to do about an unverified report: allow, by name, what cannot be seen."""
    for probe in report.probes:
        if probe.status in ("unverified", "unpaired"):
            reason = f" ({probe.note})" if probe.note else ""
            return (
                f"{reason}; look at it, or permit it with --allow '{probe.status}:{probe.layer or probe.keras_layer}'"
            )
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; may be called any number of times.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Returns:
        0 parity (or nothing to complain of), 1 divergence, 2 `unverified`, bad usage, or anything that went wrong. No
        exception comes out.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            # The frameworks warn about themselves; a user can do nothing about that here.
            warnings.simplefilter("ignore")
            result: Any = typer.main.get_command(app).main(args=arguments, prog_name="parity", standalone_mode=False)
        if result == _INTERRUPTED:
            return _fail("interrupted")
        return result if isinstance(result, int) else 0
    except ParityError as error:
        return _fail(str(error))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 2 * bool(error.code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted")
    except BrokenPipeError:  # the reader of a pipe has seen enough
        return 2
    except MemoryError:
        return _fail("out of memory; try a smaller --batch")
    except Exception as error:
        usage: Any = getattr(error, "format_message", None)
        if callable(usage):  # the parser's own: an unknown option, a value of the wrong kind
            context = getattr(error, "ctx", None)
            words = str(usage()).replace("Value error, ", "").rstrip(".")
            return _fail(f"{words}. Try '{getattr(context, 'command_path', 'parity')} --help'.")
        where = f"{type(error).__name__}: {error}"
        return _fail(f"an error inside parity, please report it ({where}); PARITY_DEBUG=1 shows the traceback")


def _fail(message: str) -> int:
    if os.environ.get("PARITY_DEBUG", "") not in ("", "0") and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    _complain(message)
    return 2


def _complain(message: str) -> None:
    """One line on standard error, whatever the message and the stream's encoding."""
    from parity.reports.words import clean

    line = f"parity: {clean(' '.join(message.split()))}\n"
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(line.encode(encoding, "replace").decode(encoding))
    sys.stderr.flush()


def run() -> None:
    """The entry point of the `parity` command: `main` as a process."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
