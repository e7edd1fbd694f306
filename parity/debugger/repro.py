"""A script with its tensors that shows one layer's divergence with Keras and torch alone, for a bug report."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.bench import Bench, Trial, Unfit
from parity.debugger.repro_keras import keras_lines
from parity.debugger.repro_update import update_script
from parity.debugger.repro_verdict import verdict_lines
from parity.debugger.stops import Stop
from parity.distances import distance
from parity.errors import BadUsage, ParityError
from parity.frameworks.keras.edits.code import comment, text
from parity.runner import Targets
from parity.tensors import shaped
from parity.transfer import places

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper
    from parity.frameworks.keras.excerpt import KerasCode
    from parity.frameworks.matconvnet.excerpt import TorchCode

__all__ = ["write_repro"]

Array = np.ndarray

_RUNS = ("forward", "loss", "backward", "update")
_CUSTOM = "custom_objects.py"
"""The name that a copy of the user's own classes has beside the script."""

_ROUNDING = 100.0
"""Floors above which the script calls a difference more than rounding."""


def write_repro(stepper: Stepper, folder: Path) -> str:
    """Write `repro.py` and `tensors.npz` for the layer where one stands, or else for the first that diverges alone.

    Returns:
        What was written, in a sentence.

    Raises:
        BadUsage: no layer diverges when it is run alone, it cannot be written as a script, or the folder is not
            writable.
    """
    stepper.training.refuse("repro")
    stop = _chosen(stepper)
    try:
        code, arrays = update_script(stepper, stop) if stop.phase == "update" else _layer_script(stepper, stop)
    except (NotImplementedError, ParityError, Unfit, KeyError, ValueError) as problem:
        what = " ".join(str(problem).split())
        raise BadUsage(f"repro: {stop.layer} cannot be written as a script: {what}") from None
    custom = stepper.options.get("custom_objects") if _CUSTOM in code else None
    if _CUSTOM in code and custom is None:
        raise BadUsage(f"repro: {stop.layer} is of a class that no file of --custom-objects holds")
    _write(folder, code, arrays, custom)
    beside = "tensors.npz" if custom is None else f"tensors.npz and {_CUSTOM}"
    return f"wrote {folder / 'repro.py'} and {beside}: {stop.words}; it runs with `python {folder / 'repro.py'}`"


def _layer_script(stepper: Stepper, stop: Stop) -> tuple[str, dict[str, Array]]:
    """The script of a layer that is run alone, and its arrays."""
    scene = stepper.scene(stop.index)
    scene.ready()
    assert stop.pair is not None
    trial = scene.bench(backward=stop.phase == "backward").trial(stop.pair)
    scene.set_weights(trial.bench, stop.pair)
    return _Script(stepper, stop, _smallest(trial, _born(stepper, stop))).text()


def _chosen(stepper: Stepper) -> Stop:
    """The stop to show: this layer's first that is born, else the first of all."""

    def born(stop: Stop) -> bool:
        state = stepper.state(stop.index)
        return (
            stop.pair is not None
            and not stop.adds
            and stop.phase in _RUNS
            and state is not None
            and state.status == "born"
        )

    here = stepper.stop
    if born(here):
        return here
    found = [stop for stop in stepper.stops if born(stop)]
    same = [stop for stop in found if stop.layer == here.layer]
    if same or found:
        return (same or found)[0]
    ahead = next((stop for stop in stepper.ahead() if born(stop)), None)
    if ahead is None:
        raise BadUsage("repro: no layer diverges when it is run alone on the reference's inputs")
    return ahead


def _born(stepper: Stepper, stop: Stop) -> set[str]:
    state = stepper.state(stop.index)
    return {probe.tensor for probe in state.probes if probe.status == "born"} if state else set()


def _smallest(trial: Trial, born: set[str]) -> Trial:
    """The trial on as few images as still show the divergence of every tensor in which it was born."""
    bench, pair = trial.bench, trial.pair
    images = max((len(v) for v in trial.ref_feeds.values()), default=1)
    whole = _apart(trial)
    count = 1
    while count < images:
        small = replace(
            bench,
            observed=_first_images(trial, count, images),
            labels_ref=_fewer(bench.labels_ref, count, images),
            labels_keras=_fewer(bench.labels_keras, count, images),
            masks={k: v[:count] if len(v) == images else v for k, v in bench.masks.items()},
        )
        small.__dict__["ref_values"], small.__dict__["keras_values"] = bench.ref_values, bench.keras_values
        found = small.trial(pair)
        try:
            left = _apart(found)
            if all(left.get(name, 0.0) > 0.3 * whole[name] for name in (born & whole.keys() or whole)):
                return found
        except (ParityError, NotImplementedError, Unfit, ValueError, RuntimeError):
            pass
        count *= 2
    return trial


