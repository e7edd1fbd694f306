"""What CI servers read: JUnit by its own library, Markdown, and GitHub's workflow commands; on reports made by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from parity.report import FirstDivergence, Probe
from parity.reports.cases import Case, Suite, suite_of
from parity.reports.github import tell_github, workflow_commands
from parity.reports.junit import to_junit, write_junit
from parity.reports.markdown import to_markdown, write_markdown
from parity.reports.sarif import to_sarif
from tests.reports import examples


def parsed(*suites: Suite) -> JUnitXml:
    return JUnitXml.fromroot(JUnitXml.fromstring(to_junit(suites).encode())._elem)


def outcomes(*suites: Suite) -> dict[str, type | None]:
    return {case.name: type(case.result[0]) if case.result else None for suite in parsed(*suites) for case in suite}


def test_one_case_for_each_layer_and_phase_with_its_cause():
    report = examples.divergent()
    found = outcomes(suite_of(report, "pair"))
    assert len(found) == len({(p.phase, p.layer) for p in report.probes})
    assert found["ip1 ↔ conv2d_5 [structure]"] is Failure
    assert found["conv1 ↔ conv2d_1 [update]"] is Failure
    assert found["conv1 ↔ conv2d_1 [forward]"] is None
    (suite,) = parsed(suite_of(report, "pair"))
    (case,) = [case for case in suite if case.name == "ip1 ↔ conv2d_5 [structure]"]
    assert case.classname == "pair"
    failure = case.result[0]
    assert failure.message.startswith("conv-groups: kernel born")
    assert "fix in Keras: keras.layers.Conv2D(32, 1, groups=2)  (tried: the divergence is gone)" in failure.text
    assert (suite.tests, suite.failures) == (len(found), sum(kind is Failure for kind in found.values()))


def test_what_agrees_passes_and_what_was_not_seen_is_an_error():
    assert set(outcomes(suite_of(examples.matching())).values()) == {None}
    assert outcomes(suite_of(examples.unverified())) == {"gaussian_noise [forward]": Error}


def test_what_is_inherited_or_allowed_is_skipped_with_the_reason():
    probes = (
        Probe("a", "ka", "forward", "output", status="born"),
        Probe("b", "kb", "forward", "output", status="inherited"),
        Probe("c", "kc", "forward", "output"),
    )
    options = {**examples.OPTIONS, "allow": ["born:a"]}
    report = dataclasses.replace(examples.matching(), probes=probes, options=options)
    assert outcomes(suite_of(report)) == {
        "a ↔ ka [forward]": Skipped, "b ↔ kb [forward]": Skipped, "c ↔ kc [forward]": None
    }  # fmt: skip
    (suite,) = parsed(suite_of(report))
    assert next(iter(suite)).result[0].message == "allowed, as born:a"


def test_no_divergence_is_without_a_failure():
    first = FirstDivergence("forward", "b", "kb", "output", 1, "inherited")
    probes = tuple(Probe(n, f"k{n}", "forward", "output", status="inherited") for n in "bc")
    report = dataclasses.replace(examples.divergent(), probes=probes, first_divergence=first, findings=())
    assert outcomes(suite_of(report)) == {"b ↔ kb [forward]": Failure, "c ↔ kc [forward]": Skipped}
    odd = dataclasses.replace(report, probes=(), first_divergence=None)
    assert outcomes(suite_of(odd)) == {"the recipe": Failure}


NASTY = 'a]]><b>\x00\x1b[31m\ud800 & "q" |`x`\n::error::x @octocat'


def nasty() -> Suite:
    report = examples.divergent()
    probes = tuple(dataclasses.replace(p, layer=NASTY, note=NASTY) for p in report.probes)
    findings = tuple(dataclasses.replace(f, layer=NASTY, evidence=NASTY, fix=NASTY) for f in report.findings)
    return dataclasses.replace(
        suite_of(dataclasses.replace(report, probes=probes, findings=findings, notes=(NASTY,)), NASTY),
        warnings=(NASTY,),
    )


def test_names_from_files_break_no_document():
    assert Failure in outcomes(nasty()).values()
    text = to_markdown([nasty(), nasty()])
    assert "<b>" not in text.replace("`a]]><b>", "")
    assert "\x1b" not in text
    assert "\x00" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "↔" in line]
    assert rows
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    for command in workflow_commands([nasty()]):
        assert "\n" not in command
        assert command.startswith(("::error ", "::warning "))


def test_the_same_report_gives_the_same_bytes(tmp_path):
    suite = suite_of(examples.divergent())
    write_junit(tmp_path / "a.xml", [suite])
    write_junit(tmp_path / "b.xml", [suite])
    write_markdown(tmp_path / "a.md", [suite])
    write_markdown(tmp_path / "b.md", [suite])
    assert (tmp_path / "a.xml").read_bytes() == (tmp_path / "b.xml").read_bytes()
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()
    assert JUnitXml.fromfile(str(tmp_path / "a.xml")).tests == len(suite.cases)


def test_markdown_says_verdict_causes_and_fixes():
    text = to_markdown([suite_of(examples.divergent())])
    assert "**❌ diverged**: first in structure at ip1; 4 causes found" in text
    assert "1. **conv-groups** at `ip1`, structure, confirmed" in text
    assert "fix in Keras: `keras.layers.Conv2D(32, 1, groups=2)` (tried: the divergence is gone)" in text
    assert "initializer" not in text  # a note is no divergence
    assert "**✅ match**" in to_markdown([suite_of(examples.matching())])


def test_markdown_tells_once_what_is_the_same_at_several_layers():
    text = to_markdown([suite_of(examples.repeated(20))])
    assert "2. **bn-epsilon** at `bn1` and 19 layers more, forward, confirmed" in text
    assert "the same at: bn2, bn3" in text
    assert text.count("1e-05 in the reference") == 2


def test_an_annotation_tells_of_all_layers_with_the_same_fault():
    commands = [*workflow_commands([suite_of(examples.repeated(20))])]
    told = [command for command in commands if "bn-epsilon" in command]
    assert len(told) == 2
    assert "bn-epsilon at bn1 and 19 layers more" in told[0]
    assert "the same at: bn2, bn3" in told[0]


def test_markdown_of_several_pairs_begins_with_a_table():
    suites = [suite_of(examples.divergent(), "one"), suite_of(examples.matching(), "two")]
    lines = to_markdown(suites, "gate").splitlines()
    assert lines[:5] == [
        "## gate", "", "| pair | verdict | |", "|---|---|---|",
        "| one | ❌ diverged | first in structure at ip1; 4 causes found |",
    ]  # fmt: skip


def test_a_large_table_holds_what_is_not_right():
    cases = [Case(f"l{i}", f"k{i}", "forward", "passed") for i in range(200)]
    cases[150] = Case("l150", "k150", "forward", "failed", "born", kind="born")
    text = to_markdown([Suite("big", "diverged", "diverged: x", tuple(cases))])
    assert "| l150 ↔ k150 | **differs** |" in text
    assert "199 layers left out." in text
    assert len(text.splitlines()) < 30


def test_annotations_name_file_cause_and_layer():
    suite = dataclasses.replace(suite_of(examples.divergent(), "lenet"), config=("parity.toml", 7))
    first, *rest = workflow_commands([suite])
    assert first.startswith("::error file=parity.toml,line=7,title=lenet%3A conv-groups at ip1::The filters of ip1 are")
    assert "%0Afix in Keras: keras.layers.Conv2D(32, 1, groups=2)" in first
    assert len(rest) == 3  # one for each cause; what they explain is not told again
    source = dataclasses.replace(suite_of(examples.divergent()), files=("net.mat", "src/net.py:build"))
    assert workflow_commands([source])[0].startswith("::error file=src/net.py,title=")


def test_no_more_annotations_than_are_shown():
    cases = tuple(Case(f"l{i}", f"k{i}", "forward", "failed", "born", kind="born") for i in range(30))
    found = workflow_commands([Suite("big", "diverged", "diverged: x", cases)])
    assert len(found) == 10
    assert "and 21 more" in found[-1]


@pytest.mark.parametrize("there", [True, False])
def test_github_is_told_where_it_listens(tmp_path, there):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)} if there else {}
    found = tell_github([suite_of(examples.divergent())], environment=environment)
    assert bool(found) == there
    assert summary.read_text().startswith("before\n")
    assert ("conv-groups" in summary.read_text()) == there


def test_the_command_writes_both(tmp_path, monkeypatch, capsys):
    import sys
    import types

    from parity.cli import main
    from parity.fixes import Repair

    module = types.ModuleType("parity.session")
    module.check_and_fix = lambda **_: Repair(examples.divergent())  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "parity.session", module)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    files = {"--junit": tmp_path / "a.xml", "--markdown": tmp_path / "a.md", "--sarif": tmp_path / "a.sarif"}
    options = [str(word) for pair in files.items() for word in pair]
    assert main(["compare", "--ref", "a.mat", "--keras", "b.h5", *options]) == 1
    assert JUnitXml.fromfile(str(files["--junit"])).failures == 7
    assert files["--markdown"].read_text().startswith("## parity")
    assert json.loads(files["--sarif"].read_text())["runs"][0]["results"][0]["ruleId"] == "conv-groups"
    assert "::error file=traces/seed/model.h5,title=" in capsys.readouterr().out
    assert main(["compare", "--ref", "a.mat", "--keras", "b.h5", "--junit", str(tmp_path / "no" / "a.xml")]) == 2
    assert "--junit" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------- SARIF

SARIF = {
    "$schema": str, "version": str,
    "runs": [{
        "columnKind": str,
        "tool": {"driver": {"name": str, "version": str, "rules": [
            {"id": str, "shortDescription": {"text": str}, "help": {"text": str, "markdown": str}}
        ]}},
        "results": [{
            "ruleId": str, "ruleIndex": int, "level": str, "message": {"text": str},
            "locations": [{
                "physicalLocation": {"artifactLocation": {"uri": str}, "region": {"startLine": int}},
                "logicalLocations": [{"name": str}],
            }],
        }],
    }],
}  # fmt: skip
"""What version 2.1.0's schema says of the properties that are written: their names and types."""

