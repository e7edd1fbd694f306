"""What a gate makes of a report, its exceptions and its baseline; on reports made by hand."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from parity.errors import BadFile
from parity.gate.baseline import against, asked, judged_phases
from parity.gate.config import Exemption, Pair
from parity.gate.judgement import judge
from parity.gate.lock import Entry, merge, read_lock, to_text
from parity.report import Finding, FirstDivergence, Probe, Report
from tests.reports import examples

TODAY = datetime.date(2026, 6, 1)
LOCK = Path("parity.lock")
COMMAND = "parity gate --update"
OPTIONS = {"ref": "net.mat", "keras": "model.h5"}
EVERY = ("structure", "forward", "loss", "backward", "update")


def probe(phase: str, layer: str, status: str = "match", end: float | None = 2e-7, alone: float | None = 0.8, **more):
    tensor = {"structure": "shape", "loss": "loss", "backward": "dx", "update": "kernel"}.get(phase, "output")
    return Probe(layer, f"k_{layer}", phase, tensor, status=status, rms_rel=end, isolated_x_floor=alone, **more)


def clean() -> list[Probe]:
    return [probe(phase, layer) for phase in EVERY for layer in ("conv1", "bn1", "fc")]


def report(probes: list[Probe], *findings: Finding, **options) -> Report:
    return dataclasses.replace(
        examples.matching(),
        probes=tuple(probes),
        findings=findings,
        phases=tuple(dict.fromkeys(p.phase for p in probes)),
        options={**examples.OPTIONS, **options},
    )


def born(probes: list[Probe], phase: str, layer: str, status: str = "born", end: float = 0.5, alone: float = 9e4):
    return [
        dataclasses.replace(p, status=status, rms_rel=end, isolated_x_floor=alone)
        if (p.phase, p.layer) == (phase, layer)
        else p
        for p in probes
    ]


EPSILON = Finding("bn-epsilon", "divergence", "bn1", "k_bn1", "forward", "1e-5 against 1e-3.", "epsilon=1e-5", True)
KIND = Finding("optimizer-kind", "divergence", "", "", "update", "SGD against Adam.", "SGD()", True)
SINCE = datetime.date(2026, 1, 1)
ENTRY = '{"schema": "parity-lock/1", "pairs": {"a": {"asked": {}, "phases": [], "allowed": [], "tensors": [%s]}}}'


def pair(*allow: Exemption, phases: tuple[str, ...] = ()) -> Pair:
    return Pair("lenet", OPTIONS, phases, allow)


def locked(given: Report, of: Pair | None = None) -> Entry:
    of = of or pair()
    judgement = judge(of, given, TODAY)
    return Entry.of([given], asked(of, given), [e.words for e in judgement.allowed], judged_phases(of, given))


def held(given: Report, entry: Entry | None, of: Pair | None = None):
    return against(judge(of or pair(), given, TODAY), entry, LOCK, COMMAND)


# ----------------------------------------------------------------------------------------------------------- exceptions


def test_agreement_holds():
    judgement = judge(pair(), report(clean()), TODAY)
    assert (judgement.verdict, judgement.problems, judgement.warnings) == ("match", (), ())


def test_a_divergence_names_layer_and_cause():
    judgement = judge(pair(), report(born(clean(), "forward", "bn1"), EPSILON), TODAY)
    assert judgement.verdict == "diverged"
    (problem,) = judgement.problems
    assert (problem.kind, problem.layer, problem.phase) == ("divergence", "bn1", "forward")
    assert problem.sentence == "bn-epsilon at bn1 in forward: 1e-5 against 1e-3."
    assert problem.remedy == "fix in Keras: epsilon=1e-5"
    assert judgement.first is not None
    assert judgement.first.layer == "bn1"


def test_a_fault_without_a_cause_does_not_pass():
    judgement = judge(pair(), report(born(clean(), "forward", "fc")), TODAY)
    assert [(p.kind, p.layer) for p in judgement.problems] == [("divergence", "fc")]


@pytest.mark.parametrize(
    ("allow", "verdict"),
    [
        (Exemption("why", "bn1", "bn-epsilon", since=SINCE), "match"),
        (Exemption("why", "b*", "bn-epsilon", since=SINCE), "match"),
        (Exemption("why", "k_bn1", "bn-epsilon", since=SINCE), "match"),
        (Exemption("why", "bn2", "bn-epsilon", since=SINCE), "diverged"),
        (Exemption("why", "bn1", "bn-momentum", since=SINCE), "diverged"),
        (Exemption("why", "", "bn-epsilon", since=SINCE), "diverged"),
        (Exemption("why", "bn1", status="born", since=SINCE), "match"),
        (Exemption("why", "bn1", status="unverified", since=SINCE), "diverged"),
        (Exemption("why", "bn1", "bn-epsilon", until=TODAY), "match"),
        (Exemption("why", "bn1", "bn-epsilon", until=TODAY - datetime.timedelta(1)), "diverged"),
        (Exemption("why", "bn1", "bn-epsilon", since=TODAY + datetime.timedelta(1)), "diverged"),
    ],
)
def test_an_exception_is_for_one_cause_at_one_layer_while_it_holds(allow, verdict):
    judgement = judge(pair(allow), report(born(clean(), "forward", "bn1"), EPSILON), TODAY)
    assert judgement.verdict == verdict
    assert judgement.allowed == ((allow,) if verdict == "match" else ())
    # It is a warning that one fits nothing; that one has run out is said where it is missed.
    fits = allow.cause == "bn-epsilon" and allow.fits("bn1", "k_bn1")
    assert bool(judgement.warnings) == (verdict != "match" and not fits)


def test_an_expired_exception_says_so_where_it_is_missed():
    allow = Exemption("why", "bn1", "bn-epsilon", until=datetime.date(2026, 5, 31))
    judgement = judge(pair(allow), report(born(clean(), "forward", "bn1"), EPSILON), TODAY)
    assert judgement.problems[0].remedy.startswith("the exception for bn-epsilon at bn1 held until 2026-05-31; fix in")


def test_an_exception_that_is_not_needed_is_reported():
    judgement = judge(pair(Exemption("why", "bn1", "bn-epsilon", since=SINCE)), report(clean()), TODAY)
    assert judgement.verdict == "match"
    assert judgement.warnings == ("the exception for bn-epsilon at bn1 is not needed any more and can go",)


def test_a_second_cause_at_an_allowed_layer_is_not_allowed():
    momentum = dataclasses.replace(EPSILON, cause="bn-mode", evidence="batch statistics.")
    judgement = judge(
        pair(Exemption("why", "bn1", "bn-epsilon", since=SINCE)),
        report(born(clean(), "forward", "bn1"), EPSILON, momentum),
        TODAY,
    )
    assert judgement.verdict == "diverged"
    assert [p.sentence for p in judgement.problems] == ["bn-mode at bn1 in forward: batch statistics."]


def test_causes_of_the_recipe_explain_updates_together():
    rate = dataclasses.replace(KIND, cause="optimizer-learning-rate", evidence="0.1 against 1.")
    given = report(born(born(clean(), "update", "bn1"), "update", "fc"), KIND, rate)
    kind = Exemption("why", cause="optimizer-kind", since=SINCE)
    both = kind, Exemption("why", cause="optimizer-learning-rate", since=SINCE)
    assert judge(pair(kind), given, TODAY).verdict == "diverged"
    assert judge(pair(*both), given, TODAY).verdict == "match"


def test_an_allowed_cause_does_not_cover_earlier_phases_or_other_layers():
    allow = Exemption("why", "bn1", "bn-epsilon", since=SINCE)
    for phase, layer in (("structure", "bn1"), ("forward", "fc")):
        given = report(born(born(clean(), "forward", "bn1"), phase, layer), EPSILON)
        judgement = judge(pair(allow), given, TODAY)
        assert judgement.verdict == "diverged"
        assert judgement.problems[0].layer == layer


@pytest.mark.parametrize("lost", EVERY)
def test_a_phase_that_was_not_compared_is_unverified(lost):
    judgement = judge(pair(), report([p for p in clean() if p.phase != lost]), TODAY)
    assert judgement.verdict == "unverified"
    assert f"{lost} was not compared" in [p.sentence for p in judgement.problems]


def test_phases_can_be_asked_for_and_then_only_they_are_judged():
    given = report(born(clean(), "update", "fc"), KIND)
    assert judge(pair(phases=("forward", "loss")), given, TODAY).verdict == "match"
    assert judge(pair(phases=("forward", "weights")), given, TODAY).verdict == "unverified"


def test_what_could_not_be_seen_is_unverified_unless_it_is_allowed_by_name():
    given = report(born(clean(), "forward", "fc", "unverified"))
    judgement = judge(pair(), given, TODAY)
    assert judgement.verdict == "unverified"
    assert 'layer = "fc", status = "unverified"' in judgement.problems[0].remedy
    assert judge(pair(Exemption("noise", "fc", status="unverified", since=SINCE)), given, TODAY).verdict == "match"
    # A cause says what differs; it cannot say what was not seen.
    cause = dataclasses.replace(EPSILON, layer="fc", keras_layer="k_fc")
    blind = judge(pair(Exemption("why", "fc", "bn-epsilon", since=SINCE)), report(list(given.probes), cause), TODAY)
    assert blind.verdict == "unverified"


def test_a_layer_without_a_partner_diverges_unless_it_is_allowed_by_name():
    given = report(born(clean(), "structure", "fc", "unpaired"))
    assert judge(pair(), given, TODAY).verdict == "diverged"
    assert judge(pair(Exemption("aug", "fc", status="unpaired", since=SINCE)), given, TODAY).verdict == "match"


def test_between_two_traces_every_difference_counts():
    allow = Exemption("why", "bn1", "bn-epsilon", since=SINCE)
    probes = born(born(clean(), "forward", "bn1", "inherited"), "forward", "fc", "inherited")
    first = FirstDivergence("forward", "bn1", "k_bn1", "output", 1, "inherited")
    given = dataclasses.replace(report(probes, EPSILON), verdict="diverged", first_divergence=first)
    assert [p.layer for p in judge(pair(), given, TODAY).problems] == ["bn1"]
    judgement = judge(pair(allow), given, TODAY)
    assert [(p.kind, p.layer) for p in judgement.problems] == [("divergence", "fc")]
    assert 'layer = "fc", status = "inherited"' in judgement.problems[0].remedy
    rest = Exemption("follows", "fc", status="inherited", since=SINCE)
    assert judge(pair(allow, rest), given, TODAY).verdict == "match"


def test_what_this_batch_does_not_show_counts_when_strict():
    probes = born(clean(), "forward", "bn1", "masked", 0.0, 0.0)
    assert judge(pair(), report(probes), TODAY).verdict == "match"
    assert judge(pair(), report(probes, strict=True), TODAY).verdict == "diverged"


# ------------------------------------------------------------------------------------------------------------- baseline


def test_a_baseline_holds_for_what_made_it():
    given = report(clean())
    assert held(given, locked(given)).problems == ()


def test_without_a_baseline_it_is_unverified_and_says_how_to_make_one():
    judgement = held(report(clean()), None)
    assert judgement.verdict == "unverified"
    assert [(p.kind, p.remedy) for p in judgement.problems] == [("stale", f"make one: {COMMAND}")]


def test_what_diverges_is_not_asked_for_a_baseline_that_cannot_be_made():
    judgement = held(report(born(clean(), "forward", "bn1"), EPSILON), None)
    assert [p.kind for p in judgement.problems] == ["divergence"]


@pytest.mark.parametrize(
    ("end", "alone", "words"),
    [
        (1e-6, 1.5, ""),
        (4e-6, 9.0, ""),
        (1e-4, 0.8, "is off by 1e-4 end to end; its budget is 5e-6"),
        (2e-7, 12.0, "is 12× the noise floor alone; its budget is 10×"),
    ],
)
def test_a_tensor_that_gets_worse_while_it_passes_is_a_regression(end, alone, words):
    given = report(clean())
    worse = report(born(clean(), "forward", "fc", "match", end, alone))
    judgement = held(worse, locked(given))
    assert judgement.verdict == ("diverged" if words else "match")
    assert [(p.kind, p.layer, p.phase) for p in judgement.problems] == (
        [("regression", "fc", "forward")] if words else []
    )
    assert words in "".join(p.sentence for p in judgement.problems)


@pytest.mark.parametrize(("x_floor", "verdict"), [(2.6, "match"), (50.0, "diverged")])
def test_what_is_rounding_of_a_zero_is_no_regression(x_floor, verdict):
    """Another processor rounds it otherwise, which is all of its size, though here nothing moved it."""
    entry = locked(report(born(clean(), "backward", "bn1", "match", 0.0, 0.0)))
    given = born(clean(), "backward", "bn1", "match", 1.9, 0.0)
    given = [dataclasses.replace(p, propagated_x_floor=x_floor) if p.rms_rel == 1.9 else p for p in given]
    assert held(report(given), entry).verdict == verdict


def test_rounding_that_was_proven_large_keeps_its_room_and_no_more():
    entry = locked(report(born(clean(), "backward", "bn1", "match", 1e-6, 520.0)))
    assert held(report(born(clean(), "backward", "bn1", "match", 1e-6, 1900.0)), entry).verdict == "match"
    assert held(report(born(clean(), "backward", "bn1", "match", 1e-6, 6000.0)), entry).verdict == "diverged"


def test_an_allowed_divergence_may_not_get_worse():
    allow = Exemption("why", "bn1", "bn-epsilon", since=SINCE)
    given = report(born(clean(), "forward", "bn1", end=0.04), EPSILON)
    entry = locked(given, pair(allow))
    assert entry.allowed == ("bn-epsilon at bn1",)
    # Its distance in floors is another on each machine, and is not judged.
    alike = report(born(clean(), "forward", "bn1", end=0.05, alone=9e7), EPSILON)
    assert held(alike, entry, pair(allow)).verdict == "match"
    worse = held(report(born(clean(), "forward", "bn1", end=0.5), EPSILON), entry, pair(allow))
    assert [(p.kind, p.layer) for p in worse.problems] == [("regression", "bn1")]
    better = held(report(born(clean(), "forward", "bn1", end=1e-4), EPSILON), entry, pair(allow))
    assert better.verdict == "match"
    assert "far less off" in better.warnings[0]


def test_an_allowed_layer_may_not_fail_in_a_place_where_it_did_not():
    allow = Exemption("why", "bn1", "bn-epsilon", since=SINCE)
    entry = locked(report(born(clean(), "forward", "bn1"), EPSILON), pair(allow))
    spread = report(born(born(clean(), "forward", "bn1"), "update", "bn1"), EPSILON)
    judgement = held(spread, entry, pair(allow))
    assert [(p.kind, p.phase) for p in judgement.problems] == [("regression", "update")]
    assert "was match and is born" in judgement.problems[0].sentence


def test_a_field_that_newly_differs_is_a_regression_though_this_batch_does_not_show_it():
    note = Finding("activation-slope", "note", "fc", "k_fc", "forward", "0.1 against 0.2, and no negative input.")
    judgement = held(report(born(clean(), "forward", "fc", "masked", 0.0, 0.0), note), locked(report(clean())))
    assert judgement.verdict == "diverged"
    assert judgement.problems[0].sentence == "activation-slope: output of fc in forward was match and is masked"


def test_what_follows_from_a_divergence_is_not_told_again():
    given = born(born(clean(), "forward", "bn1"), "forward", "fc", "inherited", 0.3, 0.5)
    judgement = held(report(given, EPSILON), locked(report(clean())))
    assert [(p.kind, p.layer) for p in judgement.problems] == [("divergence", "bn1")]


def test_another_question_makes_it_stale():
    given = report(clean())
    entry = locked(given)
    inputs = {**examples.INPUTS, "ref": {**examples.INPUTS["ref"], "sha256": "f" * 64}}
    judgement = held(dataclasses.replace(given, inputs=inputs), entry)
    assert judgement.verdict == "unverified"
    assert judgement.problems[0].sentence == "the baseline in parity.lock is stale: ref is another one"
    assert judgement.problems[0].remedy == f"make it anew: {COMMAND}"
    steps = held(report(clean(), steps=5), entry)
    assert steps.problems[0].sentence.endswith("stale: steps was 3 and is 5")
    # The Keras model is what is tested: it may be another file, and stay within the budgets.
    inputs = {**examples.INPUTS, "keras": {**examples.INPUTS["keras"], "sha256": "f" * 64}}
    assert held(dataclasses.replace(given, inputs=inputs), entry).verdict == "match"


def test_tensors_that_come_and_go_do_not_pass_unseen():
    entry = locked(report(clean()))
    fewer = held(report([p for p in clean() if (p.phase, p.layer) != ("backward", "fc")]), entry)
    assert [(p.kind, p.sentence) for p in fewer.problems] == [
        ("unverified", "dx of fc in backward was compared for the baseline, and not now")
    ]
    more = held(report([*clean(), probe("forward", "fc2")]), entry)
    assert [(p.kind, p.sentence) for p in more.problems] == [
        ("stale", "parity.lock knows nothing of output of fc2 in forward")
    ]
    labels = held(report([p for p in clean() if p.phase in ("structure", "forward")]), entry)
    assert labels.verdict == "unverified"


# ------------------------------------------------------------------------------------------------------------- the file


def test_the_file_is_read_back_and_the_same_bytes_come_out(tmp_path):
    entry = locked(report(clean()))
    text = to_text({"b": entry, 'a\n"×': entry})
    (tmp_path / "parity.lock").write_text(text, encoding="utf-8")
    entries = read_lock(tmp_path / "parity.lock")
    assert entries["b"] == entry
    assert to_text(entries) == text
    assert json.loads(text)["schema"] == "parity-lock/1"
    assert text.count("\n") > len(entry.tensors)  # a line for each tensor


def test_noise_leaves_the_file_as_it_is():
    louder = report([dataclasses.replace(p, rms_rel=9e-7, isolated_x_floor=2.4) for p in clean()])
    assert to_text({"a": locked(louder)}) == to_text({"a": locked(report(clean()))})


def test_the_worst_climate_makes_the_budget():
    calm, rough = report(clean()), report(born(clean(), "forward", "fc", "match", 3e-6, 4.0))
    of = pair()
    entry = Entry.of([calm, rough], asked(of, calm), (), judged_phases(of, calm))
    budget = entry.tensors["forward", "fc", "output"]
    assert (budget.alone, budget.end) == (20.0, 2e-5)


def test_merging_keeps_what_others_wrote(tmp_path):
    entry, path = locked(report(clean())), tmp_path / "parity.lock"
    merge(path, {"a": entry})
    merge(path, {"b": entry})
    assert set(read_lock(path)) == {"a", "b"}
    merge(path, {"c": entry}, keep={"b"})
    assert set(read_lock(path)) == {"b", "c"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ("[]", "schema None"),
        ('{"schema": "parity-lock/2"}', "schema 'parity-lock/2'; this parity reads parity-lock/1"),
        ('{"schema": "parity-lock/2"}', "a newer parity wrote it: use that one, or delete it"),
        ('{"schema": "parity-lock/1"}', "is damaged"),
        (ENTRY % "[1]", "is damaged"),
        (ENTRY % '["forward", "a", "b", "good", 1, 1]', "is damaged"),
        (ENTRY % '["forward", "a", "b", "match", "x", 1]', "is damaged"),
    ],
)
def test_a_damaged_baseline_is_one_line(tmp_path, text, words):
    (tmp_path / "parity.lock").write_text(text)
    with pytest.raises(BadFile) as caught:
        read_lock(tmp_path / "parity.lock")
    assert words in str(caught.value)
    assert "make it anew: parity gate --update" in str(caught.value)


@pytest.mark.parametrize("schema", ["parity-lock/0", "parity-lock/x", "someone-lock/2"])
def test_only_a_newer_baseline_is_a_newer_parity_s(tmp_path, schema):
    (tmp_path / "parity.lock").write_text(json.dumps({"schema": schema}))
    with pytest.raises(BadFile) as caught:
        read_lock(tmp_path / "parity.lock")
    assert "a newer parity" not in str(caught.value)


def test_baselines_of_many_folders_leave_one_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        merge(tmp_path / name / "parity.lock", {})
    assert len([p for p in tmp_path.iterdir() if p.is_file()]) <= 1


def test_no_baseline_is_none(tmp_path):
    assert read_lock(tmp_path / "parity.lock") == {}
