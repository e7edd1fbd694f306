"""What a file says, in words that a Keras of today understands: Keras 1's, Theano's, and channels that come first.

A file that needs none of it passes as it is. Nothing is built and no array is read: `weights` says for every
leaf how its arrays are made of the file's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.calls import shapes_of
from parity.frameworks.keras.channels_first import keeps_channels_first, rewritten
from parity.frameworks.keras.configs import Call, is_model, layers_of, name_of, walk, with_names
from parity.frameworks.keras.cudnn import plain_rnn, plain_weights, uses_cudnn
from parity.frameworks.keras.files import KerasFile, guard
from parity.frameworks.keras.leaves import leaves_of
from parity.frameworks.keras.legacy import is_old
from parity.frameworks.keras.legacy import repaired as in_todays_words
from parity.frameworks.keras.legacy_weights import CONVOLUTIONS, laid_out
from parity.frameworks.keras.modules import holds_operations, with_modules
from parity.frameworks.keras.stored import Stored

__all__ = ["repaired"]


def repaired(file: KerasFile) -> KerasFile:
    """The file with its model in today's words and with channels last; the same object where nothing changes.

    Raises:
        BadFile: the configuration contradicts itself, or an array does not fit its layer.
    """
    if file.repaired or file.original or not is_model(file.model_config):
        return file
    with guard(file.path):
        config = file.model_config
        old = is_old(config, file.era)
        theano = _theano(file)
        first = keeps_channels_first(config) or _first_ordering(config)
        cudnn = uses_cudnn(config)
        if file.era == 3 and file.format == "hdf5" and holds_operations(config):
            file = with_modules(file)
        if not (old or theano or first or cudnn):
            return file
        return _Repair(file, theano).run(old, cudnn)


def _theano(file: KerasFile) -> bool:
    """Whether the kernels are those of true convolutions.

    Keras 2 writes its backend. Keras 1 does not, but its names do: tensorflow's variables end in `:0`.
    """
    if file.backend or file.era > 2:
        return file.backend == "theano"
    names = [stored.name for arrays in file.weights.values() for stored in arrays]
    return file.era == 1 and bool(names) and not any(":" in name for name in names)


def _first_ordering(item: Any) -> bool:
    if isinstance(item, Mapping):
        return item.get("dim_ordering") == "th" or any(_first_ordering(part) for part in item.values())
    return isinstance(item, list) and any(_first_ordering(part) for part in item)


class _Repair:
    def __init__(self, file: KerasFile, theano: bool) -> None:
        self.file, self.theano = file, theano
        self.remarks: list[str] = list(file.remarks)

    def run(self, old: bool, cudnn: bool) -> KerasFile:
        file = self.file
        stored = list(file.weights) if file.format == "hdf5" else []
        before = with_names(file.model_config, stored)
        entry: Mapping[str, Any] = before
        try:
            if old:
                entry = in_todays_words(before, file.era)
                if file.era == 1:
                    self.remarks.append(
                        f"saved by Keras {file.version or '1'}: its configuration is put into words of Keras 2"
                    )
            if cudnn:
                entry = plain_rnn(entry)
        except ValueError as error:
            raise BadFile(file.path, f"its model {error}", "compare a model built in Python") from error
        entry = _spelled(entry, "sequential")
        # The file's own entries decide how its arrays are counted; their order is the same.
        middle = replace(file, model_config=before)
        own = walk(file.path, before, stored) if not _merged(before) else walk(file.path, entry, stored)
        arrays = leaves_of(middle, own)
        walked = walk(file.path, entry, stored)
        leaves = self._laid_out(walked.calls, arrays, own.calls)
        turned: tuple[str, ...] = ()
        if keeps_channels_first(entry):
            try:
                work = rewritten(entry, lambda made: shapes_of(file.path, made, stored))
                leaves |= {
                    path: self._changed(path, leaves, work.changes[path]) for path in work.changes if path in leaves
                }
            except ValueError as error:
                raise BadFile(file.path, f"its model {error}", "compare a model built in Python") from error
            entry, turned = work.entry, work.inputs
            self.remarks.append(
                "keeps its channels first; it runs with channels last, and everything is shown as n h w c"
            )
        return replace(
            file,
            model_config=entry,
            original=file.model_config,
            repaired=True,
            turned=turned,
            weights=leaves,
            remarks=tuple(self.remarks),
        )

    def _changed(self, path: str, leaves: Mapping[str, tuple[Stored, ...]], change: Any) -> tuple[Stored, ...]:
        try:
            return tuple(change(stored) for stored in leaves[path])
        except ValueError as error:
            raise BadFile(self.file.path, f"layer {path} {error}") from error

    def _laid_out(
        self, calls: Sequence[Call], arrays: Mapping[str, tuple[Stored, ...]], own: Sequence[Call]
    ) -> dict[str, tuple[Stored, ...]]:
        """Every leaf's arrays as the repaired leaf has them."""
        file, found, turned = self.file, dict[str, tuple[Stored, ...]](), 0
        before = {call.path: call.entry for call in own}
        for call in calls:
            if call.path in found or call.path not in arrays:
                continue
            try:
                made = laid_out(call.entry, arrays[call.path], file.era, self.theano)
                found[call.path] = plain_weights(before.get(call.path, call.entry), made)
            except (ValueError, IndexError) as error:
                raise BadFile(file.path, f"layer {call.path} {error}") from error
            turned += bool(made) and self.theano and _convolves(call.entry)
        if turned:
            self.remarks.append(
                f"kernel-flip: saved on Theano, whose convolutions turn their kernels; the kernels of {turned} "
                f"layer{'s' if turned > 1 else ''} were rotated by 180° when they were read, as Keras' own loader did"
            )
        return found


def _convolves(entry: Mapping[str, Any]) -> bool:
    config = entry.get("config")
    inner = config.get("layer") if isinstance(config, Mapping) else None
    return entry.get("class_name") in CONVOLUTIONS or (isinstance(inner, Mapping) and _convolves(inner))


def _merged(entry: Mapping[str, Any]) -> bool:
    """Whether a model, or a submodel, is a Sequential that begins with a Merge of others."""
    layers = layers_of(entry)
    first = layers[0] if layers else None
    if isinstance(first, Mapping) and first.get("class_name") == "Merge":
        return True
    return any(isinstance(layer, Mapping) and is_model(layer) and _merged(layer) for layer in layers)


def _spelled(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A model in which every Sequential is written with its name, as Keras 2.2 and later write it."""
    entry = {**entry}
    config = entry["config"]
    layers = [_spelled(layer, name_of(layer)) if is_model(layer) else copy.copy(layer) for layer in layers_of(entry)]
    if isinstance(config, list):
        entry["config"] = {"name": str(entry.get("name") or name), "layers": layers}
    else:
        entry["config"] = {**config, "layers": layers}
    return entry
