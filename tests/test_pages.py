"""The pages in docs/html: up to date, nothing from elsewhere; tried in a browser where one is."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from common import plotting, runs
from tools import compare, pages, slide


def test_pages_are_up_to_date(monkeypatch):
    """A record is not, once its script has changed, or its part of runs.toml."""
    text = lambda name: (pages.PAGES / f"{name}.html").read_text(encoding="utf-8")
    stale = [name for name, page in pages.rendered().items() if page != text(name)]
    assert all(map(pages.stored, slide.SCRIPTS)) and not stale, "run python -m tools.pages"
    made = pages.made_of
    for k in (0, 1):
        monkeypatch.setattr(pages, "made_of", lambda name, k=k: [made(name)[k]] * 2)
        assert not any(map(pages.stored, slide.SCRIPTS))


def test_a_record_is_what_the_run_shows():
    """Once more: all of qlearning_table.py's run; the words of the beginning of dqn.py's, whose
    numbers may round differently on another processor."""
    again = pages.Recorder("qlearning_table").record()
    assert json.loads(json.dumps(again)) == pages.stored("qlearning_table")
    recorder, words = pages.Recorder("dqn"), lambda text: re.sub(r"[≈=]|−?\d[\d.]*", "", text)
    recorder.plan["ask"], recorder.ahead[2:-1] = [], []
    told = lambda run: [(s[:4], *(words(run["strings"][i]) for i in s[4:])) for s in run["stops"]]
    old, new = told(pages.stored("dqn")), told(recorder.record())
    assert len(new) > 25 and new == old[: len(new)]


@pytest.mark.parametrize("name", ["index", *slide.SCRIPTS])
def test_a_page_stands_alone(name):
    page = (pages.PAGES / f"{name}.html").read_text(encoding="utf-8")
    for link in set(re.findall(r'(?:href|src)="([^"]+)"', page)):
        file, _, anchor = link.partition("#")
        assert not file or (pages.PAGES / file).exists(), link
        assert not anchor or "@" in anchor or f'id="{anchor}"' in page, link
    assert sum(file.stat().st_size for file in pages.PAGES.glob(f"{name}.*")) <= 230_000


@pytest.mark.parametrize("name", slide.SCRIPTS)
def test_the_formulas_of_a_record(name):
    """A student with a calculator gets what is shown, from the numbers that are shown."""
    python, sums = str.maketrans({"−": "-", "·": "*", "²": "**2", "σ": "sigma"}), 0
    value = lambda text: eval(text.translate(python), pages.CALCULATOR)
    for formula in pages.stored(name)["strings"]:
        for match in re.findall(r'<span class="sum">(.*?)</span> (.) <b>(.*?)</b>', formula):
            left, sign, right = (re.sub("<[^>]+>", "", part) for part in match)
            exact, near = value(left), value(right)
            sizes = [abs(float(x)) for x in re.findall(pages.NUMBER, left)]
            assert abs(exact - near) <= 2e-3 * max([near, *sizes]), formula
            assert sign == ("=" if abs(exact - near) < 1e-9 else "≈"), formula
            sums += 1
    assert sums > 2


SHOWN = """
    const find = s => document.querySelector(s), text = s => find(s).innerHTML;
    const plain = text => Object.assign(document.createElement("div"), {innerHTML: text}).innerHTML;
    const now = [".code .formula", ".run .place", ".run .title", ".run .card", ".strip figcaption",
                 ".strip div", ".picture"].map(text);
    return {now, wanted: arguments[0].map(plain), tag: find(".lines .now").id,
            top: find(".l.head.now").getBoundingClientRect().top,
            ran: [...document.querySelectorAll(".l.ran")].map(l => Number(l.dataset.s))}
"""


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="see docs/requirements.txt")
    driver, options = shutil.which("chromedriver"), webdriver.ChromeOptions()
    if not driver:
        pytest.skip("no chromium and chromedriver here: the pages were not tried in a browser")
    flags = "headless=new no-sandbox disable-gpu force-prefers-reduced-motion window-size=1400,900"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


@pytest.mark.parametrize("name", slide.SCRIPTS)
def test_in_a_browser(browser, name):
    from selenium.webdriver import ActionChains

    run, find = pages.stored(name), lambda css: browser.find_element("css selector", css)
    mouse, tops, page = ActionChains(browser, 0), [], (pages.PAGES / f"{name}.html").as_uri()
    browser.get("about:blank")
    browser.get(page)

    def check(stop: int):
        tag, _, _, ran, *strings = run["stops"][stop]
        shown = browser.execute_script(SHOWN, [run["strings"][i] for i in strings])
        assert shown["now"] == shown["wanted"] and shown["tag"] == tag
        assert set(ran) == set(shown["ran"])
        tops.append(shown["top"])

    mouse.move_to_element(find("[data-do=forward]")).perform()
    for stop in range(5):  # the pointer stays where it is
        mouse.click().perform()
        check(stop)
    for key, stop in (("\ue012", 3), ("\ue014", 4), ("1", run["ask"][0][1])):  # ←, →, a question
        mouse.send_keys(key).perform()
        check(stop)
    assert max(tops) - min(tops) <= 2, "the active line moves"
    for width in (390, 820, 1400, 1920):
        size = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    last = run["stops"][-1][0]
    browser.get("about:blank")
    browser.get(f"{page}#{last}")
    assert find(".lines .now").get_attribute("id") == last
    assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]


def test_pictures_of_saved_runs(monkeypatch):
    """Their mean, from where the last one begins; who has ended before keeps the last value."""
    drawn, folder = [], Path("runs")
    monkeypatch.setattr(plotting, "png", lambda figure: drawn.append(figure) or b"PNG")
    for seed, rows in dict(a="1,10,0,1,10\n2,40,0,5,30\n", b="1,20,0,4,20\n", c="").items():
        (folder / seed).mkdir(parents=True)
        (folder / seed / "returns.csv").write_text(f"{','.join(runs.COLUMNS)}\n{rows}")
    assert compare.draw([folder, folder / "b"], Path("a.png")) == 0 and Path("a.png").exists()
    both, one = [np.transpose(line.get_data()) for line in drawn[0].axes[0].lines]
    assert both[[0, -1]].tolist() == [[20, 2.5], [40, 3.5]] and one[0].tolist() == [20, 4]
    with pytest.raises(compare.envs.BadInput, match="no episodes in a returns.csv"):
        compare.draw([folder / "c"], Path("a.png"))
