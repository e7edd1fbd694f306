"""A recorded run of a MatConvNet network as a reference: shown as recorded, and run by parity where it was not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.matconvnet.recorded import RecordedRunner
from parity.frameworks.matconvnet.recording import MatlabRecording
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.network import Network
from parity.runner import Pass, Runner
from parity.traces.reader import Trace
from parity.traces.recording import record_run
from parity.traces.writer import writing

__all__ = ["lend_floors", "replayed"]


def replayed(trace: Trace, network: Network) -> Runner:
    """The runner of a trace whose network parity can run itself.

    Args:
        trace: open for reading.
        network: its network, with the values of its parameters.
    """
    if trace.tensors != "all":
        runner = MatConvNetRunner(network, trace.recipe)
        runner.remarks.append(f"{trace.path} keeps only {_words(trace)}, so its network was run again on its batch.")
        return runner
    return _Replayed(trace, network)


def lend_floors(trace: Trace, network: Network, path: Path) -> bool:
    """Give a trace that holds no floors those of parity's own run of its network, as far as parity can run it.

    Args:
        trace: open for reading.
        network: its network, with the values of its parameters.
        path: where that run is recorded.

    Returns:
        Whether there was such a run.
    """
    import parity

    runner = MatConvNetRunner(network, trace.recipe)
    masks, mode = trace.seen(1).masks, trace.mode
    try:
        with writing(path, "-o", parity.__version__) as sink:
            record_run(
                runner, trace.inputs, trace.labels, sink, mode=mode, steps=1, tensors="stats", masks=lambda _: masks
            )
    except (CannotCompare, NotImplementedError):
        return False
    trace.lent = Trace(path)
    return True


def _words(trace: Trace) -> str:
    return "statistics of its tensors" if trace.tensors == "stats" else "a sample of its tensors"


class _Replayed(RecordedRunner):
    """A recorded run; asked for anything else, parity runs the recorded network."""

    def __init__(self, trace: Trace, network: Network) -> None:
        MatConvNetRunner.__init__(self, network, trace.recipe)
        self.trace = trace
        self.recording = _recording(trace, network)
        self._step = 0
        self._last: Pass | None = None
        self.remarks += [str(r) for r in trace.info.get("remarks", [])]

    @property
    def engine(self) -> Mapping[str, Any]:
        """What runs beside the recording, and what made it."""
        import torch

        now = {"name": "torch", "version": torch.__version__, "threads": torch.get_num_threads()}
        made = self.trace.engine
        return {**now, "recorded": f"{made.get('name', '')} {made.get('version', '')}".strip()}


def _recording(trace: Trace, network: Network) -> MatlabRecording:
    labels, first = trace.labels, trace.seen(1)
    steps = [trace.seen(step) for step in range(1, trace.steps + 1)]
    return MatlabRecording(
        path=str(trace.path),
        network=network,
        recipe=trace.recipe,
        mode=trace.mode,
        inputs=trace.inputs,
        targets=dict(labels.values) if labels is not None else {},
        seen=first,
        steps=tuple(seen.param_grads for seen in steps),
        statistics=tuple(seen.statistics for seen in steps) or (first.statistics,),
        after=tuple(trace.weights(step) for step in range(1, trace.steps + 1)),
        losses=tuple(np.nan if seen.loss is None else seen.loss for seen in steps),
        masks=tuple(seen.masks for seen in steps) or (first.masks,),
        engine=f"parity {trace.header.parity}",
    )
