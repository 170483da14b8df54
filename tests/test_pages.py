"""The pages in docs/html: up to date, nothing from elsewhere; tried in a browser where one is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
build = pytest.importorskip("build", reason="docs/build.py needs docs/requirements.txt")
mathml = pytest.importorskip("mathml")

SOURCE = (ROOT / "dqn.py").read_text(encoding="utf-8")
FLAG = build.read_docstring(ast.get_docstring(ast.parse(SOURCE))).departures[0][0]  # one of dqn.py

FORMULAS = {
    "theta <- theta + alpha v_t": "<mi>θ</mi><mo>←</mo><mi>θ</mi><mo>+</mo><mi>α</mi>"
    "<msub><mi>v</mi><mi>t</mi></msub>",
    "y_j": "<msub><mi>y</mi><mi>j</mi></msub>",
    "theta'_v": "<msubsup><mi>θ</mi><mi>v</mi><mo>′</mo></msubsup>",
    "pi_theta_old": "<msub><mi>π</mi><msub><mi>θ</mi><mi>old</mi></msub></msub>",
    "x_{t+1}": "<msub><mi>x</mi><mrow><mi>t</mi><mo>+</mo><mn>1</mn></mrow></msub>",
}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """All pages, built anew."""
    return build.build()


def test_pages_are_up_to_date(pages):
    stale = [
        name
        for name, page in pages.items()
        if (ROOT / "docs/html" / name).read_text(encoding="utf-8") != page
    ]
    assert not stale, "run python docs/build.py"
    runs = {f"{name}.run.js" for name in build.scenes.RUNS}
    files = {path.name for path in (ROOT / "docs/html").iterdir()}
    assert files == {*pages, *runs, "page.css", "page.js", "run.js"}


@pytest.mark.parametrize("name", build.SCRIPTS)
def test_page_is_whole_and_stands_alone(name, pages):
    page = pages[f"{name}.html"]
    assert not re.search(r'(src|href)="(https?:)?//', page), "something comes from the network"
    formulas = re.findall(r"<math>.*?</math>", page)
    assert formulas
    for formula in formulas:
        ElementTree.fromstring(formula)
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page)), "a link leads nowhere"


@pytest.mark.parametrize("text", FORMULAS)
def test_formula(text):
    plain = re.sub(r' form="infix"|\0', "", mathml.inline(text))
    assert plain == f"<math>{FORMULAS[text]}</math>"


def test_words_stay_words():
    for text in (
        "a slow copy",
        "the max of noisy estimates",
        "the sum of the rest",
        "part 5",
        "A3C",
        "non-terminal",
        "the slide's",
        'a "real value"',
    ):
        assert "<math>" not in mathml.inline(text), text


@pytest.mark.parametrize("name", build.SCRIPTS)
def test_a_copied_piece_brings_all_that_it_needs(name):
    source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    rows, pieces = source.splitlines(), build.chunks(source, ast.parse(source))
    for i, piece in enumerate(pieces):
        if piece.name in ("docstring", "imports", "start"):
            continue
        parts = [pieces[j] for j in sorted({i, *piece.needs})]
        text = [rows[n - 1] for n in sorted(piece.imports)]
        text += [row for part in parts for row in rows[part.first - 1 : part.last]]
        copied = {"__name__": "a_copy"}
        exec("\n".join(text), copied)
        if "LITERAL" in source and "train" in copied:
            assert hasattr(copied["train"], "__wrapped__"), "no --literal"


@pytest.mark.parametrize(
    "old, new",
    [
        ("# [12] Set", "# Set"),  # a line of the slide without code
        ("    [5]     for t", "    for t"),  # code without a line of the slide
        (f"    {FLAG} ", "    --no-such "),  # a flag that nothing uses
    ],
)
def test_a_tag_or_flag_without_a_partner_ends_the_build(old, new):
    assert SOURCE.count(old) == 1
    with pytest.raises(build.BuildError, match="dqn.py: "):
        build.script_page("dqn", SOURCE.replace(old, new))


# ------------------------------------------------------------------------------------- in a browser


def open_page(browser, name, anchor="", width=1400):
    browser.set_window_size(width, 900)
    browser.get("about:blank")
    browser.get((ROOT / "docs/html" / f"{name}.html").as_uri() + anchor)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def classes(browser, selector):
    return browser.execute_script(
        "return document.querySelector(arguments[0]).className", selector
    ).split()


def in_view(browser, selector):
    return browser.execute_script(
        "const e = document.querySelector(arguments[0]), r = e.getBoundingClientRect();"
        "const hit = document.elementFromPoint(r.left + r.width / 2, r.top + 8);"
        "return e.contains(hit)",
        selector,
    )


def settle(browser):
    browser.execute_async_script("setTimeout(() => requestAnimationFrame(arguments[0]), 50)")


@pytest.mark.parametrize("name", build.SCRIPTS)
def test_from_every_line_of_the_slide_to_its_code_and_back(browser, name):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    open_page(browser, name)
    tags = [
        e.get_attribute("data-line")
        for e in browser.find_elements(By.CSS_SELECTOR, ".pseudocode li")
    ]
    dark = browser.execute_script(  # pointing at each of them in turn, all in one go
        "const point = e => e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"
        "return arguments[0].filter(tag => {"
        "  const slide = document.querySelector(`.pseudocode [data-line='${tag}']`);"
        "  const code = document.getElementById('code-' + tag);"
        "  point(slide.querySelector('a')); const there = code.classList.contains('lit');"
        "  point(code.querySelector('.tag'));"
        "  return !(there && slide.classList.contains('lit')); })",
        tags,
    )
    assert tags and not dark, f"pointing at these does not light the other side: {dark}"
    for tag in {tags[0], tags[-1]}:  # with the mouse
        slide, code = f'.pseudocode [data-line="{tag}"]', f"#code-{tag}"
        link = browser.find_element(By.CSS_SELECTOR, slide + " a")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
        ActionChains(browser, duration=0).move_to_element(link).perform()
        assert "lit" in classes(browser, code), f"pointing at [{tag}] does not light its code"
        link.click()
        settle(browser)
        assert "pinned" in classes(browser, code) and "pinned" in classes(browser, slide)
        assert in_view(browser, code), f"a click on [{tag}] does not bring its code into view"
        assert browser.current_url.endswith(f"{name}.html#{tag}")
    open_page(browser, name)
    tagged = browser.find_element(By.CSS_SELECTOR, f"#code-{tags[-1]} .tag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", tagged)
    tagged.click()
    settle(browser)
    assert in_view(browser, f'.pseudocode [data-line="{tags[-1]}"]'), (
        "a click on the code does not bring its line into view"
    )
    assert "pinned" in classes(browser, f"#code-{tags[-1]}")


def test_a_link_with_a_line_opens_at_that_line(browser):
    open_page(browser, "dqn", "#12")
    settle(browser)
    assert in_view(browser, "#code-12") and in_view(browser, ".pseudocode [data-line='12']")
    assert "pinned" in classes(browser, "#code-12")


def test_departures_are_marked_with_their_flag(browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    open_page(browser, "dqn")
    key = build.keyword(FLAG)
    flag = browser.find_element(By.CSS_SELECTOR, f".flags a[href='#{key}']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", flag)
    ActionChains(browser).move_to_element(flag).perform()
    lines = browser.find_elements(By.CSS_SELECTOR, ".l.lit")
    assert lines and all(key in line.find_element(By.TAG_NAME, "code").text for line in lines)
    assert all(FLAG in line.find_element(By.CSS_SELECTOR, ".m").text for line in lines)


def test_it_opens_with_the_algorithm_in_view(browser):
    for name in build.SCRIPTS:
        open_page(browser, name)
        assert in_view(browser, ".code .nf"), "the first function is below the fold"


def test_keyboard(browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, "ddpg")
    link = browser.find_element(By.CSS_SELECTOR, ".pseudocode [data-line='14'] a")
    link.send_keys("")  # gives it the focus, as Tab does
    assert "lit" in classes(browser, "#code-14")
    link.send_keys(Keys.ENTER)
    settle(browser)
    assert "pinned" in classes(browser, "#code-14") and in_view(browser, "#code-14")
    link.send_keys(Keys.ESCAPE)
    assert "pinned" not in classes(browser, "#code-14")


def test_copy_gives_working_code(browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, "dqn")
    button = browser.find_element(By.CSS_SELECTOR, "[aria-label^='copy class ReplayMemory']")
    browser.execute_script(
        "window.said = new Promise(resolve => new MutationObserver(() => resolve())"
        ".observe(arguments[0], {childList: true, characterData: true, subtree: true}))",
        button,
    )
    button.click()
    browser.execute_async_script("said.then(arguments[0])")  # the button says that it has copied
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))"
    )
    area = browser.find_element(By.ID, "paste")
    area.send_keys(Keys.CONTROL, "v")
    pasted = area.get_property("value")
    assert "class ReplayMemory" in pasted and "import numpy as np" in pasted
    pieces = []
    for name in build.SCRIPTS:
        open_page(browser, name)
        script = "return [...document.querySelectorAll('.code button.copy')].map(textOf)"
        whole, *texts = browser.execute_script(script)
        assert whole == (ROOT / f"{name}.py").read_text(encoding="utf-8")
        pieces += texts
    assert len(pieces) > 20
    program = f"for text in {pieces!r}:\n"
    program += "    exec(compile(text, text[:300], 'exec'), {'__name__': 'a_copy'})\n"
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_narrow_screen(browser):
    from selenium.webdriver.common.by import By

    open_page(browser, "dqn", width=520)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), (
        "the page is wider than the screen"
    )
    browser.find_element(By.CSS_SELECTOR, ".pseudocode [data-line='3'] a").click()
    settle(browser)
    assert in_view(browser, "#code-3")


def test_dark_and_light(browser):
    open_page(browser, "index")
    colours = {}
    for scheme in ("dark", "light"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        colours[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert colours["dark"] < 150 < 600 < colours["light"]
