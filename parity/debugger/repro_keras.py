"""Layers of a Keras model as lines of a script that runs them, with their gradients, on what it is given."""

from __future__ import annotations

from collections.abc import Sequence

from parity.frameworks.keras.edits.code import text
from parity.frameworks.keras.excerpt import KerasCode

__all__ = ["keras_lines"]


def keras_lines(keras: KerasCode, inputs: Sequence[str], output: str, *, is_loss: bool, backward: bool) -> list[str]:
    """The body of a function of ARRAYS that returns what the layers show: name → array.

    Args:
        keras: the layers as code.
        inputs: tensors that they are fed, which are in ARRAYS as `input NAME`.
        output: the tensor that they make.
        is_loss: whether that is a loss.
        backward: with gradients, of `input:NAME` and `param:ID`; the one that comes from above is `upstream`.
    """
    feeds = ", ".join(f'{text(t)}: constant(ARRAYS["input {t}"])' for t in inputs)
    torch_backend = keras.backend == "torch"
    constant = "torch.from_numpy(value)" if torch_backend else "tf.constant(value)"
    lines = ["def constant(value):", f"    return {constant}", "", ""]
    if keras.backend == "jax":
        lines = ["def constant(value):", "    return keras.ops.convert_to_tensor(value)", "", ""]
    called = "\n".join([*keras.forward, "total(" if backward else ""])
    for name, rule in (("mean", "mean"), ("total", "sum")):
        operation = f"tf.reduce_{rule}(value)" if keras.backend == "tensorflow" else f"value.{rule}()"
        if f"{name}(" in called:
            lines += [f"def {name}(value):", f"    return {operation}", "", ""]
    lines += ["layers = {", *(f"    {line}" for line in keras.layers), "}", "", ""]
    lines += [
        "def forward(t):",
        *(f"    {line}" for line in keras.forward),
        f"    return t[{text(output)}]",
    ]
    lines += ["", "", f"inputs = {{{feeds}}}", "forward(dict(inputs))  # builds the layers"]
    lines += [
        f"layers[{text(path)}].set_weights([ARRAYS[name] for name in {list(names)!r}])"
        for path, names in keras.weights.items()
        if names
    ]
    first = "loss" if is_loss else "output"
    if not backward:
        plain = "keras.ops.convert_to_numpy(output)" if "import keras" in keras.imports else "np.asarray(output)"
        return [*lines, "output = forward(dict(inputs))", f"return {{{text(first)}: {plain}}}"]
    weights = dict(keras.variables)
    held = ", ".join(f"{text(f'param:{p}')}: layers[{text(a)}].weights[{i}]" for p, (a, i) in weights.items())
    lines += [f"weights = {{{held}}}", 'called = [*(f"input:{name}" for name in inputs), *weights]']
    raw = "variable.value" if "import keras" in keras.imports else "variable"
    upstream = "" if is_loss else ' * constant(ARRAYS["upstream"])'
    total = f"total(output{upstream})"
    if keras.backend == "jax":
        lines += [
            "def objective(sources):",
            "    given = dict(zip(inputs, sources))",
            "    values = zip(weights.values(), sources[len(inputs):])",
            "    with keras.StatelessScope(state_mapping=list(values)):",
            "        output = forward(given)",
            f"    return {total}, output",
            "", "",
            "sources = [*inputs.values(), *(variable.value for variable in weights.values())]",
            "grads, output = jax.grad(objective, has_aux=True)(sources)",
            "numpy = np.asarray",
        ]  # fmt: skip
    elif torch_backend:
        lines += [
            "for tensor in inputs.values():",
            "    tensor.requires_grad_(tensor.is_floating_point())",
            "output = forward(dict(inputs))",
            "sources = [*inputs.values(), *(variable.value for variable in weights.values())]",
            "called = [name for name, source in zip(called, sources) if source.requires_grad]",
            "sources = [source for source in sources if source.requires_grad]",
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
    return [
        *lines,
        f"made = {{{text(first)}: numpy(output)}}",
        "return made | {name: numpy(g) for name, g in zip(called, grads) if g is not None}",
    ]
