"""Two recorded runs: right ports match, planted faults are named at the first probe above noise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import parity
from parity import stretches
from parity.cli import main
from parity.traces import held, pictures, recorded, two
from parity.traces.format import seal
from parity.traces.playback import TraceRunner
from parity.traces.reader import Trace
from parity.traces.two import OPEN, compare_traces
from tests import twins, twins_dag

NETS = {"plain": twins.plain, "normalised": twins.normalised}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def pairs(folder):
    """(net, mode, tensors, edits…) → both traces, recorded once; dropout keeps the same on both sides."""
    made = {}

    def record(net="plain", mode="train", tensors="all", **changes):
        key = (net, mode, tensors, repr(changes))
        if key not in made:
            mat = twins.save(folder / f"{net}.mat", NETS[net]())
            keras, ref = folder / f"keras{len(made)}.h5", folder / f"ref{len(made)}.h5"
            options = {"mode": mode, "steps": 2, "tensors": tensors}
            parity.record(keras, ref=mat, keras=twins.twin(NETS[net](), **changes), batch=twins.batch(n=6), **options)
            parity.record(ref, ref=mat, batch=keras, **options)
            made[key] = ref, keras
        return made[key]

    return record


def compare(pair, **options):
    return parity.compare(ref=pair[0], keras=pair[1], steps=2, **options)


@pytest.mark.parametrize("net", NETS)
def test_a_right_port_matches(pairs, net):
    report = compare(pairs(net))
    assert report.verdict == "match", [p for p in report.probes if p.status != "match"]
    assert {p.phase for p in report.probes} == set(parity.report.PHASES)
    assert not [f for f in report.findings if f.severity == "divergence"]


@pytest.fixture
def short(monkeypatch):
    """Memory for two hundred elements of a tensor at a time; how many were read at once at most."""
    monkeypatch.setattr(stretches, "LENGTH", 200)
    monkeypatch.setattr(stretches, "WIDE", 100)
    monkeypatch.setattr(held, "LENGTH", 200)
    monkeypatch.setattr(recorded, "READ", 200)
    for module in (two, pictures):
        monkeypatch.setattr(module, "LARGEST", 200)
    most, whole, span = [0], held.Held.value, held.Held.span

    def value(self):
        most[0] = max(most[0], int(np.prod(self.shape)))
        return whole(self)

    def part(self, start, stop):
        most[0] = max(most[0], stop - start)
        return span(self, start, stop)

    rows = held.Held.part

    def box(self, some, columns):
        most[0] = max(most[0], (some.stop - some.start) * (columns.stop - columns.start))
        return rows(self, some, columns)

    monkeypatch.setattr(held.Held, "part", box)
    monkeypatch.setattr(held.Held, "chunks", None)  # a chunk of these small tensors would be one of them
    monkeypatch.setattr(held.Held, "value", value)
    monkeypatch.setattr(held.Held, "span", part)
    return most


@pytest.mark.parametrize("net", NETS)
def test_no_tensor_is_read_whole(pairs, net, short):
    pair = pairs(net)
    short[0] = 0
    report = compare(pair)
    assert report.verdict == "match", [p for p in report.probes if p.status != "match"]
    assert {p.phase for p in report.probes} == set(parity.report.PHASES)
    assert 100 < short[0] <= 200


def test_grouped_filters_in_a_denser_kernel_are_not_read_whole(pairs, short):
    """They are blocks there, put together as they are read; so are their gradients and updates."""
    pair = pairs("plain", edits={"conv2": {"groups": 1}})
    short[0] = 0
    report = compare(pair)
    assert {(f.cause, f.layer) for f in report.findings if f.severity == "divergence"} == {("conv-groups", "conv2")}
    assert {p.status for p in report.probes if p.layer != "conv2" and p.phase in ("forward", "loss")} == {"match"}
    assert [p for p in report.probes if (p.layer, p.tensor, p.phase) == ("conv2", "kernel", "update")]
    assert 100 < short[0] <= 200


def test_reading_in_parts_changes_no_number(pairs, request):
    ref, keras = pairs("plain", edits={"relu1": {"leak": 0.1001}})
    whole = compare((ref, keras)).probes
    request.getfixturevalue("short")
    parts = compare((ref, keras)).probes
    for mine, theirs in zip(parts, whole, strict=True):
        told = [[getattr(p, name) for name in ("layer", "tensor", "step", "status", "note")] for p in (mine, theirs)]
        assert told[0] == told[1]
        for name in ("max_abs", "rms_rel", "floor", "propagated_x_floor"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert a is b is None or a == pytest.approx(b, rel=2e-3), (mine, name)


def test_a_large_parameter_that_differs_is_named_without_its_layout(pairs, folder, short):
    ref, _ = pairs("plain", mode="eval")
    own = parity.record(folder / "large.h5", keras=twins.twin(twins.plain()), batch=ref, mode="eval")
    short[0] = 0
    report = compare((ref, own), mode="eval")
    assert (report.verdict, report.first_divergence.phase) == ("diverged", "weights")
    causes = {(f.layer, f.cause) for f in report.findings}
    assert {("fc", "weights-differ"), ("fc", "bias-value")} <= causes
    named = {f.layer: f for f in report.findings if f.cause == "weights-differ" and f.layer == "fc"}
    assert "too large to look for its layout" in named["fc"].evidence
    assert short[0] <= 200


@pytest.fixture(scope="module")
def heads(folder):
    """Traces of a net with two losses, of its twin, of one without what layers add alone, and of a wrong twin."""
    dag = twins_dag.two_heads()
    mat, keras, wrong = twins_dag.save(folder / "heads.mat", dag), folder / "heads.keras.h5", folder / "heads.wrong.h5"
    options = {"steps": 2, "batch": twins_dag.batch(dag)}
    parity.record(keras, ref=mat, keras=twins_dag.twin(dag), **options)
    parity.record(wrong, ref=mat, keras=twins_dag.twin(dag, loss_weights=[1.0, 2.0]), **options)
    ref, bare = folder / "heads.ref.h5", folder / "heads.bare.h5"
    parity.record(ref, ref=mat, batch=keras, steps=2)
    bare.write_bytes(ref.read_bytes())
    with h5py.File(bare, "r+") as file:
        del file["isolated"]
    seal(bare, parity.__version__)
    return {"mat": mat, "keras": keras, "wrong": wrong, "ref": ref, "bare": bare}


def test_heads_that_flatten_for_themselves_are_no_divergence(heads):
    """What flows back to the map that two heads read is a sum; what flows back to each head's Flatten is not."""
    report = compare((heads["ref"], heads["keras"]))
    assert report.verdict == "match", [p for p in report.probes if p.status != "match"]
    assert {"head1", "head2"} <= {p.layer for p in report.probes if p.tensor == "dx"}
    bare = compare((heads["bare"], heads["keras"]))
    assert bare.verdict == "unverified"
    assert {(p.layer, p.tensor) for p in bare.probes if p.status == "unverified"} == {("head1", "dx"), ("head2", "dx")}
    wrong = compare((heads["ref"], heads["wrong"]))
    assert wrong.verdict == "diverged"
    apart = {p.layer for p in wrong.probes if p.tensor == "dx" and p.status == "inherited"}
    assert "head2" in apart
    assert "head1" not in apart


