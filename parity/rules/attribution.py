"""Which of the differences between two recipes made the steps differ: each is undone alone, and the steps replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from parity.acting import Acting, acting
from parity.case import Comparison
from parity.changes import Change
from parity.network import Param
from parity.optimizers.schedules import rate_at
from parity.recipe import Recipe, Schedule
from parity.replay import begun_at, replay
from parity.rules.trained import severity_of

__all__ = ["doing", "judged", "keras_law", "law_of", "rates", "rebuilt", "solved", "with_params"]


def doing(run: Comparison) -> Acting:
    """What the Keras optimizer does, as its steps say; where they were not looked at, as it declares."""
    return acting(run) or Acting(run.keras.recipe, run.keras.network.params)


def judged(run: Comparison, undone: Acting) -> tuple[str, bool]:
    """(severity, whether it is confirmed) of a difference between the recipes.

    Args:
        run: the comparison.
        undone: what the Keras optimizer does, but for this difference: there it does as the reference.

    Returns:
        A confirmed divergence where Keras' steps on the batch cannot be made without this difference, and are made with
        it, on other gradients too. A note where they come out all the same, and where no update diverged. An
        unconfirmed divergence where nothing makes Keras' steps.
    """
    if severity_of(run) == "note":
        return "note", False
    tried = replay(run)
    if tried is None or acting(run) is None:
        return "divergence", False
    seen = not tried.explains(undone.recipe, undone.params, batch=True)
    return ("divergence", True) if seen else ("note", False)


def with_params(acts: Acting, changes: Mapping[str, Mapping[str, Any]]) -> Acting:
    """With other fields of these parameters (Keras id → field → value)."""
    params: dict[str, Param] = dict(acts.params)
    params |= {key: replace(params[key], **fields) for key, fields in changes.items()}
    return replace(acts, params=params)


def solved(run: Comparison, names: Iterable[str]) -> str:
    """Words for a number that the Keras optimizer does not declare; empty where it does."""
    if not doing(run).solved & set(names):
        return ""
    recipe = run.keras.recipe
    word = recipe.custom or (recipe.optimizer.name if recipe.optimizer else "its optimizer")
    return f" {word} does not declare that: it was solved for from its steps, and holds for other gradients too."


def rebuilt(run: Comparison) -> tuple[Change, ...]:
    """Keras' own optimizer with everything that the reference's recipe says of it; none where Keras has no such class.

    What a weight decay adds to the gradients is a regularizer's, and stays.
    """
    ref = run.ref.recipe
    assert ref.optimizer is not None
    name, settings = ref.optimizer.keras_settings()
    if not name:
        return ()
    law = keras_law(ref.learning_rate)
    config = {"learning_rate": law, **{key: value for key, value in settings.items() if value is not None}, **ref.clip}
    if ref.decoupled_decay:
        config["weight_decay"] = ref.decoupled_decay
    return (Change("optimizer", "", {"class_name": name, "config": config}),)


def keras_law(schedule: Schedule) -> Any:
    """A schedule as an optimizer's config holds it; of rates per epoch the first."""
    if schedule.kind in ("constant", "epochs"):
        return schedule.first
    kind, config = schedule.kind, dict(schedule.config)
    if kind == "inverse-time":
        kind = "InverseTimeDecay"
        config = {"initial_learning_rate": schedule.first, "decay_steps": 1, "decay_rate": schedule.decay}
    return {"module": "keras.optimizers.schedules", "class_name": kind, "config": config, "registered_name": None}


def law_of(recipe: Recipe) -> Schedule:
    """The learning rate over time; 1 for good where the update rule takes none (MatConvNet's AdaDelta)."""
    takes = recipe.optimizer is None or recipe.optimizer.describe().get("use_rate", True)
    return recipe.learning_rate if takes else Schedule("constant", (1.0,))


def rates(run: Comparison, recipe: Recipe) -> list[float]:
    """The learning rate of each step that was run, on the side whose recipe it is."""
    begun = begun_at(run.ref.recipe.slots)
    return [rate_at(law_of(recipe), begun + step) for step in range(len(run.course.passes) or 1)]
