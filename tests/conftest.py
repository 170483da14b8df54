"""Runs before every test: no window is ever opened, and nothing is written into the repository."""

import os
import shutil

os.environ |= dict(SDL_VIDEODRIVER="dummy", MPLBACKEND="agg")  # pygame draws into memory

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="see docs/requirements.txt")
    chromiums = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    chromium, driver = next(filter(None, chromiums), None), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver here: the pages were not tried in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless=new no-sandbox disable-gpu disable-background-networking disable-sync"
    flags += " disable-component-update force-prefers-reduced-motion window-size=1400,900"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()
