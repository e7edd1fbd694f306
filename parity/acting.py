"""What the Keras optimizer does: the recipe that makes its steps, where that is not the one that it declares.

An optimizer of the user's own may do anything. So what a recipe declares is held against the steps that were made; and
where these are others, a number that it does not declare is solved for: a factor on the steps of each parameter, or a
number of the update rule, of a weight decay or of clipping, alone or two at a time. What was solved for on the batch's
gradients must make the steps on others too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from parity.case import Comparison
from parity.network import Param
from parity.optimizers.base import OpaqueRule, UpdateRule
from parity.optimizers.constraints import BOUNDS
from parity.optimizers.updater import Updater
from parity.recipe import Recipe
from parity.replay import Replay, begun_at, replay

__all__ = ["Acting", "acting"]

Array = np.ndarray
Params = Mapping[str, Param]


@dataclass(frozen=True, eq=False)
class Acting:
    """A recipe that makes the Keras optimizer's steps.

    Attributes:
        recipe, params: of the Keras side; what was solved for is in them.
        solved: the numbers that were solved for, as fields of the rule or the recipe; `"factors"` for the multipliers
            of single parameters.
    """

    recipe: Recipe
    params: Params
    solved: frozenset[str] = field(default_factory=frozenset)


def acting(run: Comparison) -> Acting | None:
    """The recipe that makes the Keras optimizer's steps, found once; None where none is known.

    Where no update diverged nothing is tried, and the answer is None.
    """
    if "acting" not in run.explanations:
        born = any(m.status == "born" for m in run.moves)
        tried = replay(run) if born else None
        run.explanations["acting"] = None if tried is None else _found(run, tried)
    return run.explanations["acting"]


def _found(run: Comparison, tried: Replay) -> Acting | None:
    declared = Acting(run.keras.recipe, run.keras.network.params)
    known = not isinstance(declared.recipe.optimizer, OpaqueRule)
    if known and tried.explains(declared.recipe, declared.params):
        return declared
    base = declared if known else _as_reference(run, declared)
    if base is None or _beyond(declared):
        return None
    if not known and tried.explains(base.recipe, base.params):
        return base
    alike = _as_multiplied(run, base)
    if alike is not None and tried.explains(alike.recipe, alike.params):
        return alike
    made = _multiplied(run, tried, base) or _numbers(tried, base)
    return made or (None if alike is None else _numbers(tried, alike))


def _beyond(declared: Acting) -> bool:
    """Whether it declares what no formula here covers: then no number that is solved for would mean anything."""
    held = [param for param in declared.params.values() if param.trainable]
    bounds = [str(param.constraint["class_name"]) for param in held if param.constraint]
    return bool(declared.recipe.extras) or any(p.penalty for p in held) or not BOUNDS.keys() >= set(bounds)


def _as_reference(run: Comparison, declared: Acting) -> Acting | None:
    """An optimizer that the vocabulary does not know, taken for the reference's."""
    ref = run.ref.recipe
    if ref.optimizer is None or isinstance(ref.optimizer, OpaqueRule):
        return None
    return replace(declared, recipe=replace(declared.recipe, optimizer=ref.optimizer))


def _as_multiplied(run: Comparison, base: Acting) -> Acting | None:
    """With the reference's factors on single parameters, which a class may hold; None where it has none."""
    theirs = _factors(run)
    if all(param.rate_multiplier == theirs.get(key, param.rate_multiplier) for key, param in base.params.items()):
        return None
    params = {key: replace(p, rate_multiplier=theirs.get(key, p.rate_multiplier)) for key, p in base.params.items()}
    return Acting(base.recipe, params, frozenset({"factors"}))


def _factors(run: Comparison) -> dict[str, float]:
    """Keras id → the reference's factor on its rate."""
    held = run.ref.network.params
    links = [link for link in run.links if link.ref and link.keras and link.learned]
    return {link.keras: held[link.ref[0]].rate_multiplier for link in links}


