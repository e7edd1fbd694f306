"""Measurements in processes of their own: how they are asked, and what they say of themselves."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def answer(module: str, name: str, options: Mapping[str, Any], **environment: str) -> Any:
    """What a child answers, as JSON in its last line; where it fails, so does this process.

    Args:
        module: with a `main` that takes `--child NAME` and the options, e.g. `"bench.traces"`.
        name: of the measurement.
        options: name → value, those that are None left out.
        environment: beside this process's own.
    """
    command = [sys.executable, "-m", module, "--child", name]
    command += [str(word) for key, value in options.items() if value is not None for word in (f"--{key}", value)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak() -> int:
    """The memory that this process had at most, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def status(name: str) -> int:
    """A memory figure of this process in bytes, e.g. `VmHWM`; `ru_maxrss` would count what the parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024
