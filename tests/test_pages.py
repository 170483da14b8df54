"""The pages in docs/html: up to date, nothing from elsewhere; tried in a browser where one is."""

import json
import re
import shutil

import pytest
from test_step import recomputed

from tools import pages, slide

pytest.importorskip("jinja2", reason="tools/pages.py needs docs/requirements.txt")
TYPESET = {
    "theta <- theta + alpha v_t": "θ ← θ + α v<sub>t</sub>",
    "theta^Q' and theta'_v": "θ<sup>Q′</sup> and θ′<sub>v</sub>",
    "pi_theta_old(.|s_{t+1})": "π<sub>θ<sub>old</sub></sub>(.|s<sub>t+1</sub>)",
    "(y_j - Q)^2 for a slow copy": "(y<sub>j</sub> − Q)² for a slow copy",
    "the slide's `x_1`, --n-steps 1": "the slide's <code>x_1</code>, <code>--n-steps</code> 1",
    "as in [12], A3C, e.g. max_a' Q < 1": 'as in <a href="#12">[12]</a>, A3C, e.g. max<sub>a′'
    "</sub> Q &lt; 1",
}


def record(name: str) -> dict:
    text = (pages.PAGES / f"{name}.run.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const RUN = ").rstrip(";\n"))


def test_pages_are_up_to_date():
    assert not pages.stale(), "run python -m tools.pages"
    names = {f"{name}{end}" for name in slide.SCRIPTS for end in (".html", ".run.js")}
    files = {path.name for path in pages.PAGES.iterdir()}
    assert files == {*names, "index.html", "page.css", "page.js"}


def test_a_page_is_stale_by_its_script(monkeypatch, tmp_path):
    shutil.copytree(pages.PAGES, tmp_path / "html")
    for name in slide.SCRIPTS:
        shutil.copy(slide.ROOT / f"{name}.py", tmp_path)
    monkeypatch.setattr(slide, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "PAGES", tmp_path / "html")
    source = (tmp_path / "dqn.py").read_text(encoding="utf-8")
    (tmp_path / "dqn.py").write_text(source.replace("# [1] ", "# Here: [1] "), encoding="utf-8")
    assert pages.stale() == ["index", "dqn"] and pages.stored("dqn"), "a comment"
    (tmp_path / "dqn.py").write_text(source.replace("1 - gamma", "2 - gamma"), encoding="utf-8")
    assert pages.stale() == ["index", "dqn"] and not pages.stored("dqn"), "the code"


@pytest.mark.parametrize("name", ["index", *slide.SCRIPTS])
def test_a_page_stands_alone(name):
    page = (pages.PAGES / f"{name}.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(https?:)?//', page), "something comes from the network"
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    for link in links:
        file, _, anchor = link.partition("#")
        assert not file or (pages.PAGES / file).exists(), link
        assert not anchor or "@" in anchor or f'id="{anchor}"' in page, link
    assert 'class="chart"' in page, "no learning curve"
    if name != "index":
        files = [f"{name}.html", f"{name}.run.js", "page.css", "page.js"]
        assert sum((pages.PAGES / file).stat().st_size for file in files) <= 250_000


@pytest.mark.parametrize("text", TYPESET)
def test_typeset(text):
    assert re.sub("</?i[^>]*>", "", pages.typeset(text)) == TYPESET[text]


@pytest.mark.parametrize("name", slide.SCRIPTS)
def test_in_a_browser(browser, name):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    run, find = record(name), lambda selector: browser.find_element(By.CSS_SELECTOR, selector)
    browser.get("about:blank")
    browser.get((pages.PAGES / f"{name}.html").as_uri())
    shown = lambda: browser.execute_script(
        "const text = s => document.querySelector(s).innerHTML, here = document.querySelector"
        "('.l.head.now').getBoundingClientRect(); return {formula: text('.rows .formula'),"
        " place: text('.run .place'), card: text('.run .card'), strip: text('.strip div'),"
        " tag: document.querySelector('.lines .now').id, top: here.top,"
        " ran: [...document.querySelectorAll('.l.ran')].map(l => Number(l.dataset.s))}"
    )
    plain = lambda text: browser.execute_script(
        "const e = document.createElement('div'); e.innerHTML = arguments[0]; return e.innerHTML",
        text,
    )

    def check(stop: int):
        tag, _, _, ran, *strings = run["stops"][stop]
        formula, place, _, card, _, strip, _ = (plain(run["strings"][i]) for i in strings)
        now = shown()
        wanted = dict(formula=formula, place=place, card=card, strip=strip, tag=tag)
        assert {key: now[key] for key in wanted} == wanted
        assert set(ran) == set(now["ran"])
        return now["top"]

    ActionChains(browser, duration=0).move_to_element(find("[data-do=forward]")).perform()
    tops = []
    for stop in range(20):  # the pointer stays where it is
        ActionChains(browser, duration=0).click().perform()
        tops.append(check(stop))
    for key, stop in (("\ue012", 18), ("\ue014", 19), ("1", run["ask"][0][1])):  # ←, →, a question
        ActionChains(browser).send_keys(key).perform()
        tops.append(check(stop))
    assert max(tops) - min(tops) <= 2, "the active line moves"
    sums = browser.execute_script(
        "return [...document.querySelectorAll('.rows .sum')].map(e =>"
        " [e.textContent, e.nextElementSibling.textContent])"
    )
    for left, right in sums:
        assert abs(recomputed(left) - recomputed(right)) < 2e-3 * (1 + abs(recomputed(right)))
    for width in (390, 820, 1400, 1920):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            dict(width=width, height=900, deviceScaleFactor=1, mobile=False),
        )
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    last = run["stops"][-1][0]
    browser.get("about:blank")
    browser.get((pages.PAGES / f"{name}.html").as_uri() + f"#{last}")
    assert find(".lines .now").get_attribute("id") == last
    assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
