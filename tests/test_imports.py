"""Imports run one way, in no circle, and reading or asking for help loads no framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parity"

ORDER = (
    ("errors", "interrupts", "garbage", "digits", "axes", "network", "recipe", "changes", "report", "runner", "npz"),
    ("settings",),
    ("layers", "optimizers", "wording"),
    ("frameworks", "opening"),
    (
        "batch",
        "feeds",
        "probes",
        "metrics",
        "distances",
        "tolerance",
        "stretches",
        "relation",
        "formulas",
        "separating",
        "grouping",
        "units",
        "matching",
        "anchors",
        "differences",
        "align",
        "splits",
        "transfer",
        "orders",
        "mapping",
    ),
    (
        "case",
        "sharing",
        "structure",
        "activity",
        "tensors",
        "detail",
        "looks",
        "masks",
        "ties",
        "fitting",
        "bench",
        "judge",
        "worst",
        "sight",
        "updates",
        "rehearsal",
        "propagation",
        "regions",
        "preparation",
        "comparison",
        "coverage",
        "experiments",
        "compare",
        "trace",
    ),
    ("replay", "acting"),
    ("rules", "causes"),
    ("diagnose", "findings"),
    ("wrapping", "joined", "carried"),
    ("options", "identity", "lending", "unopened", "sides", "summary", "fixes", "traces", "setup", "session"),
    ("receptive", "inspection", "reports"),
    ("debugger", "gate"),
    ("commands", "testing", "pytest_plugin"),
    ("cli",),
    ("__main__", "__init__"),
)
"""From the bottom to the top. A module imports from its own row and from those above it in this list."""

RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}

LATE = {
    ("report", "reports"),  # a report draws itself: `_repr_html_` and `to_json` reach for what renders it
    ("inspection", "reports"),
    ("traces", "reports"),  # a trace is written whole or not at all, as every report is
    ("traces", "__init__"),  # a trace names parity's version
    ("cli", "__init__"),  # the command line calls the public functions
    ("session", "__init__"),  # a report names parity's version
    ("reports", "__init__"),  # so does SARIF
}
"""Imports against the order, made inside functions when they are called."""

HEAVY = ("torch", "tensorflow", "keras", "tf_keras", "jax", "scipy", "h5py")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The parity modules that a module imports when it runs, at its top or inside functions; not for types alone."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "parity")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "parity":
            assert node.level == 0
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found - {name}


def part(name: str) -> str:
    """The row's word of a module: `parity.layers.conv` → `layers`, `parity` → `__init__`."""
    return name.split(".")[1] if "." in name else "__init__"


def test_every_part_has_its_place_in_the_order():
    assert {part(name) for name in MODULES} - set(RANK) == set(), "put it into ORDER"


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    here = part(name)
    wrong = {
        other
        for other in imports(name)
        if (here, part(other)) not in LATE and RANK.get(part(other), 0) > RANK.get(here, len(ORDER))
    }
    assert wrong == set()


def test_no_import_is_part_of_a_circle():
    graph = {
        name: {other for other in imports(name) if (part(name), part(other)) not in LATE and other in MODULES}
        for name in MODULES
    }
    # A package's face names the modules in it, and they may import one another but not the face.
    done: set[str] = set()
    path: list[str] = []

    def walk(name: str) -> None:
        if name in path:
            raise AssertionError(" -> ".join([*path[path.index(name) :], name]))
        if name in done:
            return
        path.append(name)
        for other in sorted(graph[name]):
            walk(other)
        path.pop()
        done.add(name)

    for name in graph:
        walk(name)


@pytest.mark.parametrize(
    "statement",
    [
        "import parity",
        "import parity; parity.compare, parity.inspect, parity.Report, parity.Inspection",
        "from parity.cli import main; main(['--help'])",
        "from parity.cli import main; main(['compare', '--help'])",
        "from parity.cli import main; main(['gate', '--help'])",
        "from parity.cli import main; main(['compare', '--ref', 'a'])",
    ],
)
def test_the_face_loads_no_framework(statement):
    loaded = loaded_by(statement)
    assert loaded & {*HEAVY, "numpy"} == set()


@pytest.mark.parametrize("file", ["net.mat", "model.h5", "batch.npz"])
def test_reading_a_file_loads_no_framework(file):
    loaded = loaded_by(f"from parity.cli import main; main(['inspect', r'{ROOT / 'traces' / 'seed' / file}'])")
    assert loaded & {"torch", "tensorflow", "keras", "tf_keras"} == set()


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys, io; sys.stdout = io.StringIO()\n{statement}\nsys.stderr.write('\\n@' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    return {name.split(".")[0] for name in done.stderr.rsplit("@", 1)[-1].split()}