REQUIRED = {"version", "runs", "tool", "driver", "name", "results", "id", "message", "text"}
"""Those that may not be left out where the object that has them stands."""


def fits(value, schema):
    if isinstance(schema, dict):
        assert set(value) <= set(schema)
        assert REQUIRED & set(schema) <= set(value)
        for key, held in value.items():
            fits(held, schema[key])
    elif isinstance(schema, list):
        assert isinstance(value, list)
        for held in value:
            fits(held, schema[0])
    else:
        assert type(value) is schema


def test_sarif_has_a_rule_for_each_cause_and_the_place_of_each_result():
    made = dataclasses.replace(suite_of(examples.divergent(), "a b"), config=("ci/pari ty.toml", 7), warnings=("old",))
    document = json.loads(to_sarif([made, suite_of(examples.unverified())]))
    fits(document, SARIF)
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning")
    first = run["results"][0]
    assert (first["ruleId"], first["level"]) == ("conv-groups", "error")
    assert "fix in Keras: keras.layers.Conv2D(32, 1, groups=2)" in first["message"]["text"]
    place = first["locations"][0]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "ci/pari%20ty.toml"}, "region": {"startLine": 7}
    }  # fmt: skip
    assert place["logicalLocations"] == [{"name": "ip1"}]
    assert "filter groups" in rules[0]["help"]["text"] or "groups" in rules[0]["shortDescription"]["text"]
    assert [r["message"]["text"] for r in run["results"] if r["level"] == "warning"] == ["a b\nold"]
    assert any(r["ruleId"] == "unverified" for r in run["results"])
    assert json.loads(to_sarif([suite_of(examples.matching())]))["runs"][0]["results"] == []
