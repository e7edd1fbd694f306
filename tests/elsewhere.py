"""A process where parity cannot be imported, for scripts that must run without it.

It runs them one after the other, each in a namespace of its own: the import of a framework takes most of their time.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

__all__ = ["Elsewhere"]

_SERVER = """
import ast, contextlib, io, os, sys, traceback
sys.modules["parity"] = None
for line in sys.stdin:
    folder, script = ast.literal_eval(line)
    os.chdir(folder)
    present = set(sys.modules)
    end, said = 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            exec(script, {"__name__": "__main__"})
        except SystemExit as left:
            end = left.code or 0
        except BaseException:
            end = traceback.format_exc()
    for name in set(sys.modules) - present:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]
    print(repr((end, said.getvalue())), flush=True)
"""


class Elsewhere:
    """The process, which begins with the first script."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, script: str, folder: Path) -> tuple[int | str, str]:
        """The exit code of a script run in a folder, or the traceback that it ended with, and what it printed."""
        if self._process is None:
            command = [sys.executable, "-c", _SERVER]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        print((str(folder.resolve()), script), file=asked, flush=True)
        answer = answers.readline()
        assert answer, "the process died"
        return ast.literal_eval(answer)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.communicate()
