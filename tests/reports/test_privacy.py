from __future__ import annotations

import sys
from pathlib import Path

from aiinfra_widgets.reports import privacy
from aiinfra_widgets.reports.privacy import scrub_data, scrubber


def test_home_python_folders_and_secrets_are_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(sys, "prefix", "/home/ada/lab/.venv")
    environment = {"LAB_API_KEY": "k3y-k3y-k3y", "SHORT_TOKEN": "ab", "PLAIN": "plain-value"}
    scrub = scrubber({"notebook folder": Path("/data/course/labs")}, environment)
    assert scrub("at /home/ada/x and /home/adam/x") == "at ~/x and /home/adam/x"
    assert scrub("/home/ada/lab/.venv/bin/python") == "{python}/bin/python"
    assert scrub("File /data/course/labs/01.ipynb") == "File {notebook folder}/01.ipynb"
    assert scrub("key=k3y-k3y-k3y ab plain-value") == "key={secret LAB_API_KEY} ab plain-value"


def test_a_host_name_is_replaced_as_a_word_and_only_if_it_is_not_a_plain_one(monkeypatch):
    monkeypatch.setattr(privacy.socket, "gethostname", lambda: "gpu-07.lab.example")
    monkeypatch.setattr(privacy.os, "uname", lambda: type("U", (), {"nodename": "training"})())
    scrub = scrubber({}, {})
    assert scrub("on gpu-07.lab.example, gpu-07: training") == "on {host}, {host}: training"
    assert scrub("gpu-071") == "gpu-071"


def test_data_is_scrubbed_at_any_depth_but_pictures_are_left(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    scrub = scrubber({}, {})
    data = {"a": ["/home/ada", {"b": ("/home/ada/x", 3)}], "image/png": "/home/ada"}
    assert scrub_data(data, scrub) == {"a": ["~", {"b": ["~/x", 3]}], "image/png": "/home/ada"}


def test_no_broad_folder_is_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr(sys, "prefix", "/usr")
    assert scrubber({"notebook folder": Path("/srv")}, {})("/usr/bin and /srv/x") == "/usr/bin and /srv/x"
