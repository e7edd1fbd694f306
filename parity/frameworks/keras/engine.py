"""The two Kerases that parity runs, behind one face: Keras 3 on any of its backends, and Keras 2 (`tf_keras`).

Files of Keras 1 and 2 run under Keras 2, with its own layers and optimizers (`decay`, Bessel's correction in its fused
batch normalisation); files of Keras 3 under Keras 3. Everything that differs between the two lives here; what differs
between tensorflow, torch and jax in `backends`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.keras.backends import BACKENDS, Backend, backend_of
from parity.frameworks.keras.optimizer_copies import again
from parity.garbage import unsought

__all__ = ["Engine", "engine_of", "quiet", "tensorflow"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps file descriptor 2 silent: tensorflow's C++ writes start-up notes to it before it reads any log level."""
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "w") as null:  # noqa: PTH123 - a device, not a path of the user's
            sys.stderr.flush()
            os.dup2(null.fileno(), 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def tensorflow() -> Any:
    """The tensorflow module, imported without its start-up notes."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        with quiet(), unsought():
            importlib.import_module("tensorflow").constant(0.0)  # starts its runtime, which looks for devices
            from absl import logging

            logging.set_verbosity(logging.ERROR)
    return sys.modules["tensorflow"]


class Engine:
    """One of the two Kerases.

    Args:
        name: `"keras"` (3) or `"tf_keras"` (2).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if self.modern:
            self.keras = _keras_3()
            self.backend: Backend = backend_of(self.keras.config.backend())
            self._masks = importlib.import_module("keras.src.backend")
            return
        tensorflow()
        with quiet(), unsought():
            self.keras = importlib.import_module(name)
        self.backend = backend_of("tensorflow")

    @property
    def modern(self) -> bool:
        """True for Keras 3."""
        return self.name == "keras"

    @cached_property
    def description(self) -> dict[str, str]:
        """Name and version of what executes the model, for the report."""
        return {"framework": self.name, "version": self.keras.__version__, self.backend.name: self.backend.version}

    @staticmethod
    def settle(layers: Iterable[Any]) -> None:
        """Lets layers that compute with constants made of their weights make them of the present ones."""
        for layer in (layer for layer in layers if type(layer).__name__ == "Normalization"):
            getattr(layer, "finalize_state", bool)()

    # Nested structures ----------------------------------------------------------------------------------------------

    @cached_property
    def _tree(self) -> Any:
        return self.keras.tree if self.modern else importlib.import_module("tensorflow").nest

    def flatten(self, structure: Any) -> list[Any]:
        """The leaves of nested lists, tuples and dicts, in this Keras' order."""
        return list(self._tree.flatten(structure))

    def pack(self, structure: Any, leaves: Sequence[Any]) -> Any:
        """Leaves in the form of a structure."""
        return self._tree.pack_sequence_as(structure, list(leaves))

    # Masks ----------------------------------------------------------------------------------------------------------

    def mask_of(self, tensor: Any) -> Any:
        """The mask that Keras has put on a tensor (Masking, `mask_zero`), or None."""
        return self._masks.get_keras_mask(tensor) if self.modern else getattr(tensor, "_keras_mask", None)

    def set_mask(self, tensor: Any, mask: Any) -> None:
        """Puts a mask on a tensor, where layers and losses look for it."""
        if self.modern:
            self._masks.set_keras_mask(tensor, mask)
        else:
            tensor._keras_mask = mask

    # Structure ----------------------------------------------------------------------------------------------------

    def is_layer(self, item: Any) -> bool:
        """Whether it is a layer of this Keras."""
        return isinstance(item, self.keras.layers.Layer)

    def is_model(self, item: Any) -> bool:
        """Whether it is a model (Sequential, functional or subclassed) of this Keras."""
        return isinstance(item, self.keras.Model)

    def parts(self, model: Any) -> list[Any]:
        """The layers, and in a functional model of Keras 3 the bare operations, that a model holds itself."""
        if self.modern:
            function = getattr(model, "_functional", None) or model  # Sequential keeps its graph in `_functional`
            operations = getattr(function, "operations", None)
            if operations is not None:
                return list(operations)
        return list(model.layers)

    def submodels(self, model: Any) -> list[Any]:
        """The models inside a model, at any depth."""
        found: list[Any] = []
        for item in self.parts(model):
            if self.is_model(item):
                found += [item, *self.submodels(item)]
        return found

    def is_input(self, item: Any) -> bool:
        """Whether it is an InputLayer, which is never called."""
        return type(item).__name__ == "InputLayer"

    def input_names(self, model: Any) -> list[str]:
        """Names of the model's inputs, in order; empty for a subclassed model."""
        with contextlib.suppress(AttributeError, ValueError, TypeError):
            if self.modern:
                return [t.name for t in self.flatten(model.inputs)]
            return list(model.input_names)
        return []

    def input_shapes(self, model: Any) -> list[tuple[int | None, ...]]:
        """Shapes of its inputs without the batch axis; empty for a subclassed model."""
        with contextlib.suppress(AttributeError, ValueError, TypeError):
            return [
                tuple(None if n is None else int(n) for n in tensor.shape[1:]) for tensor in self.flatten(model.inputs)
            ]
        return []

    def input_types(self, model: Any) -> list[str]:
        """Data types of its inputs, as words; empty for a subclassed model."""
        with contextlib.suppress(AttributeError, ValueError, TypeError):
            return [str(getattr(t.dtype, "name", t.dtype)) for t in self.flatten(model.inputs)]
        return []

    def fixes_training(self, item: Any) -> bool:
        """Whether a layer or submodel was called with `training=True` when the model was built."""
        for node in getattr(item, "_inbound_nodes", ()):
            settings = getattr(getattr(node, "arguments", None), "kwargs", None) or getattr(node, "call_kwargs", None)
            if (settings or {}).get("training") is True:
                return True
        return False

    def takes(self, layer: Any, argument: str) -> bool:
        """Whether the layer's `call` has this argument."""
        with contextlib.suppress(TypeError, ValueError):
            return argument in inspect.signature(type(layer).call).parameters
        return False

    @property
    def tracing(self) -> bool:
        """Whether Keras only works out shapes just now: a Sequential does when it sees another batch size."""
        if self.modern:
            return importlib.import_module("keras.src.backend.common.symbolic_scope").in_symbolic_scope()
        return not importlib.import_module("tensorflow").executing_eagerly()

    # Variables ----------------------------------------------------------------------------------------------------

    def state(self, item: Any) -> list[Any]:
        """Every variable of a layer or model: weights, statistics, seed counters."""
        found = list(item.variables)
        seen = {id(v) for v in found}
        for layer in item._flatten_layers():
            # Seed counters of tf_keras' stateful random layers are variables of their generator only.
            generator = getattr(layer, "_random_generator", None)
            inner = getattr(generator, "_generator", None)
            counter = getattr(inner, "_state_var", None)
            if counter is not None and id(counter) not in seen:
                found.append(counter)
                seen.add(id(counter))
        return found

    # Losses -------------------------------------------------------------------------------------------------------

    def clear_losses(self, model: Any) -> None:
        """Forgets what earlier calls added to `model.losses`."""
        model._clear_losses()

    def added_losses(self, model: Any) -> list[Any]:
        """What the last call added to the loss itself: activity regularizers and `add_loss`."""
        if self.modern:
            return [loss for layer in model._flatten_layers() for loss in layer._get_own_losses()]
        return [loss for layer in model._flatten_layers() for loss in layer._eager_losses]

    @cached_property
    def averages_activities(self) -> bool:
        """Whether it divides what an activity regularizer adds by the number of images, or adds it up."""
        layer = self.keras.layers.Activation("linear", activity_regularizer=self.keras.regularizers.L1(1.0))
        layer(self.backend.constant(np.ones((2, 1), np.float32)))
        return self.backend.scalar(layer.losses[0]) == 1.0

    def penalties(self, model: Any) -> list[Any]:
        """What the weights' regularizers add to the loss, one scalar tensor per regularized weight."""
        if self.modern:
            return list(model._get_regularization_losses())
        values = [loss() for layer in model._flatten_layers() for loss in layer._callable_losses]
        return [v for v in values if v is not None]

    def loss_terms(self, model: Any, labels: Sequence[Any], predictions: Any) -> list[tuple[int, Any, float]]:
        """The model's own compiled loss objects: (which output, loss(y_true, y_pred), weight) each.

        Args:
            model: compiled.
            labels: one array per output, in any form (only their structure is looked at).
            predictions: the model's outputs, as it returns them.
        """
        count = len(self.flatten(predictions))
        y_true = self.pack(predictions, labels) if count > 1 else labels[0]
        if self.modern:
            compiled = model._compile_loss
            if not compiled.built:
                compiled.build(y_true, predictions)
            paths = [path for path, _ in _paths(predictions)]
            return [(paths.index(tuple(t.path)), t.loss, _weight(t.loss_weights)) for t in compiled._flat_losses]
        container = model.compiled_loss
        if not container._built:
            container.build(predictions)
        pairs = zip(container._losses, container._loss_weights, strict=True)
        return [(i, loss, _weight(weight)) for i, (loss, weight) in enumerate(pairs) if loss is not None]

    def has_loss(self, model: Any) -> bool:
        """Whether the model was compiled with a loss."""
        if self.modern:
            return getattr(model, "_compile_loss", None) is not None
        compiled = getattr(model, "compiled_loss", None)
        return compiled is not None and bool(self.flatten(compiled._user_losses)[0])

    def loss_in_double(self, loss: Any) -> Any:
        """The same loss computing in float64. Raises NotImplementedError where it cannot be rebuilt."""
        try:
            if not self.modern:
                return loss  # tf_keras' losses compute in the class of the predictions
            function = getattr(loss, "fn", None)
            if function is not None:
                wrapper = importlib.import_module("keras.src.losses.losses").LossFunctionWrapper
                return wrapper(function, reduction=loss.reduction, dtype="float64", **loss._fn_kwargs)
            return type(loss).from_config({**loss.get_config(), "dtype": "float64"})
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            raise NotImplementedError(f"the loss {type(loss).__name__} cannot run in float64") from error

    # Layers in float64 --------------------------------------------------------------------------------------------

    def double(self, layer: Any) -> Any:
        """A copy of the layer that computes in float64, not built. Raises NotImplementedError where there is none."""
        if not self.is_layer(layer):
            return layer  # a bare operation has no class of its own
        try:
            config = {**_in_double(layer.get_config()), "dtype": "float64"}
            config.pop("batch_input_shape", None)
            copy = type(layer).from_config(config)
        except Exception as error:
            raise NotImplementedError(f"{layer.name} cannot be rebuilt in float64") from error
        if getattr(layer, "_USE_V2_BEHAVIOR", True) is False:  # see `standalone`
            copy._USE_V2_BEHAVIOR, copy.fused = False, False  # the fused kernel knows no float64
        return copy

    def variable(self, value: Any) -> Any:
        """A trainable variable that belongs to no layer."""
        if self.modern:
            return self.keras.Variable(value, dtype="float32")
        return importlib.import_module("tensorflow").Variable(value, dtype="float32")

    # Optimizers ---------------------------------------------------------------------------------------------------

    def fresh_optimizer(self, optimizer: Any, variables: Sequence[Any]) -> Any:
        """A new optimizer of the same configuration at step 0, with its slots made for these variables."""
        copy = again(optimizer)
        self.build_optimizer(copy, variables)
        return copy

    def build_optimizer(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Makes the slots; Keras 2's legacy optimizers make theirs at the first step, which is forced here."""
        if self.is_legacy(optimizer):
            with importlib.import_module("tensorflow").init_scope():
                optimizer._create_all_weights(list(variables))
        elif not optimizer.built if self.modern else not getattr(optimizer, "_built", False):
            optimizer.build(list(variables))
            if not self.modern:
                optimizer._built = True

    def is_legacy(self, optimizer: Any) -> bool:
        """Whether it is one of Keras 2's legacy optimizers (before 2.11's)."""
        return not self.modern and hasattr(optimizer, "_create_all_weights")

    def slot_variables(self, optimizer: Any) -> list[Any]:
        """The optimizer's variables, in the order in which it saves them."""
        if self.is_legacy(optimizer):
            return list(optimizer.weights)
        return list(optimizer.variables)


def _keras_3() -> Any:
    """The Keras 3 module, on the backend that is set for it, or on tensorflow where none is.

    Raises:
        CannotCompare: that backend is not installed, or parity does not observe it.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    wanted = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if wanted in BACKENDS:  # what is none of them Keras or `backend_of` refuses
        try:
            with unsought():
                tensorflow() if wanted == "tensorflow" else importlib.import_module(wanted)
        except ImportError as error:
            extra = "parity-debugger[jax]" if wanted == "jax" else wanted
            raise CannotCompare(
                f"KERAS_BACKEND is {wanted}, which is not installed ({error}); pip install '{extra}', or choose another"
            ) from error
    else:
        backend_of(wanted)
    with quiet(), unsought():
        keras = importlib.import_module("keras")
        with contextlib.suppress(ImportError):
            tensorflow()  # Keras imports it on any backend as soon as a layer says its configuration
        return keras


def _in_double(config: Any) -> Any:
    """A layer's configuration with float64 in place of every data type in it, those of the layers inside included."""
    if isinstance(config, list | tuple):
        parts = [_in_double(part) for part in config]
        return tuple(parts) if isinstance(config, tuple) else parts
    if not isinstance(config, dict):
        return config
    return {key: "float64" if key == "dtype" else _in_double(value) for key, value in config.items()}


def _weight(weight: Any) -> float:
    return 1.0 if weight is None else float(weight)


def _paths(structure: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """(path, leaf) of every leaf of nested lists, tuples and dicts, in tensorflow's order."""
    if isinstance(structure, Mapping):
        return [found for key in sorted(structure) for found in _paths(structure[key], (*path, key))]
    if isinstance(structure, list | tuple):
        return [found for i, item in enumerate(structure) for found in _paths(item, (*path, i))]
    return [(path, structure)]


_ENGINES: dict[str, Engine] = {}


def engine_of(what: Any) -> Engine:
    """The engine of a model (by the module of its base classes), or of a name (`"keras"`, `"tf_keras"`).

    Raises CannotCompare for what is not a Keras model.
    """
    name = what if isinstance(what, str) else ""
    if not name:
        for base in type(what).__mro__:
            root = base.__module__.split(".")[0]
            if root in ("keras", "tf_keras") and base.__name__ in ("Model", "Layer"):
                name = root
                break
    if not name:
        raise CannotCompare(f"a {type(what).__name__} is not a Keras model; give a keras.Model, or a file of one")
    if name not in _ENGINES:
        _ENGINES[name] = Engine(name)
    return _ENGINES[name]
