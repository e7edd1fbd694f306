"""Which stored arrays belong to which layer, and the layers' parameters, from the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.frameworks.keras.configs import Call, Walk
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.kinds import (
    argument_of,
    axes_of,
    described,
    initializer_text,
    other_penalty,
    penalty_coefficients,
    role_of,
)
from parity.frameworks.keras.stored import Stored
from parity.frameworks.keras.variables import SUBLAYERS, split, variables_of
from parity.layers import Kind
from parity.network import Param

__all__ = ["leaves_of", "params_of"]

_STATISTICS = ("mean", "variance", "count")


def leaves_of(file: KerasFile, walked: Walk) -> dict[str, tuple[Stored, ...]]:
    """Leaf's path → its arrays, in the order of its variables.

    Args:
        file: its facts.
        walked: the calls of its `model_config`.
    """
    if file.repaired or file.format == "savedmodel":
        return dict(file.weights)
    first: dict[str, Call] = {}
    for call in walked.calls:
        first.setdefault(call.path, call)
    if file.by_place:
        return {path: _placed(file.weights, call.place) for path, call in first.items() if call.place}
    found: dict[str, tuple[Stored, ...]] = {}
    inside: dict[str, list[Call]] = {}
    for path, call in first.items():
        top = _container(file.weights, path)
        if top:
            inside.setdefault(top, []).append(call)
        else:
            found[path] = file.weights.get(path, ())
    for top, calls in inside.items():
        arrays = file.weights.get(top, ())
        shares = split([call.entry for call in _in_order(calls, walked)], arrays, file.era == 1)
        if shares is not None:
            found |= {call.path: share for call, share in zip(_in_order(calls, walked), shares, strict=True)}
            continue
        for call in calls:  # their names say whose they are: `base/conv2d_1/kernel:0`
            leaf = call.path.rsplit("/", 1)[-1]
            found[call.path] = tuple(s for s in arrays if leaf in s.name.split("/")[:-1])
    return found


def _container(weights: Mapping[str, tuple[Stored, ...]], path: str) -> str:
    """The outermost submodel that holds a leaf; empty for a leaf of the model itself, whose name may hold slashes."""
    if path in weights or "/" not in path:
        return ""
    words = path.split("/")
    heads = ("/".join(words[:i]) for i in range(1, len(words)))
    return next((head for head in heads if head in weights), words[0])


def _in_order(calls: Sequence[Call], walked: Walk) -> list[Call]:
    """A submodel's leaves in the order of its layers, which is that of its weights."""
    return sorted(calls, key=lambda call: walked.ranks.get(call.path, 0))


def _placed(weights: Mapping[str, tuple[Stored, ...]], place: str) -> tuple[Stored, ...]:
    """A leaf's arrays in an archive: its own, then those of the layers inside it (`layers/lstm/cell`)."""
    own = weights.get(place)
    if own is not None and not any(folder.startswith(f"{place}/") for folder in weights):
        return own
    found: list[tuple[list[int], str]] = []
    for folder in weights:
        if folder == place or folder.startswith(f"{place}/"):
            words = folder.removeprefix(place).strip("/").split("/") if folder != place else []
            if "seed_generator" in words:
                continue
            words = [word.lstrip("_") for word in words]  # Keras 2's attention hides its layers
            ranks = [SUBLAYERS.index(word) if word in SUBLAYERS else len(SUBLAYERS) for word in words]
            found.append((ranks, folder))
    return tuple(stored for _, folder in sorted(found) for stored in weights[folder])


def params_of(file: KerasFile, call: Call, kind: Kind, arrays: Sequence[Stored]) -> list[Param]:
    """A leaf's parameters, named as the executed graph names them.

    Args:
        file: its facts.
        call: a call of the leaf.
        kind: what it computes.
        arrays: its arrays, in the order of its variables.
    """
    name = str(call.entry["class_name"])
    raw = call.entry["config"]
    config: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    words = _words(file, name, config, arrays)
    found: dict[str, Param] = {}
    for word, stored in zip(words, arrays, strict=True):
        role = word if name.startswith("Separable") else role_of(word)
        word = {"W": "kernel", "b": "bias"}.get(word, word)
        settings = _settings_of(name, config)
        initial = argument_of(settings.get, word, "initializer")
        initial = settings.get("init") if initial is None and role == "kernel" else initial
        regularizer = argument_of(settings.get, word, "regularizer")
        l1, l2 = penalty_coefficients(regularizer)
        pid, again = f"{call.path}.{role}", 1
        while pid in found:
            again += 1
            pid = f"{call.path}.{role}#{again}"
        found[pid] = Param(
            id=pid,
            role=pid.split(".", 1)[1] if again > 1 else role,
            axes=axes_of(kind, role, stored.shape, name),
            shape=stored.shape,
            trainable=bool(config.get("trainable", True)) and role not in _STATISTICS,
            l1=l1,
            l2=l2,
            penalty=other_penalty(regularizer),
            constraint=described(argument_of(settings.get, word, "constraint")),
            initializer=initializer_text(initial) if settings is config else None,
            source=stored.name,
        )
    return list(found.values())


def _settings_of(name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whose settings a variable has: a wrapper's variables are those of the layer inside it."""
    inner = config.get("layer")
    if name in ("TimeDistributed", "Bidirectional") and isinstance(inner, Mapping):
        settings = inner.get("config")
        return settings if isinstance(settings, Mapping) else {}
    return config


def _words(file: KerasFile, name: str, config: Mapping[str, Any], arrays: Sequence[Stored]) -> list[str]:
    """The variables' names: the file's own, or (numbered ones) those that a layer of this class has."""
    if not file.by_place and file.format != "savedmodel" and not file.repaired:
        return [stored.name.rsplit("/", 1)[-1].split(":")[0] for stored in arrays]
    known = variables_of(name, config)
    names = [*known[0], *known[1]] if known else []
    if len(names) == len(arrays):
        return names
    if not file.by_place:
        return [stored.name.rsplit("/", 1)[-1].split(":")[0] for stored in arrays]
    return [names[i] if i < len(names) else f"variable_{i}" for i in range(len(arrays))]
