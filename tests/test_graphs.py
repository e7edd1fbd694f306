"""Graphs with branches: look-alike blocks in any order and under any names, and faults in the middle of them."""

from __future__ import annotations

import numpy as np
import pytest

from parity import compare

pytestmark = pytest.mark.filterwarnings("ignore")


def network(*, seed: int = 0, names=None, later=(), swap: bool = False, drop: bool = False, blocks: int = 3):
    """Blocks of four look-alike branches, concatenated and added to their input, in a Keras model.

    Args:
        seed: of the weights.
        names: what to call the convolutions, in order; None leaves it to Keras.
        later: blocks whose branches are made in reverse order (and concatenated in the same).
        swap: concatenate the middle block's first two branches the other way round.
        drop: leave the middle block's skip connection out.
        blocks: how many.
    """
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    called = iter(names) if names is not None else None

    def conv(x, filters, size=3):
        name = next(called) if called is not None else None
        x = keras.layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)(x)
        x = keras.layers.BatchNormalization()(x)
        return keras.layers.ReLU()(x)

    given = keras.Input((8, 8, 8))
    x = conv(given, 16)
    middle = blocks // 2
    for block in range(blocks):
        sizes = [(1,), (3, 3), (3, 3), (1, 3)]
        order = range(4) if block not in later else reversed(range(4))
        made = {}
        for branch in order:
            y = x
            for size in sizes[branch]:
                y = conv(y, 4, size)
            made[branch] = y
        joined = [made[i] for i in range(4)]
        if swap and block == middle:
            joined[1], joined[2] = joined[2], joined[1]
        y = keras.layers.Concatenate()(joined)
        x = y if drop and block == middle else keras.layers.Add()([x, y])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, name="classifier")(x)
    model = keras.Model(given, x)
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def names(seed: int, count: int = 22) -> list[str]:
    return [f"c{i:03d}" for i in np.random.default_rng(seed).permutation(900)[:count]]


def test_look_alike_branches_in_another_order_and_under_other_names_match():
    report = compare(network(names=names(1)), network(seed=9, names=names(2), later=(0, 2)), steps=2)
    assert report.verdict == "match"
    assert not any(p.status == "unpaired" for p in report.probes)


def test_concatenated_the_other_way_round_is_found_at_the_concatenation():
    own = names(3)
    report = compare(network(names=own), network(names=own, swap=True), steps=1, verify=False)
    assert report.verdict == "diverged"
    assert report.first_divergence is not None
    assert report.first_divergence.phase == "structure"
    assert report.first_divergence.layer.startswith("concatenate_1")
    first = report.findings[0]
    assert (first.cause, first.layer) == ("channel-order", report.first_divergence.layer)
    births = {p.layer for p in report.probes if p.status == "born"}
    assert births == {report.first_divergence.layer}


def test_a_missing_skip_connection_is_found_at_its_addition():
    report = compare(network(names=names(4)), network(names=names(5), drop=True), steps=1, verify=False)
    assert report.first_divergence is not None
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("structure", "add_1")
    assert report.first_divergence.status == "unpaired"
    assert report.findings[0].cause == "layer-missing"


def test_numbers_that_each_keras_counts_in_its_own_way_are_no_names():
    """Two crops of one image, through one tower: on one side they are called as on the other, but crosswise."""
    import keras

    def siamese(first: str, second: str):
        given = keras.Input((8, 8, 2))
        tower = keras.Sequential([keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.Flatten()], name="tower")
        cuts = (((0, 0), (0, 4)), first), (((0, 0), (4, 0)), second)
        ends = [tower(keras.layers.Cropping2D(cut, name=name)(given)) for cut, name in cuts]
        x = keras.layers.Dense(4, name="classifier")(keras.layers.Concatenate()(ends))
        model = keras.Model(given, x)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss=loss)
        return model

    report = compare(siamese("cropping2d_1", "cropping2d_2"), siamese("cropping2d", "cropping2d_1"), steps=1)
    assert report.verdict == "match", [(p.phase, p.layer, p.status) for p in report.probes if p.status != "match"]


