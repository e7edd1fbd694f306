"""A script with its tensors that shows one layer's divergence with Keras and torch alone, for a bug report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.bench import Trial, Unfit
from parity.debugger.stops import Stop
from parity.errors import BadUsage, ParityError
from parity.frameworks.keras.edits.code import comment, text
from parity.runner import Targets
from parity.tensors import shaped
from parity.tolerance import distance
from parity.transfer import Link

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper
    from parity.frameworks.keras.excerpt import KerasCode
    from parity.frameworks.matconvnet.excerpt import TorchCode

__all__ = ["write_repro"]

Array = np.ndarray

_RUNS = ("forward", "loss", "backward")
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
    scene = stepper.scene(stop.index)
    scene.ready()
    assert stop.pair is not None
    trial = scene.bench(backward=stop.phase == "backward").trial(stop.pair)
    scene.set_weights(trial.bench, stop.pair)
    try:
        code = _Script(stepper, stop, _smallest(trial)).text()
    except (NotImplementedError, ParityError, Unfit, KeyError, ValueError) as problem:
        what = " ".join(str(problem).split())
        raise BadUsage(f"repro: {stop.layer} cannot be written as a script: {what}") from None
    _write(folder, *code)
    return f"wrote {folder / 'repro.py'} and tensors.npz: {stop.words}; it runs with `python {folder / 'repro.py'}`"


def _chosen(stepper: Stepper) -> Stop:
    """The stop to show: this layer's first that is born, else the first of all."""

    def born(stop: Stop) -> bool:
        state = stepper.state(stop.index)
        return stop.pair is not None and stop.phase in _RUNS and state is not None and state.status == "born"

    here = stepper.stop
    found = [stop for stop in stepper.stops if born(stop)]
    same = [stop for stop in found if stop.layer == here.layer]
    if same or found:
        return (same or found)[0]
    while stepper.position + 1 < len(stepper.stops) and not born(stepper.stop):
        before = stepper.position
        stepper.resume()
        if stepper.position == before:
            break
    if not born(stepper.stop):
        raise BadUsage("repro: no layer diverges when it is run alone on the reference's inputs")
    return stepper.stop


def _smallest(trial: Trial) -> Trial:
    """The trial on as few images as still show the divergence."""
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
            if _apart(found) > 0.3 * whole:
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


