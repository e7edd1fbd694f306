"""A copy of an optimizer begins anew, whatever it was copied from has done."""

from __future__ import annotations

import numpy as np
import pytest

from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.optimizer_copies import again


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_a_class_of_ones_own_that_has_stepped_is_copied_with_its_settings_and_without_its_state(name):
    engine = engine_of(name)

    class Own(engine.keras.optimizers.SGD):
        factor = 1.0

    made = Own(0.1, momentum=0.9)
    made.factor = 2.0
    variable = engine.variable(np.ones(3, np.float32))
    engine.build_optimizer(made, [variable])
    made.apply_gradients([(engine.keras.ops.ones(3) if name == "keras" else np.ones(3, np.float32), variable)])
    copy = again(made)
    assert (copy.factor, int(np.asarray(copy.iterations))) == (2.0, 0)
    engine.build_optimizer(copy, [variable])
    assert [float(np.sum(np.asarray(slot))) for slot in copy.momentums] == [0.0]
    assert np.any(np.asarray(made.momentums[0]))
