"""What holds for every test, and the tables of measured errors at the end of a run."""

import gc
import os
import signal
import sys

import pytest

from tests import recording
from tests.elsewhere import Elsewhere

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side share the processors: torch's threads spin while they wait, which slows the others down.
    share = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's script has it for what it starts behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def as_a_user(monkeypatch):
    """No switch of the developer's own environment may change what a user is told."""
    for name in ("PARITY_DEBUG", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


_FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "torch")
_settled: set[str] = set()


@pytest.fixture(autouse=True)
def frameworks_are_no_garbage():
    """Frameworks live as long as the process: a search for garbage in their half a million objects takes 0.3 s.

    There are many of these, for Keras' `clear_session` makes one as well.
    """
    yield
    loaded = {name for name in _FRAMEWORKS if name in sys.modules}
    if loaded - _settled:
        _settled.update(loaded)
        gc.collect()
        gc.freeze()


_drawn: list[bool] = []
"""Whether a kernel of TensorFlow's that draws by a seed of its own was made in this test."""


@pytest.fixture(autouse=True)
def kernels_are_kept():
    """To seed TensorFlow, or to clear a session, throws all its kernels away, for the sake of those that draw.

    To make them anew took a third of the time of a test that seeds and compares. Keras 3 needs none that draws: its
    seeds are tensors. So they go only where one was made since this test began, and then at its end as well.
    """
    if "tensorflow" in sys.modules and not hasattr(sys.modules["tensorflow"], "_kernels_are_kept"):
        _keep_kernels()
    yield
    if _drawn:
        from tensorflow.python.eager import context

        context.context().clear_kernel_cache()
        _drawn.clear()


def _keep_kernels():
    import tensorflow
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.framework import random_seed

    get_seed, clear = random_seed.get_seed, pywrap_tfe.TFE_ContextClearCaches

    def noted(op_seed):
        _drawn.append(True)
        return get_seed(op_seed)

    random_seed.get_seed = noted
    pywrap_tfe.TFE_ContextClearCaches = lambda handle: clear(handle) if _drawn else None
    tensorflow._kernels_are_kept = True


@pytest.fixture(scope="session")
def elsewhere():
    """A process without parity."""
    process = Elsewhere()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def measured(request):
    """What a test recorded goes with its report."""
    recording.drain()
    yield
    request.node.user_properties.extend(recording.drain())


def pytest_terminal_summary(terminalreporter):
    """The tables, in quiet mode too."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    found = [
        item
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for item in getattr(report, "user_properties", ())
    ]
    for title, lines in recording.tables(found).items():
        terminalreporter.write_sep("-", title)
        for line in lines:
            terminalreporter.write_line(line)