def _apart(trial: Trial) -> float:
    """The largest relative distance of the two isolated runs."""
    mine, theirs = trial.run_ref(), trial.keras_local
    found = [0.0]
    for name in trial.named.names:
        expected, actual = trial.tensor(mine, "ref", name), trial.tensor(theirs, "keras", name)
        same = None if expected is None or actual is None else shaped(actual, expected.shape)
        if same is not None and expected is not None:
            found.append(min(distance(same, expected).relative, 1e6))
        elif expected is not None and actual is not None:
            found.append(1e6)
    return max(found)


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
        torch_side, keras_side = self._reference(), self._keras()
        self.arrays |= keras_side.arrays
        for i, value in enumerate(torch_side.arguments):
            self.arrays[f"reference {i}"] = value
        self.arrays |= {f"reference {name}": value for name, value in torch_side.constants.items()}
        for tensor, value in self.trial.keras_feeds.items():
            self.arrays[f"input {tensor}"] = value
        upstream = self.trial.upstream("keras") if self.backward else None
        if upstream:
            self.arrays["upstream"] = np.asarray(upstream[self.trial.pair.keras.output])
        compared = self._compared(torch_side, keras_side)
        if self.backward and keras_side.backend == "jax":
            raise NotImplementedError("gradients on jax")
        lines = [*self._head(keras_side), *self._torch(torch_side), *self._run_keras(keras_side)]
        return "\n".join([*lines, *self._tail(compared)]) + "\n", self.arrays

    def _reference(self) -> TorchCode:
        from parity.frameworks.matconvnet.excerpt import torch_code

        trial, bench = self.trial, self.trial.bench
        if bench.ref.network.framework != "matconvnet":
            raise NotImplementedError("the reference is a Keras model")
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

    def _keras(self) -> KerasCode:
        excerpt = getattr(self.trial.bench.keras, "excerpt", None)
        if excerpt is None or hasattr(self.trial.bench.keras, "inner"):
            raise NotImplementedError("the Keras side is no model that runs here")
        bench, pair = self.trial.bench, self.trial.pair
        return excerpt(
            pair.keras.layers, bench.keras_values, labels=bench.labels_keras, mode=bench.mode, masks=bench.masks,
            feeds=self.trial.keras_feeds,
        )  # fmt: skip

    def _compared(self, ref: TorchCode, keras: KerasCode) -> list[_Compared]:
        trial = self.trial
        states = [self.stepper.state(s.index) for s in self.stepper.stops if s.pair is trial.pair]
        floors = {
            p.tensor: p.floor or 0.0 for state in states if state for p in state.probes if p.step == self.stop.step
        }
        first = "loss" if trial.is_loss else "output"
        made = [_Compared(first, (first,), first, "", floors.get(first, 0.0))]
        for name, (source, *theirs) in trial.named.sources.items() if self.backward else ():
            if f"input:{source}" in ref.names and len(theirs) == 1:
                made.append(_Compared(name, (f"input:{source}",), f"input:{theirs[0]}", "", floors.get(name, 0.0)))
        for name, link in trial.named.gradients.items() if self.backward else ():
            keys = tuple(f"param:{key}" for key in link.ref)
            if link.keras in keras.variables and all(key in ref.names for key in keys):
                index = f"layout {name}"
                self.arrays[index] = _places(link, trial.bench.ref.network.params)
                made.append(_Compared(name, keys, f"param:{link.keras}", index, floors.get(name, 0.0)))
        return made

    # ---- lines

    def _head(self, keras: KerasCode) -> list[str]:
        stop, pair = self.stop, self.trial.pair
        versions = {**self.trial.bench.keras.engine}
        made_with = ", ".join(f"{k} {v}" for k, v in versions.items() if isinstance(v, str | int))
        words = (
            f"{stop.layer} of the MatConvNet network against {stop.keras_layer} of the Keras model, on the same inputs"
            f"{' and gradients' if self.backward else ''}, with the same weights."
        )
        lines = [
            '"""' + words,
            "",
            "It needs numpy, torch and Keras alone: python repro.py",
            f"Written with {made_with}.",
        ]
        lines += ['"""', "", "import os", "import sys", "from pathlib import Path", ""]
        lines += ['os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")']
        if "import keras" in keras.imports:
            lines.append(f'os.environ["KERAS_BACKEND"] = {text(keras.backend)}')
        lines += ["", *keras.imports, "import numpy as np", "import torch"]
        lines += ["import tensorflow as tf"] if keras.backend == "tensorflow" else []
        lines += ["from torch import device, inf, nan  # noqa: F401", "", "aten = torch.ops.aten"]
        lines += ['ARRAYS = dict(np.load(Path(__file__).with_name("tensors.npz")))', "", ""]
        kinds = f"{type(pair.ref.kind).__name__} {_fields(pair.ref.kind)}", f"{_fields(pair.keras.kind)}"
        lines += comment(f"The reference: {kinds[0]}, as torch's own operators.")
        lines += comment(f"Keras: {kinds[1]}.") if type(pair.ref.kind) is type(pair.keras.kind) else []
        return [*lines, "", ""]

    def _torch(self, ref: TorchCode) -> list[str]:
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

    def _run_keras(self, keras: KerasCode) -> list[str]:
        pair, trial = self.trial.pair, self.trial
        feeds = ", ".join(f'{text(t)}: constant(ARRAYS["input {t}"])' for t in trial.keras_feeds)
        torch_backend = keras.backend == "torch"
        constant = "torch.from_numpy(value)" if torch_backend else "tf.constant(value)"
        lines = ["def constant(value):", f"    return {constant}", "", ""]
        if keras.backend == "jax":
            lines = ["def constant(value):", "    return keras.ops.convert_to_tensor(value)", "", ""]
        mean = {"torch": "torch.mean(value)", "tensorflow": "tf.reduce_mean(value)"}.get(keras.backend, "value.mean()")
        lines += ["def mean(value):", f"    return {mean}", "", ""]
        lines += ["layers = {", *(f"    {line}" for line in keras.layers), "}", "", ""]
        lines += [
            "def forward(t):",
            *(f"    {line}" for line in keras.forward),
            f"    return t[{text(pair.keras.output)}]",
        ]
        lines += ["", "", f"inputs = {{{feeds}}}", "forward(dict(inputs))  # builds the layers"]
        lines += [
            f"layers[{text(path)}].set_weights([ARRAYS[name] for name in {list(names)!r}])"
            for path, names in keras.weights.items()
            if names
        ]
        first = "loss" if trial.is_loss else "output"
        if not self.backward:
            plain = "keras.ops.convert_to_numpy(output)" if "import keras" in keras.imports else "np.asarray(output)"
            return [*lines, "output = forward(dict(inputs))", f"actual = {{{text(first)}: {plain}}}", ""]
        weights = dict(keras.variables)
        held = ", ".join(f"{text(f'param:{p}')}: layers[{text(a)}].weights[{i}]" for p, (a, i) in weights.items())
        lines += [f"weights = {{{held}}}", 'called = [*(f"input:{name}" for name in inputs), *weights]']
        raw = "variable.value" if "import keras" in keras.imports else "variable"
        upstream = "" if trial.is_loss else ' * constant(ARRAYS["upstream"])'
        total = f"(output{upstream}).sum()" if torch_backend else f"tf.reduce_sum(output{upstream})"
        if torch_backend:
            lines += [
                "for tensor in inputs.values():",
                "    tensor.requires_grad_()",
                "output = forward(dict(inputs))",
                "sources = [*inputs.values(), *(variable.value for variable in weights.values())]",
                f"grads = torch.autograd.grad({total}, sources, allow_unused=True)",
                "numpy = lambda tensor: tensor.detach().numpy()",
            ]
        else:
            lines += [
                f"sources = [*inputs.values(), *({raw} for variable in weights.values())]",
                "with tf.GradientTape() as tape:",
                "    for source in sources:",
                "        tape.watch(source)",
                "    output = forward(dict(inputs))",
                f"    objective = {total}",
                "grads = tape.gradient(objective, sources)",
                "numpy = lambda tensor: np.asarray(tensor)",
            ]
        lines += [f"actual = {{{text(first)}: numpy(output)}}"]
        lines += ["actual |= {name: numpy(g) for name, g in zip(called, grads) if g is not None}", ""]
        return lines

    def _tail(self, compared: list[_Compared]) -> list[str]:
        rows = [f"    ({text(c.name)}, {list(c.ref)!r}, {text(c.keras)}, {text(c.index)}, {_ROUNDING * c.limit:.3g}),"
                for c in compared]  # fmt: skip
        return [
            "# What is compared: name, the reference's tensors, Keras', their layout in Keras, what rounding may do.",
            "COMPARED = [", *rows, "]", "",
            "diverged = False",
            'print(f"{\'tensor\':<10}{\'largest difference\':>20}{\'of values up to\':>18}")',
            "for name, refs, other, layout, limit in COMPARED:",
            "    want = expected[refs[0]]",
            "    if layout:",
            "        want = np.concatenate([[0.0], *(expected[ref].ravel() for ref in refs)])[ARRAYS[layout]]",
            "    have = actual.get(other, np.zeros(1))",
            "    if have.size != want.size:",
            '        print(f"{name:<10} has {have.size} values in Keras and {want.size} in the reference")',
            "        diverged = True",
            "        continue",
            "    gap = np.abs(have.reshape(want.shape).astype(float) - want)",
            "    differs = not np.sqrt(np.mean(gap**2)) <= max(limit, 1e-30)",
            "    diverged |= differs",
            '    print(f"{name:<10}{gap.max():>20.3e}{np.abs(want).max():>18.3e}{\'  differs\' if differs else \'\'}")',
            "sys.exit(1 if diverged else 0)",
        ]  # fmt: skip


def _places(link: Link, params: Mapping[str, Any]) -> Array:
    """Where each element of the Keras layout comes from: 0 for a zero, else 1 + place in the reference's arrays."""
    assert link.to_keras is not None
    given: dict[str, Array] = {}
    start = 1
    for key in link.ref:
        shape = params[key].shape
        size = int(np.prod(shape))
        given[key] = np.arange(start, start + size, dtype=np.float64).reshape(shape)
        start += size
    return np.asarray(link.to_keras(given)).round().astype(np.int64)


def _fields(kind: Any) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in kind.describe().items())


def _write(folder: Path, code: str, arrays: Mapping[str, Array]) -> None:
    from parity.reports.output import replacing, write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadUsage(f"--repro {folder}: cannot be made ({error.strerror or error})") from None
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # pyright: ignore[reportArgumentType]
    with replacing(folder / "tensors.npz", "--repro") as name:
        Path(name).write_bytes(held.getvalue())
    write(folder / "repro.py", code, "--repro")