def headed(*, own: bool = False, wrong: str = "", heads: str = "ab"):
    """Two blocks of four branches, behind a layer that may be a class of one's own; a loss after each block.

    Args:
        own: a pooling near the input is a class of one's own.
        wrong: what is wrong in the second block: a branch reads another's ("parent"), or pools behind its convolution
            and not before it ("pool").
        heads: the order of the outputs, "a" after the first block, "b" at the end.
    """
    import keras

    class Own(keras.layers.Layer):
        def call(self, x):
            return keras.ops.max_pool(x, 3, 1, "same")

    def conv(x, size, name):
        return keras.layers.Conv2D(4, size, padding="same", activation="relu", name=name)(x)

    def pool(x, name):
        return keras.layers.MaxPooling2D(3, 1, "same", name=name)(x)

    keras.utils.set_random_seed(1)
    given = keras.Input((8, 8, 3))
    x = conv(given, 3, "stem")
    x = Own(name="start")(x) if own else pool(x, "start")
    ends = {}
    for block, end in enumerate("ab"):
        fault = wrong if block else ""
        one, two, last = conv(x, 1, f"a{block}"), conv(x, 1, f"b{block}"), f"d{block}"
        three = conv(two if fault == "parent" else x, 1, f"c{block}")
        four = pool(conv(x, 1, last), f"p{block}") if fault == "pool" else conv(pool(x, f"p{block}"), 1, last)
        two, three = conv(two, 3, f"bb{block}"), conv(three, 5, f"cc{block}")
        x = keras.layers.Concatenate(name=f"out{block}")([one, two, three, four])
        ends[end] = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(given, [ends[head] for head in heads])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    shares = {"a": 0.3, "b": 1.0}
    model.compile(keras.optimizers.SGD(0.05), [loss, loss], loss_weights=[shares[head] for head in heads])
    return model


def test_two_heads_find_their_partners_in_any_order_and_behind_a_layer_of_ones_own():
    report = compare(headed(), headed(own=True, heads="ba"), steps=1)
    assert report.verdict == "match", report.first_divergence


@pytest.mark.parametrize(("wrong", "layer"), [("parent", "c1"), ("pool", "p1")])
def test_a_branch_that_is_wired_wrongly_is_one_finding_with_a_fix(wrong, layer):
    report = compare(headed(), headed(own=True, wrong=wrong, heads="ba"), steps=1)
    first, findings = report.first_divergence, [f for f in report.findings if f.severity == "divergence"]
    assert first is not None
    assert (first.phase, first.layer) == ("structure", layer)
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in findings] == [("layer-order", layer, True, True)]


def pair_of_towers(order=(0, 1), *, same: bool = False):
    """Two images through one dense layer, concatenated; with `same` the second image is read by nothing."""
    import keras

    keras.utils.set_random_seed(2)
    given = [keras.Input((6,), name=name) for name in "ab"]
    tower = keras.layers.Dense(5, activation="tanh", name="tower")
    ends = [tower(given[0]), tower(given[1])]
    read = [ends[0], ends[0]] if same else [ends[k] for k in order]
    x = keras.layers.Dense(4, name="classifier")(keras.layers.Concatenate(name="joined")(read))
    model = keras.Model(given, x)
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_a_layer_that_is_called_twice_is_concatenated_the_right_way_round_by_the_fix():
    rng = np.random.default_rng(0)
    batch = {f"x_{name}": rng.standard_normal((6, 6)).astype(np.float32) for name in "ab"}
    batch["y"] = rng.integers(0, 4, 6)
    report = compare(pair_of_towers(), pair_of_towers((1, 0)), batch, steps=1)
    (first,) = [f for f in report.findings if f.severity == "divergence"]
    assert (first.cause, first.layer, first.confirmed, first.fix_verified) == ("channel-order", "joined", True, True)


def test_a_second_tower_that_nothing_reads_is_missing():
    report = compare(pair_of_towers(), pair_of_towers(same=True), steps=1)
    assert report.first_divergence is not None
    assert (report.first_divergence.phase, report.first_divergence.status) == ("structure", "unpaired")