def _first_images(trial: Trial, count: int, images: int) -> Any:
    from parity.runner import Pass

    def cut(value: Array) -> Array:
        return value[:count] if np.ndim(value) and len(value) == images else value

    seen = Pass(outputs={name: cut(value) for name, value in trial.ref_feeds.items()})
    if trial.upstream_ref is not None:
        seen.output_grads = {trial.pair.ref.output: cut(trial.upstream_ref)}
    return seen


def _fewer(targets: Targets | None, count: int, images: int) -> Targets | None:
    if targets is None:
        return None

    def cut(held: Mapping[str, Array]) -> dict[str, Array]:
        return {name: value[:count] if len(value) == images else value for name, value in held.items()}

    return Targets(cut(targets.values), cut(targets.weights))


def _apart(trial: Trial) -> dict[str, float]:
    """Tensor → the relative distance of the two isolated runs, of those that have both."""
    mine, theirs = trial.run_ref(), trial.keras_local
    found: dict[str, float] = {}
    for name in trial.named.names:
        expected, actual = trial.tensor(mine, "ref", name), trial.tensor(theirs, "keras", name)
        same = None if expected is None or actual is None else shaped(actual, expected.shape)
        if same is not None and expected is not None:
            found[name] = min(distance(same, expected).relative, 1e6)
        elif expected is not None and actual is not None:
            found[name] = 1e6
    return found


@dataclass(frozen=True, eq=False)
class _Compared:
    """One tensor that the script compares: what each side returns it as, and how the reference's is laid out."""

    name: str
    ref: tuple[str, ...]
    keras: str
    index: str
    limit: float