def test_the_labels_of_a_trace_are_found_by_the_names_of_its_network(heads):
    """Keras's losses go by their outputs, those of a MatConvNet net by its variables; there are two of each."""
    with Trace(heads["ref"]) as ref, Trace(heads["keras"]) as keras:
        for mine, theirs in (("label", "labels:head1"), ("attribute", "labels:head2")):
            assert np.array_equal(ref.labels.values[mine], keras.labels.values[theirs])
    report = compare((heads["mat"], heads["keras"]))
    assert report.verdict == "match"
    assert {p.phase for p in report.probes} == set(parity.report.PHASES)


@pytest.mark.parametrize("tensors", ["stats", "sample"])
def test_a_right_port_matches_by_what_was_kept_of_it(pairs, tensors):
    report = compare(pairs("normalised", tensors=tensors))
    assert report.verdict == "match", [p for p in report.probes if p.status != "match"]
    assert any("Tensors were compared by" in note for note in report.notes)
    assert all(p.note.startswith("compared by") for p in report.probes if p.phase == "forward")


FAULTS = {
    "leaky slope": ("plain", {"edits": {"relu1": {"leak": 0.1001}}}, "forward", "relu1", "activation-slope"),
    "epsilon": ("normalised", {"edits": {"bn1": {"epsilon": 1e-3}}}, "forward", "bn1", "bn-epsilon"),
    "average for max": ("plain", {"edits": {"pool1": {"method": "avg"}}}, "forward", "pool1", "pool-method"),
    "no decay": ("plain", {"decay": None}, "update", "conv1", "optimizer-weight-decay-missing"),
    "averaging": ("normalised", {"edits": {"bn1": {"momentum": 0.99}}}, "update", "bn1", "bn-momentum"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_its_birth_left_open(pairs, fault):
    net, changes, phase, layer, cause = FAULTS[fault]
    report = compare(pairs(net, **changes))
    first = report.first_divergence
    assert report.verdict == "diverged"
    assert (first.phase, first.layer, first.status) == (phase, layer, "inherited")
    named = [f for f in report.findings if f.severity == "divergence"]
    assert named[0].cause == cause
    assert not any(f.confirmed for f in named)
    probe = next(p for p in report.probes if p.status == "inherited" and p.phase == phase)
    assert OPEN in probe.note or phase == "update"
    if phase == "forward":
        off = re.search(r"float64 run the reference is off by (\S+), Keras by (\S+);", probe.note)
        assert float(off[1]) < 1e-6 < 1e-5 < float(off[2])
    assert not [p for p in report.probes if p.status == "born"]


def test_pictures_of_two_traces_show_where_they_part(pairs):
    ref, keras = pairs("plain", edits={"relu1": {"leak": 0.1001}})
    report = compare((ref, keras), details=True)
    seen = {(d.layer, d.phase, d.tensor): d for d in report.details}
    assert {phase for _, phase, _ in seen} == {"forward", "backward", "update"}
    picture = seen["relu1", "forward", "output"]
    probe = next(p for p in report.probes if (p.layer, p.phase) == ("relu1", "forward"))
    assert picture.max_abs == pytest.approx(probe.max_abs)
    with Trace(ref) as a, Trace(keras) as b:
        index = picture.worst[0].index
        held = [t.held("step1/outputs", n).value()[index] for t, n in ((a, "relu1"), (b, picture.keras_layer))]
    assert [picture.worst[0].expected, picture.worst[0].actual] == held
    kernel = seen["conv1", "backward", "dkernel"]
    assert kernel.axes == ("input channel", "channel") or "output channel" in kernel.axes
    assert "relu1" in report.to_html()
    assert not compare((ref, keras)).details
    moved = compare(pairs("plain", decay=None), details=True)
    first = {d.layer: d.step for d in moved.details if (d.phase, d.tensor) == ("update", "kernel")}
    born = [p for p in moved.probes if (p.phase, p.tensor, p.status) == ("update", "kernel", "inherited")]
    assert first
    assert all(step == min(p.step for p in born if p.layer == name) for name, step in first.items())
    assert not [d for d in compare(pairs("plain", tensors="stats"), details=True).details if d.phase == "forward"]


def test_pictures_of_sampled_tensors_are_those_of_the_tensors_where_they_are_small(pairs):
    faulty = {"edits": {"relu1": {"leak": 0.1001}}}
    whole, few = (compare(pairs("plain", tensors=kept, **faulty), details=True).details for kept in ("all", "sample"))
    seen = [{(d.layer, d.phase, d.tensor): d for d in details} for details in (whole, few)]
    # The vector that a map was flattened to has other rows, so that others of them were kept.
    assert seen[0].keys() - seen[1].keys() == {("fc", "backward", "dx")}
    for key, picture in seen[1].items():
        assert picture.worst == seen[0][key].worst
        assert picture.part is None


@pytest.mark.parametrize("tensors", ["stats", "sample"])
def test_a_fault_shows_in_statistics(pairs, tensors):
    report = compare(pairs("plain", tensors=tensors, edits={"relu1": {"leak": 0.1001}}))
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "relu1")


def test_whole_tensors_compare_with_statistics(pairs):
    whole, stats = pairs("plain"), pairs("plain", tensors="stats")
    assert compare((whole[0], stats[1])).verdict == "match"
    assert compare((stats[0], whole[1])).verdict == "match"


def test_weights_that_differ_come_first(pairs, folder):
    ref, _ = pairs("plain", mode="eval")
    own = parity.record(folder / "own.h5", keras=twins.twin(twins.plain()), batch=ref, mode="eval")
    report = compare((ref, own), mode="eval")
    assert (report.verdict, report.first_divergence.phase) == ("diverged", "weights")


def test_dropout_that_kept_other_values_is_no_divergence(pairs, folder):
    _, keras = pairs("normalised")
    ref = parity.record(folder / "other.h5", ref=folder / "normalised.mat", batch=twins.batch(n=6), steps=2, seed=5)
    report = compare((ref, keras))
    assert report.verdict == "unverified"
    lost = {p.layer for p in report.probes if p.status == "unverified" and p.phase == "forward"}
    assert "drop" in lost
    assert "bn1" not in lost


def test_a_dropout_of_which_nobody_recorded_what_it_kept_is_unverified(pairs, folder):
    _, keras = pairs("normalised")
    _without(keras, folder / "maskless.h5", "step1/masks")
    report = compare((folder / "maskless.h5", twins.twin(NETS["normalised"]())), verify=False)
    assert report.verdict == "unverified"
    drop = next(p for p in report.probes if (p.phase, p.layer) == ("forward", "drop"))
    assert drop.note.startswith("draws random numbers and leaves no mask")
    assert not [p for p in report.probes if p.status == "born"]


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_a_model_drops_what_its_recording_dropped(pairs, rate):
    _, keras = pairs("normalised")
    model = twins.twin(NETS["normalised"](), edits={"drop": {"rate": rate}})
    report = parity.compare(ref=keras, keras=model, steps=2, verify=False)
    causes = [(f.cause, f.layer, f.confirmed) for f in report.findings if f.severity == "divergence"]
    assert (report.verdict, causes) == (
        ("match", []) if rate == 0.3 else ("diverged", [("dropout-rate", report.first_divergence.layer, True)])
    )
    assert not [p for p in report.probes if p.status == "unverified"]


def test_a_recorded_layer_alone_shows_its_batch_statistics_too(pairs):
    with Trace(pairs("normalised")[1]) as trace:
        runner, seen = TraceRunner(trace), trace.seen(1)
        layers = [layer for layer in runner.network if layer.kind.name == "BatchNorm"]
        assert layers
        for layer in layers:
            local = runner.isolate([layer.name], {layer.inputs[0]: seen.outputs[layer.inputs[0]]})
            for role in ("mean", "variance"):
                np.testing.assert_array_equal(local.statistics[layer.name][role], seen.statistics[layer.name][role])


def test_other_labels_than_were_recorded_are_refused_in_any_way_of_comparing(pairs):
    ref, keras = pairs("plain")
    given = twins.batch(n=6)
    other = {**given, "y": (given["y"] + 1) % 2}
    for sides in ((ref, keras), (ref, twins.twin(NETS["plain"]())), (keras, twins.twin(NETS["plain"]()))):
        assert compare(sides, batch=given).verdict == "match"
        with pytest.raises(parity.CannotCompare, match="was recorded on another batch"):
            compare(sides, batch=other)


def test_a_run_that_was_recorded_without_labels_is_compared_so_far_and_says_so(pairs, folder):
    given, model = twins.batch(n=6), twins.twin(NETS["plain"]())
    ref = parity.record(folder / "bare.h5", ref=folder / "plain.mat", batch={"x": given["x"]})
    for keras in (model, pairs("plain")[1]):
        report = compare((ref, keras), verify=False)
        assert "backward" not in {p.phase for p in report.probes}
        assert any("loss, backward and update could not be compared" in note for note in report.notes)
        with pytest.raises(parity.CannotCompare, match="was recorded without labels"):
            compare((ref, keras), batch=given)


def test_a_tensor_that_one_trace_lacks_is_unverified(pairs, folder):
    ref, keras = pairs("plain")
    thin = folder / "thin.h5"
    _without(ref, thin, "step1/outputs/pool1")
    report = compare((thin, keras))
    assert report.verdict == "unverified"
    assert [p.layer for p in report.probes if p.status == "unverified" and p.phase == "forward"] == ["pool1"]


@pytest.mark.parametrize("tensors", ["all", "stats"])
def test_a_reference_without_floors_takes_those_of_its_network_run_by_parity(pairs, folder, tensors):
    ref, keras = pairs("normalised", tensors=tensors)
    bare = [folder / f"bare{n}.h5" for n in range(2)]
    for source, target in zip((ref, keras), bare, strict=True):
        _without(source, target, "floors")
    given, found = compare((ref, keras)), compare(bare)
    assert found.verdict == "match"
    assert any("those of parity's own run" in note for note in found.notes)
    old = {(p.layer, p.phase, p.tensor): p.floor for p in given.probes if p.floor}
    for probe in found.probes:
        if probe.phase in ("forward", "backward") and old.get((probe.layer, probe.phase, probe.tensor)):
            assert 0.1 < probe.floor / old[probe.layer, probe.phase, probe.tensor] < 10, probe
    alone = compare_traces(*map(Trace, bare), steps=2).probes  # by the rounding of the values themselves
    assert any(p.floor > 2 * q.floor for p, q in zip(found.probes, alone, strict=True) if p.floor and q.floor)


def test_a_fault_is_found_with_floors_that_were_lent(pairs, folder):
    ref, keras = pairs("plain", edits={"relu1": {"leak": 0.1001}})
    _without(ref, folder / "bare.h5", "floors")
    first = compare((folder / "bare.h5", keras)).first_divergence
    assert (first.phase, first.layer) == ("forward", "relu1")


def test_a_run_recorded_in_matlab_has_floors_against_a_trace():
    """The raw recording is read as it is; parity's own run of its network says what rounding does."""
    root = Path(__file__).parents[2]
    run = root / "traces" / "octave" / "simple_head.mat"
    report = parity.compare(ref=run, keras=root / "traces" / "gate" / "keras.h5", allow=["inherited:c2"])
    floors = {(p.layer, p.tensor) for p in report.probes if p.phase in ("forward", "backward") and p.floor}
    assert ("c1", "output") in floors
    assert not [p for p in report.probes if "no floors" in p.note]


def _without(source, target, *groups):
    """A copy of a trace that lacks some of what it held."""
    _edited(source, target, lambda file: [file.pop(group) for group in groups])


def _edited(source, target, edit):
    """A copy of a trace, sealed after something was done to it."""
    import h5py

    from parity.traces.format import BLOCK, seal

    with h5py.File(source) as old, h5py.File(target, "w", userblock_size=BLOCK) as new:
        for name in old:
            old.copy(name, new)
        edit(new)
    seal(target, "0.0.0")
    return target


@pytest.mark.parametrize("floor", [np.nan, np.inf])
def test_nothing_passes_below_a_floor_that_is_no_number(pairs, folder, floor):
    def spoilt(file):
        for kind in file["floors"].values():
            for one in kind.values():
                one[...] = floor

    faulty = pairs("plain", edits={"relu1": {"leak": 0.1001}})
    report = compare([_edited(path, folder / f"spoilt{n}.h5", spoilt) for n, path in enumerate(faulty)])
    assert (report.verdict, report.first_divergence.layer) == ("diverged", "relu1")


def test_statistics_that_are_no_numbers_say_nothing(pairs, folder):
    def spoilt(file):
        file["sketches/step1/outputs/relu1"][...] = np.nan

    ref, keras = pairs("plain", tensors="stats")
    report = compare((_edited(ref, folder / "nan.h5", spoilt), keras))
    assert report.verdict == "unverified"
    notes = {(p.phase, p.layer): p.note for p in report.probes if p.status == "unverified"}
    assert notes == {("forward", "relu1"): "its statistics are no numbers"}


@pytest.mark.parametrize("kind", ["SoftLink", "ExternalLink", "raw"])
def test_what_lies_in_another_file_is_not_vouched_for(pairs, folder, kind):
    import h5py

    place = "step1/outputs/relu1"

    def led_out(file):
        shape, group = file[place].shape, file["step1/outputs"]
        del file[place]
        if kind == "raw":
            group.create_dataset("relu1", shape, "f4", external=[(str(folder / "raw"), 0, h5py.h5f.UNLIMITED)])
        else:
            group["relu1"] = h5py.SoftLink("/weights") if kind == "SoftLink" else h5py.ExternalLink(str(ref), place)

    ref, keras = pairs("plain")
    with pytest.raises(parity.ParityError, match=r"is a damaged trace \(.*(is a link|lies in another file)"):
        compare((_edited(ref, folder / f"{kind}.h5", led_out), keras))


def test_traces_compare_without_a_framework_and_alike_every_time(pairs, folder):
    ref, keras = pairs("plain")
    code = (
        "import sys; from parity.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "names = {'torch', 'tensorflow', 'keras', 'tf_keras', 'jax', 'scipy'} & set(sys.modules)\n"
        "assert not names, names\n"
        "sys.exit(code)"
    )
    texts = []
    for run in range(2):
        target = folder / f"{run}.json"
        arguments = ["compare", "--ref", ref, "--keras", keras, "--steps", "2", "--json", target]
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        texts.append(target.read_bytes())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["verdict"] == "match"


def test_a_side_that_cannot_be_run_is_met_by_a_recording(pairs, folder):
    _, keras = pairs("plain")
    report = parity.compare(ref=folder / "plain.mat", keras=keras, steps=2)
    assert report.verdict == "match"
    assert any("was run on the recorded batch" in note for note in report.notes)


def test_a_trace_stands_for_its_side(pairs, folder):
    ref, keras = pairs("plain")
    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.2}})
    live = parity.compare(ref=folder / "plain.mat", keras=model, batch=twins.batch(n=6), steps=2, verify=False)
    played = parity.compare(ref=ref, keras=model, steps=2, verify=False)
    assert played.first_divergence == live.first_divergence
    assert [f.cause for f in played.findings] == [f.cause for f in live.findings]
    assert all(f.confirmed for f in played.findings if f.severity == "divergence")
    # A recorded Keras model is a reference too, though nothing of it can be run again.
    right = twins.twin(twins.plain())
    assert parity.compare(ref=keras, keras=right, steps=2).verdict == "match"
    report = parity.compare(ref=keras, keras=model, steps=2, verify=False)
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "relu1")
    assert report.first_divergence.status == "born"


def test_only_what_was_recorded_is_answered(pairs, capsys, tmp_path):
    ref, keras = pairs("plain")
    assert main(["compare", "--ref", str(ref), "--keras", str(keras), "--mode", "eval"]) == 2
    assert "was recorded in train mode" in capsys.readouterr().err
    np.savez(tmp_path / "batch.npz", **twins.batch(seed=1, n=6))
    assert main(["compare", "--ref", str(ref), "--keras", str(keras), "--batch", str(tmp_path / "batch.npz")]) == 2
    assert "was recorded on another batch" in capsys.readouterr().err
    with Trace(ref) as trace:
        assert trace.steps == 2
    report = parity.compare(ref=ref, keras=keras, steps=5)
    assert max(p.step for p in report.probes) == 2
    assert any("2 updates were recorded" in note for note in report.notes)


def test_paths_are_text_or_paths(pairs):
    ref, keras = pairs("plain")
    assert parity.compare(ref=str(ref), keras=Path(keras), steps=2).verdict == "match"
