"""The page: what it says, that nothing in it can run but its own scripts, and that it works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

import parity
from parity.detail import Album
from parity.report import LayerRow, Probe
from parity.reports.html import Entry, charts_library, index, render
from parity.reports.html.charts import update_figure
from parity.reports.html.graph import HEIGHT, WIDTH, draw
from tests.reports import examples

ROOT = Path(__file__).parents[2]
SEED = ROOT / "traces" / "seed"
ATTACK = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'`${7*7}"


def with_details(report, names=(("ip1", "conv2d_5"),)):
    rng, album = np.random.default_rng(0), Album()
    for pair in names:
        expected = rng.normal(size=(8, 12, 10, 3)).astype(np.float32)
        actual = expected.copy()
        actual[2, 5, 7, 1] += 1
        album.look(pair, "forward", "output", (actual, expected))
    return dataclasses.replace(report, details=tuple(album.details))


def test_the_same_report_is_the_same_page():
    report = with_details(examples.divergent())
    assert render(report) == render(report)


def test_the_verdict_the_cause_and_the_fix_are_in_the_page():
    page = render(examples.divergent())
    for text in (
        "diverged: first in structure at ip1",
        "conv-groups",
        "keras.layers.Conv2D(32, 1, groups=2)",
        "fix verified",
    ):
        assert text in page
    assert page.count("≠ differs") == 4
    assert page.count("not stated") == 1  # the batch size, of which the Keras file says nothing
    assert "fix verified" not in render(examples.matching())
    assert "First divergence" not in render(examples.matching())


def test_what_is_the_same_at_several_layers_is_one_card():
    page = render(examples.repeated(20))
    cards = page.split('<section aria-labelledby="h-network"')[0].split('<article class="finding')[1:]
    told = next(card for card in cards if "norm1:" in card)
    assert len(cards) == 3
    assert "at 19 layers more" in told
    assert "bn20" in told


def in_memory():
    """Two models that came from no file."""
    return dataclasses.replace(
        examples.matching(), inputs={"ref": {}, "keras": {}, "batch": {}}, environment={}, options={}
    )


@pytest.mark.parametrize("make", [examples.matching, examples.unverified, examples.long, in_memory])
def test_every_kind_of_report_has_a_page(make):
    page = render(make())
    assert f'class="hero {make().verdict}"' in page


def hostile():
    report = examples.divergent()
    rows = tuple(
        dataclasses.replace(r, layer=r.layer + ATTACK, kind=r.kind + ATTACK, inputs=(ATTACK,)) for r in report.layers
    )
    probes = tuple(dataclasses.replace(p, layer=p.layer + ATTACK, tensor=p.tensor + ATTACK) for p in report.probes)
    findings = tuple(dataclasses.replace(f, evidence=ATTACK, fix=ATTACK, layer=ATTACK) for f in report.findings)
    report = dataclasses.replace(
        report,
        layers=rows,
        probes=probes,
        findings=findings,
        notes=(ATTACK,),
        inputs={**report.inputs, ATTACK: {ATTACK: ATTACK}},
    )
    return with_details(report, [(rows[0].layer, rows[0].keras_layer)])


def test_names_from_files_are_never_markup():
    page = render(hostile())
    assert "<img" not in page
    assert "alert(2)</script>" not in page
    allowed = re.search(r"script-src ([^;]*);", page)
    assert allowed is not None
    assert "unsafe" not in allowed[1]
    assert page.count("<script>") == 2


def test_the_details_are_one_json_document():
    page = render(with_details(examples.divergent()))
    island = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert island is not None
    detail = json.loads(island[1])["details"][0]
    heat = np.frombuffer(base64.b64decode(detail["heat"]), np.uint8).reshape(detail["size"])
    assert np.argwhere(heat).tolist() == [[5, 7]]
    assert detail["worst"][0][0] == "2, 5, 7, 1"


def test_boxes_of_a_graph_do_not_overlap_and_runs_are_folded():
    rows = [LayerRow("in", "in", "", "", (), {"forward": ("match", None, None)})]
    for n in range(30):
        status = "born" if n == 20 else "match"
        feeds = (rows[-1].layer, rows[max(0, len(rows) - 4)].layer)
        rows.append(LayerRow(f"l{n}", f"k{n}", "", "", (), {"forward": (status, None, None)}, feeds))
    rows += [LayerRow(f"side{n}", "", "", "", (), {"forward": ("masked", None, None)}, ("l3",)) for n in range(4)]
    whole, folded = draw(rows), draw(rows, folded=True)
    assert len(whole.boxes) == len(rows)
    assert [b.rows for b in folded.boxes if "l20" in b.name] == [(21,)]
    assert sorted(r for b in folded.boxes for r in b.rows) == list(range(len(rows)))
    assert len(folded.boxes) < len(rows) / 2
    for picture in (whole, folded):
        for i, a in enumerate(picture.boxes):
            assert 0 <= a.x <= picture.width - WIDTH
            assert a.y + HEIGHT <= picture.height
            for b in picture.boxes[i + 1 :]:
                assert abs(a.x - b.x) >= WIDTH or abs(a.y - b.y) >= HEIGHT, (a, b)


def test_a_wiring_that_goes_in_circles_is_drawn():
    cells = {"forward": ("match", None, None)}
    rows = [LayerRow("a", "a", "", "", (), cells, ("b",)), LayerRow("b", "b", "", "", (), cells, ("a", "b"))]
    assert len(draw(rows).boxes) == 2


def test_the_curves_of_faulty_updates_are_named_however_far_off_others_are():
    report = examples.divergent()
    probe = next(p for p in report.probes if p.phase == "forward")
    moves = [
        dataclasses.replace(probe, phase="update", layer=f"l{n}", tensor="kernel", rms_rel=0.1 * n, status="inherited")
        for n in range(1, 30)
    ]
    fault = dataclasses.replace(moves[0], layer="fault", rms_rel=1e-3, status="born")
    figure = update_figure(dataclasses.replace(report, probes=(*moves, fault)))
    named = [trace["name"] for trace in figure["data"] if trace["meta"] != "rest"]
    assert named[:2] == ["fault · kernel", "l29 · kernel"]


def test_an_index_lists_every_pair():
    page = index([Entry("a<b", "match", "all agree", "a-b.html", 1.5), Entry("c", "diverged", "first at conv1")])
    assert "2 pairs: 1 diverged, 1 match" in page
    assert "a&lt;b" in page
    assert 'href="a-b.html"' in page
    assert len(page) < 100_000


def test_rows_say_what_feeds_them_and_details_are_kept_when_asked():
    report = parity.compare(
        ref=SEED / "net.mat", keras=SEED / "model.h5", batch=SEED / "batch.npz", mode="eval", details=True, verify=False
    )
    rows = {row.layer: row for row in report.layers}
    assert rows["ip1"].inputs == ("pool4",)
    assert rows["conv1"].inputs == ()
    assert {d.layer for d in report.details} >= {"conv1", "ip1", "classifier"}
    assert {d.phase for d in report.details} == {"forward"}


# ------------------------------------------------------------------------------------------------------------ a browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page; at the end nothing may have been said on the console, and nothing fetched."""
    said, pages = [], []

    def open_page(text, width=1600, height=900, scheme="light"):
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto("file://" + quote(str(path)))
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