def _multiplied(run: Comparison, tried: Replay, base: Acting) -> Acting | None:
    """One constant factor for each parameter."""
    found = tried.factors(base.recipe, base.params)
    if found is None or not all(factor > 0 for factor in found.values()):
        return None
    common = _common(run, found)
    alike = [math.isclose(factor, common, rel_tol=_ALIKE) for factor in found.values()]
    solved: set[str] = set()
    recipe, params = base.recipe, dict(base.params)
    if not math.isclose(common, 1.0, rel_tol=1e-5):
        recipe, solved = _SETTERS["learning_rate"](recipe, common), {"learning_rate"}
    if not all(alike):
        solved.add("factors")
        for key, factor in found.items():
            rest = float(f"{factor / common:.5g}")
            params[key] = replace(params[key], rate_multiplier=params[key].rate_multiplier * rest)
    made = Acting(recipe, params, frozenset(solved))
    return made if tried.explains(made.recipe, made.params) else None


_ALIKE = 1e-4
"""Relative distance of two factors that are one."""


def _common(run: Comparison, found: Mapping[str, float]) -> float:
    """The part of the factors that is the rate's: what most parameters have in common.

    A class may multiply as the reference does; then it is what remains beside the reference's multipliers.
    """
    theirs = _factors(run)
    best, most = 1.0, 0
    for factors in (found, {key: factor / (theirs.get(key) or 1.0) for key, factor in found.items()}):
        middle = float(f"{sorted(factors.values())[(len(factors) - 1) // 2]:.6g}")
        count = sum(math.isclose(factor, middle, rel_tol=_ALIKE) for factor in factors.values())
        best, most = (middle, count) if count > most else (best, most)
    return best


# Numbers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Number:
    """A number that may be another than declared.

    Attributes:
        name: field of the rule or the recipe.
        put: the recipe with another value of it, which is given in its own coordinate.
        starts: where to look first.
        value: the number itself, from its coordinate.
        whole: whether all elements of a parameter are needed to try it.
        share: whether it is one of 1, which is rounded behind the point.
        most: how far from 0 its coordinate may lie: a rate a million times as high stands for another rule.
    """

    name: str
    put: Callable[[Recipe, float], Recipe]
    starts: Sequence[float]
    value: Callable[[float], float] = float
    whole: bool = False
    share: bool = False
    most: float = math.inf

    def sound(self, at: float) -> bool:
        """Whether someone may have meant this value."""
        return abs(at) <= self.most


def _scaled(recipe: Recipe, factor: float) -> Recipe:
    """With every learning rate times a factor."""
    law = recipe.learning_rate
    config = {key: _times(value, factor) if key in _RATES else value for key, value in law.config.items()}
    return replace(recipe, learning_rate=replace(law, values=tuple(v * factor for v in law.values), config=config))


_RATES = ("initial_learning_rate", "end_learning_rate", "values", "warmup_target")


def _times(value: object, factor: float) -> object:
    if isinstance(value, list | tuple):
        return [_times(part, factor) for part in value]
    return value * factor if isinstance(value, int | float) else value


_SETTERS: Mapping[str, Callable[[Recipe, float], Recipe]] = {
    "learning_rate": _scaled,
    "weight_decay": lambda recipe, value: replace(recipe, weight_decay=value),
    "decoupled_decay": lambda recipe, value: replace(recipe, decoupled_decay=value),
    "clipvalue": lambda recipe, value: replace(recipe, clip={"clipvalue": value}),
    "clipnorm": lambda recipe, value: replace(recipe, clip={"clipnorm": value}),
    "global_clipnorm": lambda recipe, value: replace(recipe, clip={"global_clipnorm": value}),
}
"""Number of a recipe → the recipe with this value (for the learning rate: this factor on it)."""


