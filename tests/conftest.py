"""Runs before every test: no window is ever opened, and nothing is written into the repository."""

import contextlib
import functools
import io
import os
import shutil

os.environ["SDL_VIDEODRIVER"] = "dummy"  # pygame draws into memory
os.environ["MPLBACKEND"] = "agg"

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """finished(script, *flags): the folder of a run with TINY's flags and these, and what it said.

    Each is run once for all tests, which only read it; a test that writes there takes a copy.
    """
    from test_command_line import TINY, run

    @functools.cache
    def made(script: str, *flags: str):
        folder, page = tmp_path_factory.mktemp(script) / "here/there", io.StringIO()
        with contextlib.redirect_stdout(page):
            assert run(script, *TINY[script], *flags, "--out", folder) == 0
        return folder, page.getvalue()

    return made


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="no selenium: see docs/requirements.txt"
    )
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver here: the pages were not tried in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-prefers-reduced-motion",
        "--window-size=1400,900",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()
