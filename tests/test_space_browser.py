"""The demo in a real browser: what people see, press and type, on a desk and on a phone."""

import csv
import json
import re
import time
from pathlib import Path

import pytest

from selmem.space.examples import Example, write_examples
from selmem.space.models import ModelStore, bundled_choice
from selmem.space.reading import Annotator, read_text
from space_server import SECRET, UNLOADABLE, SpaceServer
from space_tables import write_tables

playwright_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
PHONE = {"width": 390, "height": 844}
FIRST_PAINT_S = 15  # 5 s on a machine of one's own; tests share theirs
TEXT = "The captain counted 38 boats in Port Lanning. <b>Nobody</b> was hurt."
EXAMPLES = {"Bridge": "The old bridge was closed.", "Apples": "She bought two red apples."}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM} on this machine"),
]


@pytest.fixture(scope="module")
def read():
    """Return a function from a text to what the page should show of it."""
    choice, annotator = bundled_choice(), Annotator()
    loaded = ModelStore([choice]).load(choice.name)
    return lambda text: read_text(loaded, text, annotator)


@pytest.fixture(scope="module")
def server(tmp_path_factory, read):
    folder = tmp_path_factory.mktemp("space")
    write_tables(folder / "tables")
    examples = [Example(label, read(text)) for label, text in EXAMPLES.items()]
    write_examples(folder / "examples.json", examples, fingerprint=None)
    with SpaceServer(folder) as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the demo in a browser session of its own."""
    contexts = []

    def open_one(**options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.goto(server.url)
        page.wait_for_selector("#sm-summary .sm-headline")
        return page

    yield open_one
    for context in contexts:
        context.close()


def run(page, text):
    """Type a text, press the button and wait for its answer."""
    page.get_by_label("Your text").fill(text)
    page.get_by_role("button", name="Reconstruct").click()
    wait_for_text(page, text)


def wait_for_text(page, text):
    """Wait until the page shows what became of a text."""
    page.wait_for_function(
        "start => [...document.querySelectorAll('#sm-original p.sm-text')]"
        ".some(p => p.textContent.startsWith(start))",
        arg=text.strip()[:12],
    )


def marked(page, selector):
    return page.locator(f"#sm-original .sm-view-words p.sm-text {selector}").all_inner_texts()


def test_something_useful_is_there_at_once_and_nothing_comes_from_elsewhere(browser, server):
    context = browser.new_context()
    page = context.new_page()
    addresses, problems = [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    started = time.monotonic()
    page.goto(server.url)
    page.wait_for_selector("#sm-original del, #sm-original .sm-kept")
    taken = time.monotonic() - started
    assert taken < FIRST_PAINT_S
    assert page.get_by_label("Your text").input_value() == EXAMPLES["Bridge"]
    assert not [a for a in addresses if not a.startswith((server.url, "data:", "blob:"))]
    assert problems == []
    assert "what a mamba can write back" in page.title().lower()
    context.close()


def test_an_example_needs_no_model(open_page, read):
    page = open_page()
    page.get_by_label("Probe").first.click()
    page.get_by_role("option", name=UNLOADABLE).click()
    page.get_by_role("button", name="Apples", exact=True).click()
    wait_for_text(page, EXAMPLES["Apples"])
    assert page.get_by_label("Your text").input_value() == EXAMPLES["Apples"]
    omitted = [w for w in read(EXAMPLES["Apples"]).words if w.omitted_aligned]
    assert len(marked(page, "del")) == len(omitted)


def test_marks_are_those_of_the_tables_and_have_colours_and_signs(open_page, read):
    page = open_page()
    run(page, TEXT)
    reading = read(TEXT)
    lost = [TEXT[w.start : w.end] for w in reading.words if w.omitted_aligned]
    kept = [TEXT[w.start : w.end] for w in reading.words if not w.omitted_aligned]
    assert marked(page, "del") == lost
    assert marked(page, ".sm-kept") == kept
    assert lost
    assert kept
    style = page.evaluate(
        """() => ['del', '.sm-kept'].map(mark => {
            const found = document.querySelector('#sm-original .sm-view-words p ' + mark);
            const style = getComputedStyle(found);
            return [style.backgroundColor, style.textDecorationLine,
                    getComputedStyle(found, '::before').content];
        })"""
    )
    assert style == [
        ["rgb(251, 217, 192)", "line-through", '"["'],
        ["rgb(214, 234, 248)", "none", "none"],
    ]
    assert page.locator("#sm-written p.sm-text").inner_text().strip() == (
        reading.reconstruction.strip()
    )
    assert (
        page.locator("#sm-summary").inner_text().startswith(f"{len(lost)} of {len(reading.words)}")
    )
    assert page.locator("#sm-groups table").count() == 3
    assert page.locator("#sm-lengths svg").count() > 1


def test_words_can_be_marked_by_bits_and_by_sureness(open_page, read):
    page = open_page()
    run(page, TEXT)
    for label, view in (("bits that the state saves", "bits"), ("how sure the probe was", "sure")):
        page.get_by_label(label).check()
        shown = page.locator("#sm-original .sm-view:visible")
        assert shown.count() == 1
        assert f"sm-view-{view}" in shown.get_attribute("class")
    wrong = page.locator("#sm-original .sm-view-sure p.sm-text .sm-wrong").count()
    assert wrong == sum(word.omitted_forced for word in read(TEXT).words)


def test_markup_and_templates_are_shown_as_text_and_do_nothing(open_page):
    page = open_page()
    text = "<img src=x onerror='window.broken=1'> ${window.broken=2} {{value}} \u202eback"
    run(page, text)
    page.wait_for_timeout(300)
    assert page.evaluate("window.broken") is None
    shown = page.locator("#sm-original .sm-view-words p.sm-text").inner_text()
    assert shown == text.replace("\u202e", "U+202E")
    assert page.locator("#sm-original img, #sm-written img, #sm-null img").count() == 0


@pytest.mark.parametrize(
    "text", ["مرحبا بالعالم، هذا نص", "你好 世界 今天 很好", "😀 👩‍👩‍👧 🇸🇪 e\u0301"]
)
def test_other_scripts_are_shown_whole(open_page, text):
    page = open_page()
    run(page, text)
    assert page.locator("#sm-original .sm-view-words p.sm-text").inner_text() == text


def test_refusals_are_sentences_on_the_page(open_page):
    page = open_page()
    page.get_by_label("Your text").fill("   ")
    page.get_by_role("button", name="Reconstruct").click()
    page.get_by_text("There is no text: type or paste at least one word.").wait_for()
    page.get_by_label("Your text").fill("crash")
    page.get_by_role("button", name="Reconstruct").click()
    page.wait_for_timeout(1500)
    content = page.content()
    assert SECRET not in content
    assert "Traceback" not in content
    run(page, "It still works after that.")
    assert "It still works" in page.inner_text("#sm-original")


def test_a_pasted_megabyte_is_cut_and_the_page_says_so(open_page):
    page = open_page()
    run(page, "One more word. " * 70_000)
    assert "Only the beginning of the text was read" in page.inner_text("#sm-summary")


def test_two_people_do_not_see_each_others_text(open_page):
    ours, theirs = open_page(), open_page()
    parts = theirs.locator("#sm-summary, #sm-original, #sm-written, #sm-null")
    before = parts.all_inner_texts()
    run(ours, "A private letter to Ottilie Brand.")
    assert "Ottilie" in ours.content()
    assert "Ottilie" not in theirs.content()
    assert parts.all_inner_texts() == before
    assert len(before) == 4
    theirs.reload()
    theirs.wait_for_selector("#sm-summary .sm-headline")
    assert "Ottilie" not in theirs.content()


def choose(page, label, option, caption):
    page.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.locator("#sm-tags .sm-caption", has_text=caption).wait_for()


def test_explore_changes_with_the_choice_and_its_csv_holds_what_is_shown(open_page, tmp_path):
    page = open_page(accept_downloads=True)
    page.get_by_role("tab", name="Explore").click()
    page.locator("#sm-tags .sm-caption", has_text="maths, texts of 16 tokens").wait_for()
    choose(page, "Texts from", "news", "news, texts of 16 tokens")
    choose(page, "Length (tokens)", "64", "news, texts of 64 tokens")
    rows = page.locator("#sm-tags tbody tr").all_inner_texts()
    assert [row.split("\t")[0].strip() for row in rows] == ["nouns", "determiners"]
    assert ["50%" in rows[0], "25%" in rows[1], "1,234" in rows[0]] == [True] * 3
    with page.expect_download() as download:
        page.locator("#sm-tags a.sm-csv").click()
    download.value.save_as(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [(r["source"], r["length"], r["tag"], r["rule"]) for r in found] == [
        ("news", "64", "NOUN", "aligned"),
        ("news", "64", "DET", "aligned"),
    ]
    assert page.locator("#sm-by-length svg[role=img]").count() == 1
    assert page.locator("#sm-by-position svg[role=img]").count() == 1
    assert "Numbers are lost <more>." in page.locator("#sm-verdicts tbody").inner_text()


def focused(page):
    return page.evaluate(
        "() => { const e = document.activeElement; return e.getAttribute('aria-label') || "
        "e.innerText || e.tagName }"
    )


def press_until(page, wanted, key="Tab", most=30):
    for _ in range(most):
        page.keyboard.press(key)
        if focused(page).strip() == wanted:
            return
    raise AssertionError(f"{wanted!r} is not reached with the keyboard; at {focused(page)!r}")


def test_the_keyboard_alone_is_enough(open_page):
    page = open_page()
    press_until(page, "Apples")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert outline.endswith("solid 3px"), "one sees where one is"
    page.keyboard.press("Enter")
    wait_for_text(page, EXAMPLES["Apples"])
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.press("Control+a")
    page.keyboard.type("Typed without a mouse.")
    press_until(page, "Reconstruct")
    page.keyboard.press("Enter")
    wait_for_text(page, "Typed without a mouse.")
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio":
            break
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.locator("#sm-original .sm-view-bits").wait_for(state="visible")
    press_until(page, "Explore", key="Shift+Tab")
    page.keyboard.press("Enter")
    page.locator("#sm-tags table").wait_for(state="visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_legible_in_light_and_dark(open_page, scheme):
    page = open_page(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    run(page, TEXT)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    button = page.get_by_role("button", name="Reconstruct").bounding_box()
    assert button["width"] > 200
    assert button["height"] >= 40
    for view in ("written back or not", "bits that the state saves", "how sure the probe was"):
        page.get_by_label(view).check()
        assert worst_contrast(page, "#sm-original") >= 4.5, (scheme, view)
    for panel in ("#sm-summary", "#sm-written", "#sm-null", "#sm-groups", "#sm-lengths"):
        assert worst_contrast(page, panel) >= 4.5, (scheme, panel)
    page.get_by_role("tab", name="Explore").click()
    page.locator("#sm-tags table").wait_for(state="visible")
    assert worst_contrast(page, "#sm-tags") >= 4.5
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


CONTRASTS = """selector => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.offsetParent) continue;
    const style = getComputedStyle(element);
    const pair = [light(rgb(style.color)), light(behind(element))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), walker.currentNode.data.trim().slice(0, 20)]);
  }
  return found;
}"""


def worst_contrast(page, selector):
    """Return the least contrast ratio of a visible text to what is behind it (WCAG 2)."""
    page.wait_for_timeout(300)  # the page fades colours in
    found = page.evaluate(CONTRASTS, selector)
    assert found, f"{selector} shows no text"
    return min(found)[0]


def test_the_page_documents_its_endpoints(open_page):
    page = open_page()
    page.get_by_role("tab", name="About").click()
    about = page.locator("#sm-about")
    about.wait_for(state="visible")
    config = json.loads(page.evaluate("fetch('config').then(answer => answer.text())"))
    endpoints = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"}
    assert endpoints == {"reconstruct", "models", "omission"}
    for name in endpoints:
        assert re.search(rf"/{name}\b", about.inner_text())
