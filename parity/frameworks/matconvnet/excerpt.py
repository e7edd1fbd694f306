"""Some layers of a MatConvNet network as torch code that needs nothing of parity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.frameworks.matconvnet.labels import labels_of
from parity.frameworks.matconvnet.tensors import to_torch
from parity.layers import Context, Dropout, Loss
from parity.network import Network
from parity.runner import Targets

if TYPE_CHECKING:
    import torch

__all__ = ["TorchCode", "torch_code"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class TorchCode:
    """A function in torch's own operators.

    Attributes:
        code: of `def reference(self, ...)`.
        arguments: their arrays, in order, activations n h w c.
        constants: attribute of `self` → array.
        names: what it returns, in order: an output or `loss`, `input:TENSOR` and `param:ID` for gradients.
        values: what it returned.
    """

    code: str
    arguments: tuple[Array, ...]
    constants: Mapping[str, Array]
    names: tuple[str, ...]
    values: tuple[Array, ...]


def torch_code(
    network: Network,
    layers: Sequence[str],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    *,
    targets: Targets | None,
    upstream: Mapping[str, Array] | None,
    mode: str,
    masks: Mapping[str, Array],
) -> TorchCode:
    """Trace layers, and their gradients where there is an upstream one, down to torch's operators.

    Args are those of `Runner.isolate`.

    Raises:
        NotImplementedError: a layer has no forward, or decides by values, which no trace can hold.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    chosen = [network[name] for name in layers]
    inputs = list(feeds)
    params = list(dict.fromkeys(key for layer in chosen for key in layer.params.values()))
    arrays = [np.ascontiguousarray(feeds[name], np.float32) for name in inputs]
    arrays += [np.ascontiguousarray(weights[key], np.float32) for key in params]
    extra: dict[str, Any] = {}
    loss = next((layer for layer in chosen if isinstance(layer.kind, Loss) and layer in network.losses), None)
    if loss is not None:
        if len(chosen) > 1:
            raise NotImplementedError("a loss that is joined with other layers")
        labels, weighing = labels_of(network, loss, targets, to_torch(arrays[0], 32))
        extra |= {"labels": labels, **({} if weighing is None else {"weights": weighing})}
    for layer in chosen:
        if isinstance(layer.kind, Dropout) and mode == "train" and layer.name in masks:
            extra[f"mask:{layer.name}"] = to_torch(np.asarray(masks[layer.name]), 32)
    made = chosen[-1].output
    if upstream:
        extra["upstream"] = torch.from_numpy(np.ascontiguousarray(upstream[made], np.float32))
    backward = upstream is not None
    names: list[str] = []
    finite = all(bool(np.isfinite(array).all()) for array in arrays)

    def run(*given: torch.Tensor) -> list[torch.Tensor]:
        names.clear()
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(backward) for t in given[: len(arrays)]]
            others = dict(zip(extra, given[len(arrays) :], strict=True))
            tensors = {n: _in(t) for n, t in zip(inputs, leaves, strict=False)}
            held = dict(zip(params, leaves[len(inputs) :], strict=True))
            for layer in chosen:
                context = Context(mode=mode, ties="column", finite=finite)
                context.labels, context.weights = others.get("labels"), others.get("weights")
                context.mask = others.get(f"mask:{layer.name}")
                found = layer.kind.forward(
                    [tensors[n] for n in network.data(layer.inputs)],
                    {role: held[key] for role, key in layer.params.items()},
                    context,
                )
                tensors.update(zip(layer.outputs, found if isinstance(found, tuple | list) else (found,), strict=False))
            output = tensors[made]
            if loss is not None:
                output = (output * network.weight(loss)).sum()
            results = [_out(output)]
            names.append("loss" if loss is not None else "output")
            if backward:
                moved = [key for key in params if network.params[key].trainable]
                wanted = [*leaves[: len(inputs)], *(held[key] for key in moved)]
                called = [f"input:{n}" for n in inputs] + [f"param:{key}" for key in moved]
                seed = None if loss is not None else _in(others["upstream"]).reshape(output.shape)
                grads = torch.autograd.grad(output, wanted, seed, allow_unused=True)
                for name, grad in zip(called, grads, strict=True):
                    if grad is not None:
                        names.append(name)
                        results.append(grad)
        return [result.contiguous() for result in results]

    arguments = [torch.from_numpy(array) for array in arrays] + list(extra.values())
    try:
        module = make_fx(run)(*arguments)
    except (RuntimeError, TypeError, ValueError) as problem:
        raise NotImplementedError(" ".join(str(problem).split())[:160]) from problem
    _plain(module.graph)
    module.recompile()
    values = tuple(value.detach().numpy() for value in module(*arguments))
    constants = {
        name: getattr(module, name).detach().numpy()
        for name in sorted(set(re.findall(r"self\.(_tensor_constant\d+)", module.code)))
    }
    words = [*(_word(n) for n in inputs), *(_word(key) for key in params), *(_word(n) for n in extra)]
    code = _renamed(module.code, words)
    return TorchCode(code, tuple(a.detach().numpy() for a in arguments), constants, tuple(names), values)


def _in(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.movedim(-1, 1) if tensor.dim() > 2 else tensor


def _out(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.movedim(1, -1) if tensor.dim() > 2 else tensor


def _plain(graph: Any) -> None:
    """Without the detaching that only tracing needs."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "detach" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _word(name: str) -> str:
    word = re.sub(r"\W+", "_", name).strip("_")
    return word if word and not word[0].isdigit() else f"t_{word}"


def _renamed(code: str, words: Sequence[str]) -> str:
    """The traced function under a name of its own, its arguments named after what they are."""
    body = code.strip()
    line, _, rest = body.partition("\n")
    found = re.findall(r"\b\w+_\d+\b", line)
    text = f"def reference(self, {', '.join(found)}):\n{rest}"
    for old, new in zip(found, _distinct(words), strict=True):
        text = re.sub(rf"\b{old}\b", new, text)
    text = re.sub(r";  (\w+ = )+None\b", "", text)  # what torch writes to free memory early
    return text.replace("torch.ops.aten.", "aten.").rstrip()


def _distinct(words: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    made: list[str] = []
    for word in words:
        seen[word] = seen.get(word, 0) + 1
        made.append(f"{word}_in" if seen[word] == 1 else f"{word}_in{seen[word]}")
    return made
