"""The console report: what it says, at which widths, without which signs."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from parity.report import LayerRow, Outcome, Probe, RecipeRow, Report
from parity.reports.console import outcome_line, verdict_line
from tests.reports import examples

WIDTHS = (60, 80, 100, 131, 132, 160, 220)


def draw(report: Report, width: int = 80, **settings) -> str:
    console = Console(width=width, file=io.StringIO(), **settings)
    console.print(report)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["matching", "divergent", "unverified", "long"])
def test_no_line_is_wider_than_the_page(name, width):
    text = draw(getattr(examples, name)(), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_verdict_of_every_layer_is_a_word_in_its_row(width):
    lines = draw(examples.divergent(), width).splitlines()
    ip1 = next(line for line in lines if line.startswith("ip1"))
    pool1 = next(line for line in lines if line.startswith("pool1"))
    assert ip1.split().count("born") >= 2
    assert "born" not in pool1
    assert pool1.split().count("match") >= (1 if width == 60 else 2)


def test_the_sections_come_in_their_order():
    text = draw(examples.divergent(), 100)
    titles = ["traces/seed/net.mat", "Layers", "Updates", "Recipe", "Divergences", "Also different", "First divergence"]
    places = [
        text.index(title) for title in (*titles, "diverged: first in structure at ip1", "3 of 32 predictions differ")
    ]
    assert places == sorted(places)


def test_own_weights_put_the_outcome_first_as_well():
    report = examples.divergent()
    assert draw(report).count("3 of 32 predictions differ") == 1
    own = draw(dataclasses.replace(report, options={**report.options, "weights": "own"}))
    assert own.count("3 of 32 predictions differ") == 2
    assert own.index("3 of 32 predictions differ") < own.index("Layers")


def test_findings_carry_their_cause_evidence_fix_and_certainty():
    text = " ".join(draw(examples.divergent(), 160).split())
    assert "conv-groups at ip1 (Keras conv2d_5), structure, confirmed" in text
    assert "2048 weights against 1024" in text
    assert "fix in Keras: keras.layers.Conv2D(32, 1, groups=2) (tried: the divergence is gone)" in text
    assert "fix in Keras: keras.optimizers.SGD(0.01, momentum=0.9) 3." in text
    assert "optimizer-weight-decay-as-lr-decay, update decay=" in text, "what is not confirmed must not say so"


def test_what_is_the_same_at_several_layers_is_told_once():
    text = " ".join(draw(examples.repeated(20), 160).split())
    assert text.count("1e-05 in the reference") == 2, "what is not confirmed stands by itself"
    assert "2. bn-epsilon at bn1 (Keras norm1) and 19 layers more, forward, confirmed" in text
    assert "the same, and the same fix, at: bn2, bn3, bn4, bn5," in text
    assert "bn12, bn13 and 7 more 3. bn-epsilon at bn_last (Keras norm_last), forward epsilon is" in text
    assert "3 causes found" in text
    assert " ".join(draw(examples.repeated(2), 160).split()).count("1e-05 in the reference") == 3


def test_numbers_stand_beside_the_verdicts():
    text = draw(examples.divergent(), 160)
    row = next(line for line in text.splitlines() if line.startswith("ip1 ") and "groups" in line)
    assert "0.8× 2e-7" in row
    assert "1e6× 0.52" in row


def test_updates_show_the_worst_step():
    probes = tuple(
        dataclasses.replace(p, status="born" if p.step >= 2 else "match", isolated_x_floor=10.0 * p.step)
        for p in examples.divergent().probes
    )
    text = draw(dataclasses.replace(examples.divergent(), probes=probes), 100)
    row = next(line for line in text.splitlines() if line.startswith("conv1 kernel"))
    assert row.split()[3:6] == ["born", "2", "30×"]


def test_notes_on_updates_stand_below_once():
    probes = tuple(dataclasses.replace(p, note="the true gradient is zero") for p in examples.divergent().probes)
    text = " ".join(draw(dataclasses.replace(examples.divergent(), probes=probes), 80).split())
    assert "conv3 kernel, conv3 bias and 6 more: the true gradient is zero" in text
    assert text.count("the true gradient is zero") == 1


def test_a_batch_in_memory_and_a_generated_one_are_told_apart():
    for batch, words in (
        ({"object": "dict", "name": ""}, "in memory"),
        ({"source": "a probe batch (seed 0)"}, "a probe batch (seed 0)"),
    ):
        text = draw(dataclasses.replace(examples.matching(), inputs={**examples.INPUTS, "batch": batch}))
        assert words in text


def test_the_recipe_marks_differences_and_defaults():
    lines = draw(examples.divergent(), 160).splitlines()
    assert any(line.startswith("loss ") and line.rstrip().endswith("same") for line in lines)
    assert any(line.startswith("optimizer") and line.rstrip().endswith("differs") for line in lines)
    assert any("256 (default)" in line for line in lines)


def test_long_nets_fold_what_matches_and_never_what_was_born():
    for width in (80, 160):
        text = draw(examples.long(), width)
        assert len(text.splitlines()) < 75
        assert "69 layers" in text
        assert "res7_branch1_conv" in text
        assert "41k×" in text
        assert "res3_branch3_conv" not in text


def test_short_nets_are_shown_whole():
    assert "layers, folded" not in draw(examples.divergent(), 160)
    assert all(name in draw(examples.matching()) for name, *_ in examples.NETWORK)


def test_a_layer_without_a_partner_is_never_folded():
    report = examples.long()
    odd = LayerRow("", "aug_flip", "", "RandomFlip", (8, 8, 3), {"structure": ("unpaired", None, None)})
    rows = (*report.layers[:40], odd, *report.layers[40:])
    for width in (80, 160):
        text = draw(dataclasses.replace(report, layers=rows), width)
        assert "aug_flip" in text
        assert "unpaired" in text


def test_a_pipe_gets_no_escape_codes_and_a_terminal_without_colour_no_colours(monkeypatch):
    assert "\x1b" not in draw(examples.divergent())
    monkeypatch.setenv("NO_COLOR", "1")
    text = draw(examples.divergent(), force_terminal=True)
    assert "\x1b[3" not in text.replace("\x1b[3m", "")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;31m" in draw(examples.divergent(), force_terminal=True, color_system="standard")


def test_names_from_a_file_cannot_speak_to_the_terminal_or_to_rich():
    evil = "[red]conv[/red]\x1b[2J\r\nfake: match\u202e"
    row = LayerRow(evil, evil, evil, evil, (1,), {"forward": ("match", 1.0, 1e-7)})
    text = draw(dataclasses.replace(examples.matching(), layers=(row,), notes=(evil,)), 160)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("fake") for line in text.splitlines())
    assert "[red]conv[/red]" in text


def test_the_verdict_in_one_sentence():
    assert verdict_line(examples.divergent()) == "diverged: first in structure at ip1; 4 causes found"
    assert verdict_line(examples.matching()).startswith("match: both sides agree to rounding noise in input, structure")
    assert verdict_line(examples.unverified()) == "unverified: gaussian_noise is unverified in forward"


def test_a_match_that_rests_on_an_allowance_says_so():
    odd = Probe("", "aug_flip", "structure", "shape", status="unpaired")
    report = dataclasses.replace(examples.matching(), probes=(odd,), options={"allow": ["unpaired:aug_*"]})
    assert verdict_line(report).startswith("match: what --allow does not permit agrees to rounding noise")
    assert "allowed unpaired:aug_*" in draw(report, 160)


def test_the_outcome_in_one_sentence():
    names = ("MatConvNet", "Keras")
    assert outcome_line(Outcome(32, 3, 17, 16), names) == (
        "3 of 32 predictions differ; top-1 right: MatConvNet 17, Keras 16"
    )
    assert outcome_line(Outcome(1, 1), names) == "1 of 1 prediction differs"


def test_a_report_with_nothing_in_it_can_be_drawn():
    empty = Report("unverified", None, (), (), (), (), None, ("nothing in common",), {}, {})
    text = draw(empty)
    assert "unverified: nothing in common" in text


def test_a_reference_that_is_keras_too_is_called_the_reference():
    inputs = {"ref": {"path": "a.h5", "framework": "keras"}, "keras": {"path": "b.h5", "framework": "keras"}}
    text = draw(dataclasses.replace(examples.matching(), inputs=inputs))
    assert "reference ↔ Keras" in text


def test_empty_cells_are_dashes():
    text = draw(dataclasses.replace(examples.matching(), recipe=(RecipeRow("epochs", "30", "", False),)))
    assert any(line.split() == ["epochs", "30", "–", "not", "stated"] for line in text.splitlines())


def test_the_header_says_what_ran():
    lines = [" ".join(line.split()) for line in draw(examples.divergent()).splitlines()]
    assert "reference traces/seed/net.mat MatConvNet, torch 2.13.0" in lines
    assert "Keras traces/seed/model.h5 tf_keras 2.21.0 on tensorflow 2.21.0" in lines
    assert "batch traces/seed/batch.npz 32 images" in lines
    assert "mode train, weights of the reference in both, 3 updates" in lines


@pytest.mark.parametrize(("backend", "version"), [("torch", "2.13.0+cpu"), ("jax", "0.10.2")])
def test_the_header_says_which_backend(backend, version):
    facts = {"framework": "keras", "version": "3.15.1", backend: version}
    report = examples.divergent()
    report = dataclasses.replace(report, environment={**report.environment, "keras": facts})
    lines = [" ".join(line.split()) for line in draw(report).splitlines()]
    assert f"Keras traces/seed/model.h5 keras 3.15.1 on {backend} {version.split('+')[0]}" in lines
