"""The stepper over nets of many kinds: it says what `compare` says, runs nothing ahead, and loses no experiment."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.debugger import shown
from parity.debugger import terms as terms_module
from parity.debugger.commands import Commands
from parity.debugger.stepper import Stepper
from parity.errors import BadUsage
from parity.frameworks.matconvnet.recording import read_recording
from parity.reports.output import show
from tests import twins, twins_dag
from tests.gate.models import recorded

TRACES = Path(__file__).parents[2] / "traces"
MATCONVNET, OCTAVE = TRACES / "matconvnet", TRACES / "octave"


def key(probe):
    return (probe.phase, probe.layer, probe.keras_layer, probe.tensor, probe.step)


def walked(stepper):
    """The stepper at its end."""
    while stepper.resume().reason != "end":
        pass
    return stepper


def simple(folder, layers, recipe=None, **twin):
    path = twins.save(folder / "net.mat", layers, **recipe or {})
    return path, twins.twin(layers, **twin), twins.batch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lockstep")


@pytest.fixture(scope="module")
def leaky(folder):
    """A plain net in a submodel whose first activation leaks otherwise."""
    layers = twins.plain()
    return simple(folder, layers, nested=True, edits={"relu1": {"leak": 0.2}})


def shrinking():
    """The reference's optimizer, whose first step alone has the reference's rate."""
    import keras

    rate = keras.optimizers.schedules.InverseTimeDecay(twins.RATE, decay_steps=1, decay_rate=1e-2)
    return keras.optimizers.SGD(rate, momentum=twins.MOMENTUM)


def unbiased():
    """A net whose first bias begins at zero and has no gradient but rounding, as one before a normalisation."""
    layers = twins.normalised()
    layers[0]["weights"][1][:] = 0
    return layers


def adaptive(folder, **twin):
    """A net that both sides train with Adam, which makes steps of gradients that are rounding alone."""
    import keras

    layers = [layer for layer in twins.normalised() if layer["type"] != "dropout"]  # the two would draw otherwise
    rates = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-9}
    recipe = {"solver": "adam", "solverOpts": rates, "weightDecay": 0.0}
    adam = keras.optimizers.Adam(twins.RATE, epsilon=1e-9)
    return simple(folder, layers, recipe, decay=None, optimizer=adam, **twin)


def costly(law=None):
    """A small Keras model whose first layer's output costs something, and whose second always does."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="first", activity_regularizer=law),
            layers.ReLU(name="relu"),
            layers.Conv2D(4, 3, name="second", activity_regularizer=keras.regularizers.L1(1e-3)),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="logits"),
        ]
    )
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def costs(ref, port):
    """Two such models, each with its L2 for the first layer's output (0 for none)."""
    import keras

    made = [costly(keras.regularizers.L2(law) if law else None) for law in (ref, port)]
    return (*made, twins.batch(size=(8, 8, 3), n=4))


@pytest.fixture(scope="module")
def leaky_steps(leaky):
    """A stepper over two steps of it, without experiments whenever a test ends."""
    return Stepper.open(*leaky, steps=2)


def strided(folder):
    """A convolution of another stride, behind which nothing fits."""
    layers = [layer for layer in twins.plain() if layer["name"] not in ("pool1", "conv2", "relu2", "pool2")]
    rng = np.random.default_rng(5)
    layers[0] = twins.conv("conv1", rng, (3, 3, 3, 6), stride=np.array([2.0, 2]))
    layers[2] = twins.conv("fc", rng, (7, 7, 6, 12))
    right = simple(folder, layers)
    layers[0] = {**layers[0], "stride": np.array([1.0, 1])}
    layers[2] = twins.conv("fc", rng, (14, 14, 6, 12))
    return right[0], twins.twin(layers), right[2]