def _of_rule(name: str) -> Callable[[Recipe, float], Recipe]:
    def put(recipe: Recipe, value: float) -> Recipe:
        assert recipe.optimizer is not None
        return replace(recipe, optimizer=replace(recipe.optimizer, **{name: value}))

    return put


def _candidates(rule: UpdateRule, gradients: Array) -> list[_Number]:
    """The numbers that are solved for, the likeliest first; gradients say how large a limit may be."""
    made: list[_Number] = []
    for item in fields(rule):
        held = getattr(rule, item.name)
        if isinstance(held, bool) or not isinstance(held, float):
            continue
        if item.name.startswith(("momentum", "beta", "rho")):  # below 1, and close to it rather than to 0
            starts = [math.log(1 - b) for b in (0.0, 0.5, 0.9, 0.99, 0.999)]
            made.append(_Number(item.name, _of_rule(item.name), starts, lambda u: 1 - math.exp(u), share=True))
        elif held > 0:
            starts = [math.log(v) for v in (1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 0.1)]
            made.append(_Number(item.name, _of_rule(item.name), starts, math.exp))
        elif held == 0:
            made.append(_Number(item.name, _of_rule(item.name), (1e-3, 0.1)))
    largest = float(np.abs(gradients).max(initial=0.0)) or 1.0
    made.append(_Number("weight_decay", _SETTERS["weight_decay"], (1e-4, 1e-2)))
    made.append(_Number("decoupled_decay", _SETTERS["decoupled_decay"], (1e-4, 1e-2)))
    limits = [math.log(largest * share) for share in (0.02, 0.1, 0.3, 0.8)]
    made.append(_Number("clipvalue", _SETTERS["clipvalue"], limits, math.exp))
    norms = [math.log(largest * share) for share in (0.1, 1.0, 10.0)]
    for name in ("clipnorm", "global_clipnorm"):
        made.append(_Number(name, _SETTERS[name], norms, math.exp, whole=True))
    made.append(_Number("learning_rate", _SETTERS["learning_rate"], (0.0,), math.exp, most=7.0))
    return made


def _flags(rule: UpdateRule) -> Iterator[tuple[str, UpdateRule]]:
    """The rule with each of its yes-or-no fields turned over; that of a velocity's rate changes no step here."""
    for item in fields(rule):
        held = getattr(rule, item.name)
        if isinstance(held, bool) and item.name != "rate_inside":
            yield item.name, replace(rule, **{item.name: not held})


def _numbers(tried: Replay, base: Acting) -> Acting | None:
    """One number, or two, or a number and a field turned over, that make the steps; the first that do."""
    rule = base.recipe.optimizer
    assert rule is not None
    sample = _Sample(tried)
    if sample.thin and any(param.constraint for param in base.params.values()):
        return None  # a constraint looks at whole weights
    candidates = [n for n in _candidates(rule, sample.gradients) if not (n.whole and sample.thin)]
    for name, turned in _flags(rule):
        made = Acting(replace(base.recipe, optimizer=turned), base.params, frozenset({name}))
        if tried.explains(made.recipe, made.params):
            return made
    groups: list[tuple[Acting, Sequence[_Number]]] = [(base, (number,)) for number in candidates]
    for name, turned in _flags(rule):
        groups += [
            (replace(base, recipe=replace(base.recipe, optimizer=turned), solved=frozenset({name})), (number,))
            for number in candidates
        ]
    groups += [(base, pair) for pair in itertools.combinations(candidates, 2)]
    for start, numbers in groups:
        found = _solved(tried, sample, start, numbers)
        if found is not None:
            return found
    return None


