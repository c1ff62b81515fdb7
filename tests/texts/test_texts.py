"""Which language is spoken, and how sentences are said in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiinfra_widgets import texts
from aiinfra_widgets.quantities import QUANTITIES, Value, quantity
from aiinfra_widgets.texts import told, tr, trn

SILENT = dict.fromkeys(
    ("AIINFRA_LANGUAGE", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "JPY_PARENT_PID", "JPY_SESSION_NAME"), ""
)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    texts.use("en")
    yield
    texts.use("en")


@pytest.fixture
def chinese() -> None:
    assert texts.use("zh") == "zh_CN"


def test_english_is_the_key_and_the_default() -> None:
    assert tr("Run") == "Run"
    assert tr("{count} runs", count=3) == "3 runs"
    assert tr("a text that is in no catalog") == "a text that is in no catalog"
    assert [trn("{count} run", "{count} runs", n) for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.usefixtures("chinese")
def test_a_text_is_said_in_the_language_in_use() -> None:
    assert tr("Run") == "运行"
    assert tr("a text that is in no catalog") == "a text that is in no catalog"
    assert {trn("{count} older segment", "{count} older segments", n) for n in (1, 2)} == {
        "更早的 1 个区段", "更早的 2 个区段",
    }  # fmt: skip
    assert texts.use("en") == "en"
    assert tr("Run") == "Run"


@pytest.mark.usefixtures("chinese")
def test_what_was_declared_earlier_is_translated_when_it_is_shown() -> None:
    assert quantity("step_time_s").label == "步时间"
    assert QUANTITIES["step_time_s"].label == "Step time"
    assert Value("step_time_s", None).to_json()["method"] == "modelled"
    from aiinfra_widgets.experiments.training.spec import TrainingSpec

    assert TrainingSpec.knobs()["nodes"].label == "节点"
    texts.use("en")
    assert TrainingSpec.knobs()["nodes"].label == "Nodes"


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize(
    ("english", "said"),
    [
        pytest.param("waiting for the ranks", "正在等待进程", id="no-values"),
        pytest.param("node 1 at step 5: out of memory: 3 GiB", "节点 1，第 5 步：out of memory：3 GiB", id="values"),
        pytest.param("nodes: got 900; allowed: a whole number from 1 to 512", "nodes：得到 900；允许：整数，1 到 512", id="inside"),
        pytest.param("waiting for the ranks\n2 nodes at work", "正在等待进程\n2 个节点在工作", id="lines"),
        pytest.param("batch over step time; energy counter of this machine", "批大小除以步时间；本机的能量计数器", id="row"),
        pytest.param("tokens/s", "tokens/s", id="not-in-the-catalog"),
        pytest.param("{x} of {}", "{x} of {}", id="braces"),
        pytest.param("", "", id="nothing"),
    ],
)  # fmt: skip
def test_a_sentence_of_a_record_is_told(english: str, said: str) -> None:
    assert told(english) == said
    texts.use("en")
    assert told(english) == english


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("zh_CN.UTF-8", "zh_CN"), ("zh-Hans", "zh_CN"), ("zh", "zh_CN"), ("en_GB@euro", "en"), ("C", "en"), ("C.UTF-8", "en"),
        ("tlh", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_wish_finds_the_catalog_that_serves_it(wish: str, found: str) -> None:
    assert texts.known(wish) == found


def test_a_language_without_a_catalog_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="language: got 'tlh'; allowed: en, zh_CN"):
        texts.use("tlh")
    assert texts.language() == "en"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param({}, "en", id="nothing-said"),
        pytest.param({"AIINFRA_LANGUAGE": "zh_CN", "LANG": "en_US.UTF-8"}, "zh_CN", id="our-own-comes-first"),
        pytest.param({"AIINFRA_LANGUAGE": "en", "LANG": "zh_CN.UTF-8"}, "en", id="english-on-purpose"),
        pytest.param({"LANG": "zh_CN.UTF-8"}, "zh_CN", id="system"),
        pytest.param({"LANGUAGE": "tlh:zh_CN:en", "LANG": "en_US.UTF-8"}, "zh_CN", id="list-of-wishes"),
        pytest.param({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, "en", id="lc-all-decides"),
        pytest.param({"AIINFRA_LANGUAGE": "tlh", "LANG": "zh_CN.UTF-8"}, "zh_CN", id="unknown-is-passed-over"),
    ],
)
def test_who_decides_on_the_language(given: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SILENT, **given}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", "/nowhere")
    assert texts.use("") == found


@pytest.mark.parametrize(("locale", "found"), [("zh_CN", "zh_CN"), ("default", "en")])
def test_a_kernel_speaks_jupyterlabs_language(
    locale: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / texts.JUPYTERLAB
    settings.parent.mkdir(parents=True)
    settings.write_text(f'{{\n    // "locale": "fr_FR"\n    "locale": {json.dumps(locale)}\n}}')
    for name in SILENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "jupyter_server", raising=False)
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    assert texts.use("") == "en"  # no kernel
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert texts.use("") == found


def test_the_module_costs_nothing_before_it_translates() -> None:
    code = (
        "import sys; before = set(sys.modules); import aiinfra_widgets.texts; print(*sorted(set(sys.modules) - before))"
    )
    env = {**os.environ, **{k: v for k, v in SILENT.items() if not v}, "AIINFRA_LANGUAGE": "en"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=env)
    loaded = set(done.stdout.split())
    assert not {m for m in loaded if m.startswith("aiinfra_widgets.") and m != "aiinfra_widgets.texts"}
    assert not {"gettext", "locale", "babel", "numpy"} & loaded