class _Script:
    """The script of one pair."""

    def __init__(self, stepper: Stepper, stop: Stop, trial: Trial) -> None:
        self.stepper, self.stop, self.trial = stepper, stop, trial
        self.arrays: dict[str, Array] = {}
        self.backward = trial.backward and stop.phase in ("backward", "loss")

    def text(self) -> tuple[str, dict[str, Array]]:
        """The script and its arrays."""
        keras, by_keras = self._keras("keras"), self.trial.bench.ref.network.framework == "keras"
        if by_keras:
            other = self._keras("ref")
            if other.imports != keras.imports:
                raise NotImplementedError("the two sides are models of two Kerases")
            reference = self._run_keras(other, "ref")
            names = [*(f"input:{tensor}" for tensor in self.trial.ref_feeds), *(f"param:{p}" for p in other.variables)]
            custom = keras.custom or other.custom
        else:
            code = self._torch_code()
            reference, names, custom = self._torch(code), code.names, keras.custom
        lines = [*self._head(keras, by_keras, custom=custom), *reference, *self._run_keras(keras, "keras")]
        return "\n".join([*lines, *self._tail(self._compared(names, keras))]) + "\n", self.arrays

    def _torch_code(self) -> TorchCode:
        from parity.frameworks.matconvnet.excerpt import torch_code

        trial, bench = self.trial, self.trial.bench
        return torch_code(
            bench.ref.network,
            trial.pair.ref.layers,
            trial.ref_feeds,
            bench.ref_values,
            targets=bench.labels_ref,
            upstream=trial.upstream("ref") if self.backward else None,
            mode=bench.mode,
            masks=bench.ref_masks,
        )

    def _keras(self, side: str) -> KerasCode:
        bench, pair, trial = self.trial.bench, self.trial.pair, self.trial
        mine = side == "ref"
        excerpt = getattr(bench.ref if mine else bench.keras, "excerpt", None)
        if excerpt is None or hasattr(bench.ref if mine else bench.keras, "inner"):
            raise NotImplementedError(f"{'the reference' if mine else 'the Keras side'} is no model that runs here")
        made: KerasCode = excerpt(
            pair.ref.layers if mine else pair.keras.layers,
            bench.ref_values if mine else bench.keras_values,
            labels=bench.labels_ref if mine else bench.labels_keras,
            mode=bench.mode,
            masks=bench.ref_masks if mine else bench.masks,
            feeds=trial.ref_feeds if mine else trial.keras_feeds,
        )
        return made

    def _run_keras(self, keras: KerasCode, side: str) -> list[str]:
        """A side that Keras runs, as lines that end with its tensors in `expected` or `actual`."""
        trial, mine = self.trial, side == "ref"
        unit, feeds = (trial.pair.ref, trial.ref_feeds) if mine else (trial.pair.keras, trial.keras_feeds)
        prefix = "reference " if mine else ""
        self.arrays |= {prefix + name: value for name, value in keras.arrays.items()}
        self.arrays |= {f"{prefix}input {tensor}": value for tensor, value in feeds.items()}
        upstream = trial.upstream(side) if self.backward else None
        if upstream:
            self.arrays[f"{prefix}upstream"] = np.asarray(upstream[unit.output])
        given = "{k[10:]: v for k, v in ARRAYS.items() if k.startswith('reference ')}" if mine else "ARRAYS"
        lines = keras_lines(keras, list(feeds), unit.output, is_loss=trial.is_loss, backward=self.backward)
        name = "reference" if mine else "ported"
        return [
            f"def {name}(ARRAYS):",
            *(f"    {line}" if line else "" for line in lines),
            "", "",
            f"{'expected' if mine else 'actual'} = {name}({given})",
            "", "",
        ]  # fmt: skip

    def _compared(self, names: Sequence[str], keras: KerasCode) -> list[_Compared]:
        trial = self.trial
        states = [self.stepper.state(s.index) for s in self.stepper.stops if s.pair is trial.pair]
        seen = [p for state in states if state for p in state.probes if p.step == self.stop.step]
        floors = {p.tensor: p.floor or 0.0 for p in seen}
        born = {p.tensor for p in seen if p.status == "born"}
        first = "loss" if trial.is_loss else "output"
        local = trial.run_ref()

        def limit(name: str) -> float:
            """What rounding may do; of what differs by less than would be plenty for that, half of what it does."""
            expected, actual = trial.tensor(local, "ref", name), trial.tensor(trial.keras_local, "keras", name)
            same = None if expected is None or actual is None else shaped(actual, expected.shape)
            plenty = _ROUNDING * floors.get(name, 0.0)
            if name not in born or same is None or expected is None:
                return plenty
            return min(plenty, distance(same, expected).rms / 2)

        made = [_Compared(first, (first,), first, "", limit(first))]
        for name, (source, *theirs) in trial.named.sources.items() if self.backward else ():
            if f"input:{source}" in names and len(theirs) == 1:
                made.append(_Compared(name, (f"input:{source}",), f"input:{theirs[0]}", "", limit(name)))
        for name, link in trial.named.gradients.items() if self.backward else ():
            keys = tuple(f"param:{key}" for key in link.ref)
            if name in floors and link.keras in keras.variables and all(key in names for key in keys):  # if judged
                index = f"layout {name}"
                self.arrays[index] = places(link, trial.bench.ref.network.params)
                made.append(_Compared(name, keys, f"param:{link.keras}", index, limit(name)))
        return made

    # ---- lines

    def _head(self, keras: KerasCode, by_keras: bool, *, custom: bool) -> list[str]:
        stop, pair = self.stop, self.trial.pair
        whose = "reference" if by_keras else "MatConvNet network"
        words = textwrap.wrap(
            f"{stop.layer} of the {whose} against {stop.keras_layer} of the Keras model, on the same inputs"
            f"{' and gradients' if self.backward else ''}, with the same weights.", 110,
        )  # fmt: skip
        lines = [
            '"""' + words[0],
            *words[1:],
            "",
            f"It needs numpy{'' if by_keras else ', torch'} and Keras alone: python repro.py",
            f"Written with {_versions(self.trial.bench)}.",
            '"""',
            "",
            "import os",
            *(["import runpy"] if custom else []),
            "import sys",
            "from pathlib import Path",
            "",
        ]
        lines += ['os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")']
        if "import keras" in keras.imports:
            lines.append(f'os.environ["KERAS_BACKEND"] = {text(keras.backend)}')
        lines += ["", *keras.imports, "import numpy as np"]
        lines += ["import torch"] if keras.backend == "torch" or not by_keras else []
        lines += ["import jax"] if keras.backend == "jax" and self.backward else []
        lines += ["import tensorflow as tf"] if keras.backend == "tensorflow" else []
        if not by_keras:
            lines += ["from torch import device, inf, nan  # noqa: F401", "", "aten = torch.ops.aten"]
        lines += ['ARRAYS = dict(np.load(Path(__file__).with_name("tensors.npz")))']
        lines += [f'CUSTOM = runpy.run_path(str(Path(__file__).with_name("{_CUSTOM}")))'] if custom else []
        lines += ["", ""]
        kinds = f"{type(pair.ref.kind).__name__} {_fields(pair.ref.kind)}", f"{_fields(pair.keras.kind)}"
        lines += comment(f"The reference: {kinds[0]}{'' if by_keras else ', in operators of torch'}.")
        lines += comment(f"Keras: {kinds[1]}.") if type(pair.ref.kind) is type(pair.keras.kind) else []
        return [*lines, "", ""]

    def _torch(self, ref: TorchCode) -> list[str]:
        """The reference as torch runs it, as lines that end with its tensors in `expected`."""
        self.arrays |= {f"reference {i}": value for i, value in enumerate(ref.arguments)}
        self.arrays |= {f"reference {name}": value for name, value in ref.constants.items()}
        given = ", ".join(f'torch.from_numpy(ARRAYS["reference {i}"])' for i in range(len(ref.arguments)))
        constants = [f'    {name} = torch.from_numpy(ARRAYS["reference {name}"])' for name in ref.constants]
        return [
            "class Constants:",
            '    """What the reference\'s code reads beside its arguments."""',
            *(["", *constants] if constants else []),
            "", "",
            *ref.code.splitlines(),
            "", "",
            f"made = reference(Constants, {given})",
            f"names = {list(ref.names)!r}",
            "expected = {name: value.detach().numpy() for name, value in zip(names, made)}",
            "", "",
        ]  # fmt: skip

    def _tail(self, compared: list[_Compared]) -> list[str]:
        rows = [f"    ({text(c.name)}, {list(c.ref)!r}, {text(c.keras)}, {text(c.index)}, {c.limit:.3g}),"
                for c in compared]  # fmt: skip
        return [
            "# What is compared: name, the reference's tensors, Keras', their layout in Keras, what rounding may do.",
            *verdict_lines("name, refs, other, layout, limit", rows, "values", _EACH),
        ]