def test_clicking_through_the_page(opened):
    page = opened(render(with_details(examples.divergent())))
    page.locator(".first a").click()
    layer = page.locator("#sheet .layer:visible")
    assert "ip1" in layer.locator("h2").inner_text()
    assert layer.locator("canvas").count() == 1
    assert layer.locator(".js-plotly-plot").count() >= 2
    assert "2, 5, 7, 1" in layer.inner_text()
    page.keyboard.press("j")
    assert page.locator("#sheet .layer:visible h2").inner_text() == "relu"
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.locator("#sheet .layer:visible h2").inner_text() == "pool4"
    page.keyboard.press("Escape")
    assert not page.locator("#sheet").is_visible()
    page.locator(".node", has_text="conv3").first.click()
    assert page.locator("#sheet .layer:visible h2").inner_text() == "conv3"


def test_pages_that_share_their_charts_library_draw_as_well(opened, tmp_path):
    (tmp_path / "charts.js").write_text(charts_library(), encoding="utf-8")
    text = render(examples.divergent(), library="charts.js")
    assert len(text) < 200_000
    page = opened(text)
    page.locator(".chart[data-figure]").first.scroll_into_view_if_needed()
    page.locator(".chart[data-ready] .main-svg").first.wait_for(state="attached")


def test_search_filter_sort_and_keys(opened):
    page = opened(render(examples.divergent()))
    page.keyboard.press("/")
    page.keyboard.type("pool")
    assert page.locator("#table tbody tr:visible").count() == 4
    assert page.locator("#shown").inner_text() == "4 of 12 layers"
    page.keyboard.press("Escape")
    assert page.locator("#table tbody tr:visible").count() == 12
    page.locator(".chip.born").click()
    shown = page.locator("#table tbody tr:visible")
    assert shown.count() == page.locator("#table tbody tr[data-status=born]").count() < 12
    page.locator(".chip.born").click()
    page.locator("th", has_text="layer").locator("button").click()
    names = page.locator("#table tbody td:nth-child(2) a").all_inner_texts()
    assert names == sorted(names)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("d")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()