CASES = {
    "another stride": (strided, {"steps": 2}, ("structure", "conv1")),
    "a wrong leak, nested": (
        lambda folder: simple(folder, twins.plain(), nested=True, edits={"relu1": {"leak": 0.2}}),
        {"steps": 2},
        ("forward", "relu1"),
    ),
    "a wrong epsilon, eval": (
        lambda folder: simple(folder, twins.normalised(), edits={"bn2": {"epsilon": 1e-3}}),
        {"mode": "eval"},
        ("forward", "bn2"),
    ),
    "a bias that is not there": (
        lambda folder: simple(folder, twins.plain(), edits={"conv2": {"bias": False}}),
        {"steps": 1},
        ("structure", "conv2"),
    ),
    "other weights, its own": (
        lambda folder: simple(folder, twins.plain()),
        {"weights": "own", "steps": 1},
        ("weights", "conv1"),
    ),
    "an output that costs more": (lambda _: costs(1e-2, 2e-2), {"steps": 2}, ("loss", "first")),
    "an output that costs the same": (lambda _: costs(1e-2, 1e-2), {"steps": 2}, None),
    "a rate that shrinks from the second step on": (
        lambda folder: simple(folder, unbiased(), {"weightDecay": 0.0}, decay=None, optimizer=shrinking()),
        {"steps": 2},
        ("update", "conv1"),
    ),
    "a clean net with Adam": (adaptive, {"steps": 2}, None),
    "a wrong leak with Adam": (
        lambda folder: adaptive(folder, edits={"relu2": {"leak": 0.3}}),
        {"steps": 2},
        ("forward", "relu2"),
    ),
    "a clean net with dropout and batch normalisation": (
        lambda folder: simple(folder, twins.normalised()),
        {"steps": 2},
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_stop_says_what_compare_says(name, folder):
    build, options, fault = CASES[name]
    ref, keras, batch = build(folder)
    stepper = walked(Stepper.open(ref, keras, batch, **options))
    ref, keras, batch = build(folder)  # a stepper trains the model that it is given
    report = parity.compare(ref=ref, keras=keras, batch=batch, verify=False, **options)
    mine, theirs = ({key(p): p.status for p in of} for of in (stepper.probes, report.probes))
    apart = min((p.step for p in report.probes if p.phase == "update" and p.status == "born"), default=0)
    for probe in report.probes:  # of optimizers that differ from a later step on, those before show nothing as yet
        if probe.phase == "update" and probe.step < apart and mine[key(probe)] == "masked":
            assert theirs[key(probe)] == "match"
            mine[key(probe)] = "match"
    assert {k: mine.get(k) for k in theirs} == theirs
    first = stepper.first_divergence
    assert (stepper.verdict, first and (first.phase, first.layer)) == (report.verdict, fault)
    born = [p.step for p in report.probes if p.status in ("born", "unpaired")]
    assert not [key(p) for p in report.probes if p.status == "inherited" and p.step < min(born, default=9)]


@pytest.mark.parametrize("build", [twins_dag.resnet, twins_dag.two_heads, twins_dag.two_inputs])
def test_every_stop_of_a_graph_says_what_compare_says(build, folder):
    dag = build(3)
    path = twins_dag.save(folder / "dag.mat", dag)
    stepper = walked(Stepper.open(path, twins_dag.twin(dag), twins_dag.batch(dag), steps=1))
    report = parity.compare(
        ref=path, keras=twins_dag.twin(dag), batch=twins_dag.batch(dag), steps=1, verify=False
    )  # fmt: skip
    mine = {key(p): p.status for p in stepper.probes}
    assert {key(p): mine.get(key(p)) for p in report.probes} == {key(p): p.status for p in report.probes}
    assert stepper.verdict == "match"


@pytest.mark.parametrize(
    ("file", "shape", "classes", "edit", "fault"),
    [
        ("dag_resnet_netfile", (16, 16, 3), 5, None, None),
        ("dag_resnet_netfile", (16, 16, 3), 5, {"b1b_bn": {"epsilon": 1e-3}}, ("forward", "b1b_bn")),
        ("checkpoint_slim_nobn_epoch2", (28, 28, 1), 2, {"relu": {"negative_slope": 0.1}}, ("forward", "relu")),
    ],
)
def test_every_stop_of_a_real_file_says_what_compare_says(file, shape, classes, edit, fault):
    """Files that MatConvNet wrote, one of them in the middle of its training."""
    import keras

    from bench.nets import twin
    from parity.frameworks.matconvnet.lift import lift

    path, rng = MATCONVNET / f"{file}.mat", np.random.default_rng(0)
    batch = {"x": rng.standard_normal((4, *shape)).astype(np.float32), "y": rng.integers(0, classes, 4)}

    def model():
        made = twin(lift(path)[0])
        config = made.get_config()
        for layer in config["layers"]:
            layer["config"].update((edit or {}).get(layer["name"], {}))
        other = keras.Model.from_config(config)
        other.compile_from_config(made.get_compile_config())
        return other

    stepper = walked(Stepper.open(path, model(), batch, steps=1))
    report = parity.compare(ref=path, keras=model(), batch=batch, steps=1, verify=False)
    mine = {key(p): p.status for p in stepper.probes}
    assert {key(p): mine.get(key(p)) for p in report.probes} == {key(p): p.status for p in report.probes}
    first = stepper.first_divergence
    assert (stepper.verdict, first and (first.phase, first.layer)) == (report.verdict, fault)


def test_a_step_runs_one_layer_of_each_side(folder):
    stepper = Stepper.open(*simple(folder, twins.plain()), steps=1)
    before = (0, 0)
    while stepper.position + 1 < len(stepper.stops) and stepper.stops[stepper.position + 1].phase != "update":
        stop = stepper.next().stop
        scene = stepper.scene()
        now = (scene.ref.runs, scene.keras.runs)
        glue = 1 if stop.layer in ("fc", "pool2") else 0  # the flatten between them has no partner
        assert now[0] - before[0] == 1, stop.words
        assert 1 <= now[1] - before[1] <= 1 + glue, stop.words
        before = now
    stepper.goto(3)
    assert (stepper.scene().ref.runs, stepper.scene().keras.runs) == before  # going back is free


def test_an_update_goes_on_from_the_one_before(folder, monkeypatch):
    stepper = Stepper.open(*simple(folder, twins.plain(), edits={"relu1": {"leak": 0.2}}), steps=3)
    calls = []
    ref = stepper.comparison.ref
    monkeypatch.setattr(ref, "update", lambda *given, own=ref.update: (calls.append(1), own(*given))[1])
    for step in (1, 2, 3):
        stepper.training.update(step)
    assert len(calls) == 3


def test_submodels_are_one_step_unless_one_goes_into_them(leaky):
    stepper = Stepper.open(*leaky, steps=1)
    arrival = stepper.next()
    assert arrival.stop.layer == "relu2"  # the last of the first half, which is a submodel
    assert arrival.passed is not None
    assert arrival.passed.layer == "relu1"
    out = io.StringIO()
    show(shown.arrival(arrival), out)
    assert out.getvalue().startswith("on the way diverges forward of relu1 (Keras front/relu1) (goto 3)")
    stepper.previous()
    assert stepper.next().passed is None  # it was seen
    stepper.previous()
    assert stepper.into().stop.layer == "conv1"
    assert stepper.inside == ("front",)
    assert stepper.next().stop.layer == "relu1"
    assert stepper.here.state.status == "born"
    assert stepper.out().stop.layer == "relu2"
    assert stepper.inside == ()
    stepper.goto(8)
    with pytest.raises(BadUsage, match="into"):
        stepper.into()


def test_what_an_output_costs_is_a_stop_of_its_own():
    stepper = Stepper.open(*costs(0, 1e-2), steps=1)
    arrival = stepper.resume()
    assert arrival.stop.words == "what is added to the loss for first"
    assert [(p.tensor, p.status) for p in arrival.state.probes] == [("activity", "born")]
    assert "loss-kind" in [f.cause for f in stepper.experiments.rules()]
    assert stepper.look().tensor("output", "keras").shape == (4, 6, 6, 4)
    with pytest.raises(BadUsage, match="put: there is nothing to put in"):
        stepper.experiments.put("ref")
    stepper.experiments.fix("loss-kind")
    stepper.goto(len(stepper.stops) - 1)
    assert stepper.verdict == "match"


def test_what_made_an_element_adds_up_on_both_sides(leaky_steps):
    """Inputs times weights and the bias; of a pooling and of a rectifier the inputs alone."""
    stepper, rng = leaky_steps, np.random.default_rng(0)
    for stop in stepper.stops:
        if stop.phase != "forward" or stop.step > 1:
            continue
        stepper.goto(stop.index)
        look = stepper.look()
        shape = look.tensor("output", "ref").shape
        for _ in range(3):
            at = tuple(int(rng.integers(extent)) for extent in shape)
            terms = look.terms(at, count=10_000)
            for side in ("ref", "keras"):
                own = look.tensor("bias", side)[at[-1]] if "bias" in look.names else 0.0
                total = sum(getattr(term, side) for term in terms.terms) + own
                assert total == pytest.approx(look.tensor("output", side)[at], rel=1e-4, abs=1e-5), (stop.words, side)
            few = look.terms(at, count=2)
            assert few.others == len(terms.terms) - len(few.terms)
            for side in ("ref", "keras"):
                total = sum(getattr(term, side) for term in few.terms)
                total += getattr(few, f"others_{side}") + getattr(few, f"rest_{side}")
                assert total == pytest.approx(getattr(few, side), rel=1e-6, abs=1e-9), (stop.words, side)


def test_the_terms_of_a_convolution_are_its_inputs_and_filters(leaky_steps):
    leaky_steps.run_to("conv2 forward")
    look = leaky_steps.look()
    x, kernel = look.tensor("input", "ref"), look.tensor("kernel", "ref")
    terms = look.terms((2, 0, 3, 5), count=10_000)  # two rows and two columns of padding before, the second group
    assert terms.fields == (((2, 2), (0, 0), (1, 3), (3, 5)),)
    assert len(terms.terms) == 1 * 3 * 3
    for term in terms.terms:
        _, row, column, channel = term.index
        assert term.value_ref == x[term.index]
        assert term.slope_ref == pytest.approx(kernel[row + 2, column - 1, channel - 3, 5])
    assert [abs(t.ref - t.keras) for t in terms.terms] == sorted(abs(t.ref - t.keras) for t in terms.terms)[::-1]


def test_terms_are_made_of_one_image_where_the_others_have_no_part_in_it(leaky_steps, monkeypatch):
    leaky_steps.run_to("conv2 forward")
    look = leaky_steps.look()
    assert all(look.tensor(name, side).size for name in ("input", "output") for side in ("ref", "keras"))  # at hand now
    ran: list[int] = []
    for lane in (leaky_steps.scene().ref, leaky_steps.scene().keras):
        alone = lane.runner.isolate

        def counted(layers, feeds, *args, alone=alone, **named):
            ran.extend(len(value) for value in feeds.values())
            return alone(layers, feeds, *args, **named)

        monkeypatch.setattr(lane.runner, "isolate", counted)
    found = look.terms((2, 0, 3, 5))
    assert ran == [1, 1]
    assert found.terms[0].index[0] == 2


@pytest.mark.parametrize("count", [1, 3, 10, 40, 200])
def test_the_strongest_terms_are_those_of_all_put_in_order(count):
    """Also where many are equal, in the gap or in both; what is no number comes first."""
    rng = np.random.default_rng(0)
    values = [np.round(rng.standard_normal((1, 4, 5, 6)), 1).astype(np.float32) for _ in range(2)]
    slopes = [rng.integers(0, 3, (1, 4, 5, 6)).astype(np.float32) for _ in range(2)]
    values[1][0, 2, 3, 4], slopes[1][0, 2, 3, 4] = np.nan, 1
    read = terms_module._Read.of(1, (slopes[0], values[0]), (slopes[1], values[1]), 7)
    mine, theirs = (slope.astype(np.float64) * value for slope, value in zip(slopes, values, strict=True))
    gap, size = terms_module._apart(mine.ravel(), theirs.ravel())
    places = np.flatnonzero(((slopes[0] != 0) | (slopes[1] != 0)).ravel())
    wanted = places[np.lexsort((-size[places], -gap[places]))][:count]
    found = [np.ravel_multi_index((term.index[0] - 7, *term.index[1:]), (1, 4, 5, 6)) for term in read.strongest(count)]
    assert found == list(wanted)
    assert found[0] == np.ravel_multi_index((0, 2, 3, 4), (1, 4, 5, 6))


def test_terms_of_a_sum_are_of_all_its_inputs(folder):
    dag = twins_dag.resnet(3)
    path = twins_dag.save(folder / "summed.mat", dag)
    stepper = Stepper.open(path, twins_dag.twin(dag), twins_dag.batch(dag), steps=1)
    stepper.goto(next(s.index for s in stepper.stops if s.pair and s.pair.ref.kind.name == "Merge"))
    look = stepper.look()
    at = (1, 1, 2, 0)
    terms = look.terms(at)
    assert sorted((term.input, term.index, term.slope_keras) for term in terms.terms) == [(1, at, 1), (2, at, 1)]
    for term in terms.terms:
        name = "input" if term.input == 1 else "input2"
        assert (term.value_ref, term.value_keras) == tuple(look.tensor(name, side)[at] for side in ("ref", "keras"))
    assert terms.ref == pytest.approx(sum(term.ref for term in terms.terms))


def test_what_optimizers_hold_can_be_looked_at(leaky):
    stepper = Stepper.open(*leaky, steps=2)
    stepper.run_to("classifier update")
    look = stepper.look()
    assert {"kernel.momentum", "bias.momentum"} <= set(look.names)
    rows = {row.name: row for row in look.parameters()}
    assert rows["kernel.momentum"].shape == rows["kernel"].shape
    # After one step from zero the momentum is the gradient, turned around, with the weight decay in it.
    scene = stepper.scene()
    link = next(k for k in stepper.comparison.links if k.pair is stepper.stop.pair and k.role == "kernel")
    after, before = (link.to_keras(w) for w in (stepper.training.weights("ref", 1), scene.ref.weights))
    moved = (after - before) / twins.RATE
    assert np.allclose(look.tensor("kernel.momentum", "ref"), moved, rtol=1e-3, atol=2e-5)
    both = [look.tensor("bias.momentum", side) for side in ("ref", "keras")]
    assert np.abs(both[0] - both[1]).max() > 1e-4  # the leak made other gradients
    assert "momentum" in str(Commands(stepper).run("show slots").columns[0]._cells)


def test_experiments_of_later_steps_go_with_what_they_stood_on(leaky):
    stepper = Stepper.open(*leaky, steps=2)
    later = next(s.index for s in stepper.stops if s.step == 2 and s.phase == "backward" and s.layer == "fc")
    stepper.goto(later)
    stepper.experiments.put("ref")
    stepper.run_to("conv1 forward")
    made = stepper.experiments.put("ref")
    assert "taken back" in made.words
    assert [item.where[1] for item in stepper.experiments] == [1]
    stepper.experiments.undo()
    assert stepper.goto(later).state.status == "inherited"


def test_two_recorded_runs(leaky, folder, tmp_path):
    ref, keras, batch = leaky
    np.savez(tmp_path / "batch.npz", **batch)
    paths = [tmp_path / "ref.h5", tmp_path / "keras.h5"]
    parity.record(paths[0], ref=ref, batch=str(tmp_path / "batch.npz"), steps=2)
    parity.record(paths[1], ref=ref, keras=keras, batch=str(paths[0]), steps=2)
    stepper = Stepper.open(*paths, steps=2)
    assert stepper.resume().stop.words == "forward of relu1 (Keras front/relu1)"
    assert stepper.look().worst("output", 1)[0].difference != 0
    with pytest.raises(BadUsage, match="recordings"):
        stepper.experiments.put("ref")
    walked(stepper)
    report = parity.compare(ref=paths[0], keras=paths[1], steps=2)
    assert {key(p): p.status for p in stepper.probes} == {key(p): p.status for p in report.probes}
    assert (stepper.verdict, stepper.first_divergence.layer) == ("diverged", "relu1")


@pytest.mark.parametrize(("epsilon", "fault"), [(1e-3, ("forward", "b1")), (1e-5, ("update", "c2"))])
def test_a_run_recorded_in_matlab_goes_on_as_it_was_recorded(epsilon, fault):
    """Through a layer that only MATLAB could run, over every recorded update; the biases' doubled rate is a fault."""
    path = OCTAVE / "simple_head.mat"
    stepper = walked(Stepper.open(path, recorded(epsilon)))
    report = parity.compare(ref=path, keras=recorded(epsilon), verify=False)
    mine, theirs = ({key(p): p.status for p in of} for of in (stepper.probes, report.probes))
    assert mine == theirs
    assert (stepper.first_divergence.phase, stepper.first_divergence.layer) == fault
    assert "unverified" not in [p.status for p in stepper.probes if p.phase == "update"]
    for param, value in read_recording(path).after[2].items():
        np.testing.assert_array_equal(stepper.training.weights("ref", 3)[param], value)


def test_every_command_says_one_line_or_does_it(leaky):
    """At stops of every kind, no word ends in anything but what it shows or one line of refusal."""
    stepper = Stepper.open(*leaky, steps=2)
    commands = Commands(stepper)
    lines = [f"show {view}".strip() for view in ("", "worst", "heatmap", "histogram", "channels", "terms", "layers")]
    lines += ["show parameters", "show slots", "show recipe", "show names", "status", "put keras", "undo"]
    lines += ["set leak=0.2", "set keras.bias=ref", "undo", "rule", "into", "out", "previous", "next", "export a.txt"]
    for index in (0, 2, 10, 11, 13, len(stepper.stops) - 1):
        stepper.goto(index)
        for line in lines:
            try:
                commands.run(line)
            except parity.ParityError as problem:
                assert "\n" not in str(problem), line


@pytest.mark.parametrize(
    ("where", "assignment", "said"),
    [
        ("conv1 forward", "stride=0", "stride is at least 1, not 0"),
        ("conv1 backward", "groups=-3", "groups is at least 1, not -3"),
        ("conv1 forward", "groups=4", "conv1 cannot be run with groups=4: "),
        ("conv1 forward", "dilate=9", "conv1 cannot be run with dilate=9: .*greater than actual input size"),
        ("conv1 forward", "pad=1,2", "pad takes 4 whole numbers"),
        ("relu1 forward", "function=nonsense", "relu1 cannot be run with function=nonsense: "),
        ("relu1 forward", "slope=nan", "slope is 0.1.*, and takes a number, not 'nan'"),
        ("pool1 forward", "method=sigmoid", "method is max or avg, not 'sigmoid'"),
        ("pool1 forward", "squeeze=True", "pool1 cannot be run with squeeze=True: "),
        ("conv2 forward", "kernel=none.npy", "none.npy is not ref, keras, a number or a .npy file"),
        ("conv2 forward", "bias=False", "False is not ref, keras, a number or a .npy file"),
        ("conv2 forward", "filters=9", "conv2 has no field or parameter 'filters'; it has size, stride, pad, dilate, "),
        ("conv2 forward", "keras.colour=1", "Keras' layer has no parameter 'colour' \\(it has kernel, bias\\)"),
    ],
)
def test_what_cannot_be_set_is_refused_in_a_line_and_changes_nothing(leaky_steps, where, assignment, said):
    leaky_steps.run_to(where)
    before = leaky_steps.here.state
    with pytest.raises(BadUsage, match=f"^set: {said}") as refusal:
        leaky_steps.experiments.set(assignment)
    assert "\n" not in str(refusal.value)
    assert len(leaky_steps.experiments) == 0
    assert leaky_steps.here.state is before


def test_undo_in_any_order_brings_back_exactly_what_was(leaky_steps):
    """Experiments of every kind at chance places of two steps; some are refused, some take others with them."""
    stepper, rng = leaky_steps, np.random.default_rng(3)

    def seen():
        stepper.goto(len(stepper.stops) - 1)
        return {key(p): (p.status, p.max_abs) for p in stepper.probes}

    before, made = seen(), set()
    words = ["put ref", "put keras", "set bias=0", "set keras.kernel=0.1", "set kernel=keras", "set pad=1,0,1,0"]
    words += ["set slope=0.2", "set leak=0.5", "fix", "rule", "undo"]
    for _ in range(30):
        stepper.goto(int(rng.integers(1, len(stepper.stops))))
        line = words[rng.integers(len(words))]
        try:
            Commands(stepper).run(line)
            made.add(line.partition(" ")[0])
        except BadUsage as refusal:
            assert "\n" not in str(refusal)
    assert made >= {"put", "set", "undo", "rule"}
    while len(stepper.experiments):
        stepper.experiments.undo()
    assert seen() == before


def test_rules_of_an_update_after_a_later_step_was_changed(leaky_steps):
    """What was forgotten of the later step is forgotten of what the rules replay, too."""
    stepper = leaky_steps
    stepper.goto(len(stepper.stops) - 1)
    stepper.goto(next(s.index for s in stepper.stops if s.step == 2 and s.phase == "backward"))
    stepper.experiments.put("ref")
    stepper.goto(next(s.index for s in stepper.stops if s.step == 1 and s.phase == "update"))
    assert isinstance(stepper.experiments.rules(), tuple)
    stepper.goto(len(stepper.stops) - 1)
    stepper.experiments.undo()


def test_rules_say_what_holds_when_an_experiment_is_taken_back(folder):
    """What a rule found at a later step, or before an undo, does not outlive it."""
    stepper = Stepper.open(*simple(folder, twins.plain()), steps=2)
    commands = Commands(stepper)
    stepper.goto(next(s.index for s in stepper.stops if s.step == 2 and s.layer == "conv2" and s.phase == "forward"))
    commands.run("set kernel=0")
    assert stepper.here.state.status == "born"
    commands.run("rule")
    commands.run("undo")
    assert "no rule" in str(commands.run("rule"))


def test_an_edit_that_changes_a_shape_is_held_against_shaken_runs_of_that_shape(folder):
    """The layer then makes what Keras makes, from weights that have moved apart."""
    stepper = Stepper.open(*strided(folder), steps=2)
    stepper.goto(next(s.index for s in stepper.stops if (s.layer, s.phase, s.step) == ("conv1", "forward", 2)))
    assert stepper.experiments.set("stride=1").reproduces
    assert stepper.here.state.status == "inherited"


def test_what_cannot_run_after_an_experiment_is_said(folder):
    """A branch of another size than the one that it is added to."""
    dag = twins_dag.random_dag(1)
    path = twins_dag.save(folder / "edited.mat", dag)
    stepper = Stepper.open(path, twins_dag.twin(dag), twins_dag.batch(dag), steps=1)
    commands = Commands(stepper)
    stepper.run_to("s1b0c1 forward")
    commands.run("set pad=2")
    stepper.run_to("s1b0c1 update")
    assert stepper.here.state.status == "unverified"
    assert commands.run("show names") is not None
    with pytest.raises(BadUsage):
        commands.run("export a.npy kernel")


def test_masks_that_are_drawn_later_are_not_missed(folder):
    """Where the reference was run alone before its dropout was come to, as first sight may have it."""
    layers = twins.normalised()
    path = twins.save(folder / "dropping.mat", layers)
    for rate, status in ((0.3, "match"), (0.3003, "born")):
        stepper = Stepper.open(path, twins.twin(layers, edits={"drop": {"rate": rate}}), twins.batch(), steps=1)
        stepper.next()
        assert not stepper.scene().bench(backward=False).ref_masks
        stepper.run_to("drop forward")
        assert stepper.here.state.status == status


def test_optimizers_that_differ_where_the_batch_does_not_show_it_are_masked(folder):
    """As `compare` has it: a clipping far above every gradient."""
    import keras

    layers = twins.plain()
    path = twins.save(folder / "clipped.mat", layers)
    for clip, status in (({}, "match"), ({"clipvalue": 50.0}, "masked")):
        optimizer = keras.optimizers.SGD(twins.RATE, momentum=twins.MOMENTUM, **clip)
        port = twins.twin(layers, optimizer=optimizer)
        stepper = Stepper.open(path, port, twins.batch(), steps=2)
        stepper.goto(len(stepper.stops) - 1)
        states = [stepper.state(stop.index) for stop in stepper.stops if stop.phase == "update"]
        assert {state.status for state in states if state} == {status}
        found = {finding.cause for finding in stepper.training.findings("update")}
        assert ("optimizer-clipping" in found) == bool(clip)
        stepper.close()
        report = parity.compare(path, port, twins.batch(), steps=2)
        assert report.verdict == stepper.verdict == "match"
        assert {probe.status for probe in report.probes if probe.phase == "update"} == {status}
        assert {finding.cause for finding in report.findings} == found
