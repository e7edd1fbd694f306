"""Reading a trace: its facts at once, its arrays when somebody asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile
from parity.network import Network
from parity.recipe import Recipe
from parity.runner import Pass, Targets
from parity.traces.codec import decoded
from parity.traces.folders import Lazy, Unread
from parity.traces.format import TENSORS, Header, check, escaped, header, unescaped
from parity.traces.held import Held, sound, told

__all__ = ["Trace"]

Array = np.ndarray

_AGAIN = "record it again with `parity record`"
_DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    UnicodeError,
    OverflowError,
)
_OPTIONAL = {"remarks": list, "notes": list, "batch": dict, "weights": dict, "environment": dict}
"""Facts that a writer may leave out."""

_CACHE = 1 << 22
"""Bytes of chunks that are kept of a dataset: stretches need not end where chunks do."""

_MOST_STEPS = 10_000
_JSON = 1 << 28
"""Bytes of facts at most; the network of a thousand layers takes one mebibyte."""


class Trace:
    """A recorded run, open for reading.

    Args:
        path: the file.
        verify: hold the whole file against its digest first.

    Attributes:
        path: the file.
        lent: a trace of the same network on the same batch, for the floors that this one lacks; mostly None.
        header: its first line: format, the parity that wrote it, digest.
        info: the facts of the run, as JSON has them: `mode`, `seed`, `steps`, `tensors`, `engine`, `source`, `batch`,
            `passes`, `environment`.

    Raises:
        BadFile: no trace, of a newer format, or damaged.
    """

    def __init__(self, path: str | PathLike[str], *, verify: bool = True) -> None:
        import h5py

        self.path = Path(fspath(path))
        self.header: Header = header(self.path)
        if verify:
            check(self.path, self.header)
        self.lent: Trace | None = None
        self._names: dict[str, dict[str, str]] = {}
        try:
            self._file: Any = h5py.File(self.path, "r", rdcc_nbytes=_CACHE)
        except (OSError, RuntimeError, ValueError) as error:
            raise self._damaged(error) from None
        try:
            self.info: Mapping[str, Any] = self._facts()
        except BadFile:
            self._file.close()
            raise

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    # ---- facts

    @property
    def mode(self) -> str:
        """`"train"` or `"eval"`."""
        return self.info["mode"]

    @property
    def steps(self) -> int:
        """How many updates were recorded; 0 where there was no loss or no training."""
        return self.info["steps"]

    @property
    def tensors(self) -> str:
        """How much was kept of activations and their gradients: `"all"`, `"sample"` or `"stats"`."""
        return self.info["tensors"]

    @property
    def engine(self) -> Mapping[str, Any]:
        """What executed the model: name and versions."""
        return self.info.get("engine", {})

    @cached_property
    def network(self) -> Network:
        """The network as it was run; its parameters without their values (see `weights`)."""
        found = self._object("network", Network)
        with self.reading():
            self._fits(found)
        return found

    @cached_property
    def recipe(self) -> Recipe:
        """How it is trained; large slots of its optimizer stay in the file until they are read."""
        return self._object("recipe", Recipe)

    # ---- arrays

    def names(self, group: str) -> Mapping[str, str]:
        """Name → place in the file, of all that one folder holds (`step1/outputs`, `weights/0`)."""
        if group not in self._names:
            with self.reading():
                keys = [*self._keys(group), *self._keys(f"sketches/{group}")]
            self._names[group] = {unescaped(key): key for key in dict.fromkeys(keys)}
        return self._names[group]

    def held(self, group: str, name: str) -> Held | None:
        """What the trace holds of a tensor; None if nothing."""
        if name not in self.names(group):
            return None
        with self.reading():
            data = self._file.get(f"{group}/{escaped(name)}")
            table = self._file.get(f"sketches/{group}/{escaped(name)}")
            for found in (data, table):
                sound(found, f"{group}/{name}")
            if table is None:
                assert data is not None
                whole = "shape" not in data.attrs
                shape = data.shape if whole else data.attrs["shape"]
                return Held(self, "all" if whole else "sample", tuple(int(n) for n in shape), data, None)
            shape = tuple(int(n) for n in table.attrs["shape"])
            return Held(self, "stats" if data is None else "sample", shape, data, table)

    def lazy(self, group: str) -> Lazy:
        """Name → array of one folder, read when it is asked for."""
        return Lazy(self, group)

    def unread(self, group: str) -> Mapping[str, Held]:
        """Name → what one folder holds of it, to be read in part."""
        return Unread(self, group)

    @property
    def inputs(self) -> dict[str, Array]:
        """Input → n h w c, as the network was fed."""
        return dict(self.lazy("inputs"))

    @property
    def labels(self) -> Targets | None:
        """What the losses were held against; None without labels."""
        values = dict(self.lazy("labels"))
        return Targets(values, dict(self.lazy("label_weights"))) if values else None

    def weights(self, step: int) -> Lazy:
        """Parameter → value after so many updates (0: before the first)."""
        return self.lazy(f"weights/{step}")

    def floor(self, group: str, name: str) -> Array | None:
        """What rounding alone does to a tensor of the first step, end to end: root mean square per channel.

        Args:
            group: `outputs`, `output_grads`, `param_grads`.
            name: of the tensor; `losses` of group `outputs` are scalars.
        """
        found = self.floor_held(group, name)
        return None if found is None else told(np.asarray(found.value(), np.float64))

    def floor_held(self, group: str, name: str) -> Held | None:
        """What `floor` gives, not read yet."""
        found = self.held(f"floors/{group}", name)
        if found is None:
            return self.lent.floor_held(group, name) if self.lent is not None else None
        if len(found.shape) != 1 or not found.shape[0] or found.kept != "all":
            raise self._damaged(ValueError(f"the floor of {name} is no vector"))
        return found

    def truth(self, group: str, name: str) -> Held | None:
        """What is kept of the float64 run, end to end: a sample, in older traces statistics; None without such a run.

        Args:
            group: `outputs`, `output_grads`, `param_grads`, `losses`.
            name: of the tensor.
        """
        return self.held(f"truth/{group}", name)

    def seen(self, step: int = 1) -> Pass:
        """What one step's run showed, its tensors as lazy mappings; only the first step has every tensor.

        Raises:
            BadFile: there is no such step.
        """
        passes = self.info["passes"]
        if not 1 <= step <= len(passes):
            raise BadFile(self.path, f"has {len(passes)} recorded steps, not {step}")
        facts, at = passes[step - 1], f"step{step}"
        losses = {name: float(value) for name, value in facts["losses"].items()}
        made = Pass(loss=None if facts["loss"] is None else float(facts["loss"]), losses=losses)
        made.penalty = float(facts["penalty"])
        # The tensors of a comparison are asked for one by one; these mappings read them then.
        made.outputs = self.lazy(f"{at}/outputs")  # type: ignore[assignment]
        made.output_grads = self.lazy(f"{at}/output_grads")  # type: ignore[assignment]
        made.param_grads = self.lazy(f"{at}/param_grads")  # type: ignore[assignment]
        made.penalty_grads = self.lazy(f"{at}/penalty_grads")  # type: ignore[assignment]
        made.masks = self.lazy(f"{at}/masks")  # type: ignore[assignment]
        means, variances = (self.lazy(f"{at}/statistics/{role}") for role in ("mean", "variance"))
        for name in means:
            mean, variance = means[name], variances.get(name)
            shape = self.network.shape_of(name)
            if variance is not None and (mean.shape != variance.shape or (shape and mean.shape != (shape[-1],))):
                raise self._damaged(ValueError(f"the statistics of {name} are of another shape than its channels"))
            if variance is not None:
                made.statistics[name] = {"mean": mean, "variance": variance}
        return made

    # ---- inside

    @contextmanager
    def reading(self) -> Iterator[None]:
        """HDF5's errors, and those of contents that do not fit, as one line."""
        try:
            yield
        except BadFile:
            raise
        except _DAMAGE as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> BadFile:
        words = " ".join(str(error).split())[:160] or type(error).__name__
        return BadFile(self.path, f"is a damaged trace ({words})", _AGAIN)

    def _keys(self, place: str) -> Iterator[str]:
        """The names in one folder; raises ValueError at a link, which leads out of what the digest vouches for."""
        at = self._file
        for part in place.split("/"):
            if self._linked(at, part) is None:
                return
            at = at[part]
        for key in at:
            self._linked(at, key)
            yield key

    def _linked(self, at: Any, name: str) -> Any:
        import h5py

        link = at.get(name, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link")
        return link

    def _facts(self) -> dict[str, Any]:
        with self.reading():
            self._linked(self._file, "info")
            data = self._file["info"]
            if data.size > _JSON or data.dtype != np.uint8:
                raise ValueError("its facts are no text")
            facts = json.loads(bytes(data[()]).decode())
            wanted = {"mode": str, "seed": int, "steps": int, "tensors": str, "passes": list, "network": dict}
            wanted |= {"recipe": dict, "engine": dict, "source": dict}
            wanted |= {name: kind for name, kind in _OPTIONAL.items() if name in facts}
            for name, kind in wanted.items():
                if not isinstance(facts[name], kind):
                    raise ValueError(f"its {name} is no {kind.__name__}")
            if (
                facts["mode"] not in ("train", "eval")
                or facts["tensors"] not in TENSORS
                or not (0 <= facts["steps"] <= _MOST_STEPS)
            ):
                raise ValueError("its mode, tensors or steps are none")
            for item in facts["passes"]:
                for value in (
                    *item["losses"].values(),
                    item["penalty"],
                    *([item["loss"]] * (item["loss"] is not None)),
                ):
                    float(value)
            return facts

    def _fits(self, network: Network) -> None:
        """Raise ValueError where parameters, or what was recorded of them, have other shapes than the network says."""
        lacking = [key for key in network.params if key not in self.names("weights/0")]
        if lacking:
            raise ValueError(f"its network has the parameter {lacking[0]}, whose value it does not hold")
        groups = [f"weights/{k}" for k in range(self.steps + 1)]
        groups += [f"step{k}/{kind}" for k in range(1, self.steps + 1) for kind in ("param_grads", "penalty_grads")]
        for group in groups:
            for name in self.names(group):
                held, param = self.held(group, name), network.params.get(name)
                if param is None or held is None or held.shape != tuple(param.shape):
                    raise ValueError(f"{group}/{name} is not of its parameter's shape")

    def _object(self, name: str, kind: type[Any]) -> Any:
        with self.reading():
            found = decoded(self.info[name], self._load)
            if not isinstance(found, kind):
                raise ValueError(f"its {name} is none")
            return found

    def _load(self, number: int) -> Any:
        if str(number) not in self._keys("arrays"):
            raise ValueError(f"arrays/{number} is not there")
        data = self._file[f"arrays/{number}"]
        sound(data, f"arrays/{number}")
        return data if data.nbytes > (1 << 20) else data[()]
