"""Runs before every test: no window is ever opened, and nothing is written into the repository."""

import os

os.environ |= dict(SDL_VIDEODRIVER="dummy", MPLBACKEND="agg")  # pygame draws into memory

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
