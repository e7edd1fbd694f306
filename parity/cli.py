"""The command line: every command of `parity.commands`, and how it ends.

`main` runs a command in-process and returns its exit code: 0 parity, 1 divergence, 2 could not compare. What goes wrong
is one line on standard error; `PARITY_DEBUG=1` adds the traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import parity
from parity.commands.compare import compare
from parity.commands.debug import debug
from parity.commands.gate import gate
from parity.commands.inspect import inspect
from parity.commands.matlab import matlab
from parity.commands.record import record
from parity.commands.rule import rule
from parity.errors import ParityError
from parity.garbage import own_process

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


app.command(short_help="Compare two files layer by layer.")(compare)
app.command(short_help="Compare a list of pairs that must hold.")(gate)
app.command(short_help="Step through both models in lockstep.")(debug)
app.command(short_help="Show the layers and the recipe of a file.")(inspect)
app.command(short_help="Explain a cause, or list all of them.")(rule)
app.command(short_help="Write a MATLAB function that records a run.")(matlab)
app.command(short_help="Run one side and record all of it in a file.")(record)


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
    from parity.reports.output import complain

    if os.environ.get("PARITY_DEBUG", "") not in ("", "0") and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    complain(message)
    return 2


def run() -> None:
    """The entry point of the `parity` command: `main` as a process."""
    own_process()
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