def _solved(tried: Replay, sample: _Sample, base: Acting, numbers: Sequence[_Number]) -> Acting | None:
    """The base with these numbers solved for; None where they do not explain the steps."""

    def recipe(point: Array, digits: int = 17) -> Recipe:
        made = base.recipe
        for number, at in zip(numbers, point, strict=True):
            value = number.value(at)
            made = number.put(made, round(value, digits) if number.share else float(f"{value:.{digits}g}"))
        return made

    def misfit(point: Array) -> Array:
        try:
            return sample.misfit(recipe(point), base.params)
        except (OverflowError, ZeroDivisionError, ValueError):
            return np.full(sample.size, _FAR)

    first = [np.array(at) for at in itertools.product(*(number.starts for number in numbers))]
    best = min(first, key=lambda at: _size(misfit(at)))
    point = _descended(misfit, best)
    if _size(misfit(point)) > 4.0 or not all(number.sound(at) for number, at in zip(numbers, point, strict=True)):
        return None
    names = base.solved | {number.name for number in numbers}
    for digits in (2, 3, 4, 5, 6, 8):  # a number that someone wrote has few
        made = recipe(point, digits)
        if tried.explains(made, base.params):
            return Acting(made, base.params, names)
    return None


def _descended(misfit: Callable[[Array], Array], start: Array) -> Array:
    """The nearest least squares, by Levenberg and Marquardt's method."""
    from scipy.optimize import least_squares

    def finite(point: Array) -> Array:
        return np.nan_to_num(np.clip(misfit(point), -_FAR, _FAR), nan=_FAR)

    if finite(start).size < len(start):
        return start
    return least_squares(finite, start, method="lm", diff_step=1e-5, max_nfev=60 * len(start)).x


_FAR = 1e9
"""What an element is off by at most, in floors: where numbers overflow there is no slope."""


def _size(misfit: Array) -> float:
    """Root mean square, in floors; infinite where it is no number."""
    with np.errstate(over="ignore"):
        found = float(np.sqrt(np.mean(np.square(misfit)))) if misfit.size else 0.0
    return found if math.isfinite(found) else math.inf


_MOST = 4096
"""Elements on which numbers are solved for, where whole parameters would be more."""


class _Sample:
    """Some elements of every parameter through the steps on the batch, in double.

    Attributes:
        thin: whether not all of them are there.
        gradients: all of them in one vector.
        size: how many numbers a misfit has.
    """

    def __init__(self, tried: Replay) -> None:
        steps = list(zip(tried.first, tried.run.course.passes, strict=True))
        total = sum(each.start.size for each in tried.first[0]) if tried.first else 0
        stride = max(1, total // _MOST)
        self.thin = stride > 1
        self._fed: list[tuple[dict[str, Array], dict[str, Array], dict[str, Array], dict[str, float]]] = []
        for step, seen in steps:
            weights, grads = tried.fed(step, seen)
            moved = {each.link.keras: each.actual for each in step if each.link.keras in grads}
            noise = {each.link.keras: max(float(np.mean(each.floor)), 1e-30) for each in step}
            cut = [{key: _few(of[key], stride) for key in moved} for of in (weights, grads, moved)]
            self._fed.append((cut[0], cut[1], cut[2], noise))
        held = [value.ravel() for _, grads, _, _ in self._fed for value in grads.values()]
        self.gradients = np.concatenate(held) if held else np.zeros(0)
        self.size = self.gradients.size
        self._begun = begun_at(tried.slots)
        self._slots = {
            key: {name: value if np.ndim(value) == 0 else _few(value, stride) for name, value in of.items()}
            for key, of in tried.slots.items()
        }

    def misfit(self, recipe: Recipe, params: Params) -> Array:
        """What this recipe's steps are off by, in floors."""
        updater = Updater(recipe, params)
        updater.reset(self._slots, self._begun)
        found: list[Array] = []
        for weights, grads, moved, noise in self._fed:
            after = updater.step(weights, grads)
            found += [
                ((after.get(key, weights[key]) - weights[key] - moved[key]) / noise[key]).ravel() for key in moved
            ]
        return np.concatenate(found) if found else np.zeros(0)


def _few(value: Array, stride: int) -> Array:
    return value.astype(np.float64) if stride == 1 else value.ravel()[::stride].astype(np.float64)
