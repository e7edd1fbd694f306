"""Small models in both Kerases, on one batch."""

import numpy as np
import pytest


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each of the two Kerases in turn, seeded."""
    from parity.frameworks.keras.engine import engine_of

    module = engine_of(request.param).keras
    module.utils.set_random_seed(7)
    return module


@pytest.fixture
def batch():
    """Six images 8×8×4 of three classes."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, 8, 8, 4)).astype(np.float32), rng.integers(0, 3, size=6)


_MARK = "keras file"


@pytest.fixture
def measured_files(request):
    """Notes what a recorded file showed: path → (error of its predictions, error of its next step) → None."""

    def of(path):
        def note(prediction, step):
            request.node.user_properties.append(
                (_MARK, [path.parent.name, path.stem, path.suffix, *map(_plain, (prediction, step))])
            )

        return note

    return of


def _plain(item):
    """What a worker of pytest-xdist can send."""
    return float(item) if isinstance(item, np.floating) else item


def pytest_terminal_summary(terminalreporter):
    """Versions × variants: the relative error of the predictions, and of the next training step."""
    cells = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for mark, value in report.user_properties:
                    if mark == _MARK:
                        version, name, suffix, *shown = value
                        cells.setdefault(name, {})[version, suffix] = [_cell(item) for item in shown]
    if not cells:
        return
    columns = sorted({column for row in cells.values() for column in row})
    terminalreporter.write_sep("-", "recorded Keras files: predictions, next step")
    heads = [f"{version.split('_')[0]} {suffix}" for version, suffix in columns]
    terminalreporter.write_line(f"{'':24}" + "".join(f"{head:22}" for head in heads))
    for name in sorted(cells):
        row = [cells[name].get(column, ["", ""]) for column in columns]
        terminalreporter.write_line(f"{name:24}" + "".join(f"{a:9} {b:12}" for a, b in row))


def _cell(item):
    return item if isinstance(item, str) else f"{item:.1e}"