@pytest.mark.parametrize("width", [375, 800, 1600])
def test_it_fits_the_screen_and_draws_its_curves(opened, width):
    page = opened(render(examples.long()), width=width, scheme="dark")
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
    page.locator(".chart[data-ready] .main-svg").nth(1).wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1600:
        assert page.locator(".node.folded:visible").count() >= 1
        page.locator("#fold").click()
        assert page.locator(".node:visible").count() == 150


@pytest.mark.parametrize("width", [375, 1600])
def test_long_lists_and_graphs_begin_at_the_first_divergence(opened, width):
    report = examples.long()
    row = report.layers[120]
    first = dataclasses.replace(examples.divergent().first_divergence, layer=row.layer, keras_layer=row.keras_layer)
    named = [(r.layer, r.keras_layer) for r in report.layers]
    probes = tuple(Probe(*names, "forward", "output", 1, (2,), "match", 0, 0, 1, 1, 1) for names in named)
    page = opened(render(dataclasses.replace(report, first_divergence=first, probes=probes)), width=width)
    middle = "(n, b) => { const r = n.getBoundingClientRect(), s = n.closest(b).getBoundingClientRect();"
    middle += " return r.top >= s.top && r.bottom <= s.bottom }"
    assert page.locator("#table tr[data-layer='120']").evaluate(f"n => ({middle})(n, '.tall')")
    assert page.locator(".canvas:not([hidden]) .node[href='#layer-120']").evaluate(f"n => ({middle})(n, '.canvas')")
    assert page.evaluate("scrollY") == 0
    if width == 375:
        page.locator(".chart[data-figure=forward]").scroll_into_view_if_needed()
        page.locator(".chart[data-figure=forward][data-ready] .xtick").first.wait_for(state="attached")
        assert page.locator(".chart[data-figure=forward] .xtick").count() <= 10


def test_many_layers_scroll_in_their_own_table_and_print_whole(opened):
    page = opened(render(examples.long()))
    assert page.evaluate("document.documentElement.scrollHeight") < 6000
    assert page.locator("#table thead th").first.is_visible()
    page.emulate_media(media="print")
    assert page.evaluate("document.querySelector('.tall').scrollHeight == document.querySelector('.tall').clientHeight")


def test_paper_is_light_and_shows_what_is_folded_up(opened):
    page = opened(render(with_details(examples.divergent())), scheme="dark")
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--bg')"
    dark, notes = page.evaluate(ground), page.locator("details.more[open]")
    assert notes.count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ground) != dark
    assert notes.count() == 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ground) == dark
    assert notes.count() == 0
    pages = re.compile(rb"/Type /Page\b(?!s)")
    assert 1 < len(pages.findall(page.pdf(format="A4"))) <= 6
    long = opened(render(examples.long()))
    assert 1 < len(pages.findall(long.pdf(format="A4"))) <= 9  # the rows of 150 layers, 40 and more to a page


def test_tensors_without_a_picture_are_named(opened):
    """A trace that keeps statistics of a tensor has no picture of it; the others of its layer are shown."""
    report = with_details(examples.divergent())
    page = opened(render(report))
    page.locator("#table a", has_text="conv1").first.click()
    assert (
        page.locator(".unseen:visible").inner_text() == "No pictures of forward output: only numbers were kept of them."
    )
    page.keyboard.press("Escape")
    page.locator("#table a", has_text="ip1").first.click()
    assert page.locator("#sheet canvas:visible").count() == 1
    assert page.locator(".unseen:visible").count() == 0


def test_a_hostile_file_runs_nothing_in_the_browser(opened):
    page = opened(render(hostile()))
    page.locator("#table tbody tr").first.click()
    for chart in page.locator("main .chart").all():
        chart.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0
    assert page.locator("#sheet .layer:visible canvas").count() == 1


def test_pairs_alike_in_name_get_pages_of_their_own():
    from parity.commands.gate import _page_name

    taken = {"index.html"}
    names = [_page_name(name, taken) for name in ("a b", "a/b", "A-B", "index", "../..", "")]
    assert len({name.lower() for name in names}) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_the_index_searches_and_sorts(opened):
    entries = [Entry("b", "match", "all agree", "", 9.0), Entry("a", "diverged", "first at conv1", "", 10.0)]
    page = opened(index(entries), width=375)
    page.keyboard.press("/")
    page.keyboard.type("conv1")
    assert page.locator("#table tbody tr:visible td:first-child").all_inner_texts() == ["a"]
    page.keyboard.press("Escape")
    page.locator("th", has_text="pair").locator("button").click()
    assert page.locator("#table tbody td:first-child").all_inner_texts() == ["a", "b"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
