"""A Keras model as it is run and watched: which of its layers are looked at, and the graph that a run of it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.keras.batches import Feeder
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.graph import Graph, graph_of
from parity.frameworks.keras.incode import Written, graph_made_by, is_written
from parity.frameworks.keras.observe import Recorder
from parity.frameworks.keras.records import Place, places

__all__ = ["Watched"]


class Watched:
    """A model whose graph is seen as it runs.

    Args:
        engine: whose model it is.
        model: the model.
        feeder: of its inputs.

    Attributes:
        leaves: the layers that are looked at; known once it was lifted.
    """

    def __init__(self, engine: Engine, model: Any, feeder: Feeder) -> None:
        self._engine, self._given, self._feeder = engine, model, feeder
        self._written: Written | None = None
        self.leaves: list[Place] = []

    @property
    def model(self) -> Any:
        """What is run: of a model in code the graph that the code makes, where it makes one."""
        return self._written.model if self._written else self._given

    def lift(self, arrays: Mapping[str, np.ndarray], loss: Any = None) -> Graph:
        """The graph that a run on these inputs shows.

        Args:
            arrays: input → a few images, n h w c.
            loss: a Keras loss to use in place of what the model was compiled with.

        Raises:
            CannotCompare: the model does not run on them, or computes what cannot be seen.
        """
        engine, given, feeder = self._engine, self._given, self._feeder
        tensors = feeder.tensors(arrays)
        with engine.backend.no_gradients(), engine.backend.untouched(engine.state(given) if given.built else ()):
            try:
                if not given.built or not engine.parts(given):
                    given(feeder.structure(tensors), training=False)
                if not self.leaves and is_written(engine, given):
                    self._written = graph_made_by(engine, given, feeder.structure(tensors))
                homes = self._written.homes if self._written else {}
                self.leaves = places(engine, self.model, homes)
                recorder, predictions = self._recorded(tensors, "train")
                self._note_eval(tensors, recorder)
            except CannotCompare:
                raise
            except Exception as error:
                text = " ".join(str(error).split())[:200]
                problem = f"the Keras model does not run on this batch ({type(error).__name__}: {text})"
                raise CannotCompare(problem) from error
        terms: list[tuple[int, Any, float]] = []
        if loss is not None:
            terms = [(0, loss, 1.0)]
        elif engine.has_loss(given):
            terms = _compiled(engine, given, predictions)
        remarks: list[str] = []
        if not _is_kerases(given):
            remarks.append(f"{type(given).__name__} is a class of the user's")
        if recorder.sources:
            remarks.append("computes outside of layers, which can be observed but not run alone")
        return graph_of(engine, given, self.leaves, recorder, tensors, predictions, terms, tuple(remarks))

    def _recorded(self, tensors: Mapping[str, Any], mode: str) -> tuple[Recorder, Any]:
        with Recorder(self._engine, self.leaves, tensors, mode=mode) as recorder:
            return recorder, self.model(self._feeder.structure(tensors), training=mode == "train")

    def _note_eval(self, tensors: Mapping[str, Any], recorder: Recorder) -> None:
        """Notes which `training` each call is given when the model runs in eval mode.

        It is False, unless the model says otherwise (Monte-Carlo dropout): a run shows it where that is possible.
        """
        engine = self._engine
        items = [place.item for place in self.leaves] + engine.submodels(self.model)
        seen: dict[str, dict[str, bool]] = {}
        if not all(map(_is_kerases, [self._given, *items])) or any(map(engine.fixes_training, items)):
            seen = {record.name: record.training for record in self._recorded(tensors, "eval")[0].records}
        for record in recorder.records:
            if record.training:
                record.training |= seen.get(record.name) or {"eval": False}


def _compiled(engine: Engine, model: Any, predictions: Any) -> list[tuple[int, Any, float]]:
    """The losses that a model was compiled with (see `Engine.loss_terms`)."""
    labels = [np.zeros(tuple(p.shape), np.float32) for p in engine.flatten(predictions)]
    try:
        return engine.loss_terms(model, labels, predictions)
    except Exception as error:  # Keras asks only now whether as many were given as there are outputs
        text = " ".join(str(error).split())[:200]
        problem = f"the Keras model's losses or their weights do not fit its outputs ({type(error).__name__}: {text})"
        raise CannotCompare(problem) from error


def _is_kerases(item: Any) -> bool:
    """Whether Keras itself defines its class."""
    return type(item).__module__.split(".")[0] in ("keras", "tf_keras")