_EACH = (
    "want = expected.get(refs[0], np.zeros(1))",
    "if layout:",
    "    want = np.concatenate([[0.0], *(expected[ref].ravel() for ref in refs)])[ARRAYS[layout]]",
    "have = actual.get(other, np.zeros(1))",
    "if have.size != want.size:",
    '    print(f"{name:<10} has {have.size} values in Keras and {want.size} in the reference")',
    "    diverged = True",
    "    continue",
)
"""What both sides show of one tensor."""


def _versions(bench: Bench) -> str:
    """What both sides run on, e.g. `keras 3.15.1, tensorflow 2.21.0`."""
    engine = dict(bench.keras.engine)
    named = {engine.pop("framework", ""): engine.pop("version", ""), **engine}
    if bench.ref.engine.get("name") == "torch":
        named |= {"torch": bench.ref.engine["version"]}
    return ", ".join(f"{name} {held}" for name, held in named.items() if isinstance(held, str))


def _fields(kind: Any) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in kind.describe().items())


def _write(folder: Path, code: str, arrays: Mapping[str, Array], custom: Any) -> None:
    """The files; `custom` is the path of the classes that the script needs, or None."""
    from parity.reports.output import replacing, write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadUsage(f"--repro {folder}: cannot be made ({error.strerror or error})") from None
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # pyright: ignore[reportArgumentType]
    with replacing(folder / "tensors.npz", "--repro") as name:
        Path(name).write_bytes(held.getvalue())
    if custom is not None:
        write(folder / _CUSTOM, Path(custom).read_text(encoding="utf-8"), "--repro")
    write(folder / "repro.py", code, "--repro")
