"""The page as one file and as one script, without a browser: nothing is left out, nothing may come in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sys

import pytest

from inspection.loaded_models import made, translator
from small_run import sublayer
from sublayer.errors import ConfigError, InputError
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.inspection import assets, notebook
from sublayer.inspection.html import document, require_html_path, write_html
from sublayer.inspection.look import look
from sublayer.inspection.view import Question


@pytest.mark.parametrize("entry", ["recorded.js", "widget.js"])
def test_a_bundle_imports_nothing_and_holds_everything(entry):
    script = assets.bundle(entry)
    assert not re.search(r"^\s*import\b", script, re.MULTILINE)
    assert len(re.findall(r"^export\b", script, re.MULTILINE)) == (entry == "widget.js")
    own = {"served", "recorded", "widget"}
    for name in sorted(name.removesuffix(".js") for name in assets.files() if name.endswith(".js")):
        assert (f"const module_{name} = " in script) == (name not in own)
        if name not in own:
            # What is used stands before who uses it.
            first, made_ = script.find(f"= module_{name};"), script.index(f"const module_{name} = ")
            assert made_ < first


def test_the_page_fetches_nothing_from_elsewhere():
    for name, (held, _) in assets.files().items():
        text = held.decode("utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )


def test_the_policy_names_what_is_in_the_file():
    loaded, text = made("translate")
    page = document(look(loaded, Question(text=text)))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for held in (
        re.search(r"<style>(.*?)</style>", page, re.S)[1],
        re.search(r'<script type="module">(.*?)</script>', page, re.S)[1],
    ):
        digest = base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!-- <script>", "\u2028 & ü 猫"])
def test_no_text_ends_the_element_that_holds_it(text):
    loaded, _ = made("generate")
    view = look(loaded, Question(text=text, tokens=1))
    page = document(view)
    data = re.search(r'<script type="application/json" id="view">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["question"]["text"] == text
    assert "<" not in data
    assert page.count("<script") == page.count("</script>") == 2


@pytest.mark.parametrize("name", ["view.png", "view", "view.html.gz"])
def test_a_page_has_the_name_of_one(tmp_path, name):
    with pytest.raises(InputError, match="no name of a page"):
        require_html_path(tmp_path / name)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        require_html_path(tmp_path / "folder.html")


def test_a_file_is_replaced_whole(tmp_path):
    loaded, text = made("embed")
    view = look(loaded, Question(text=text))
    (tmp_path / "view.html").write_text("old")
    write_html(view, tmp_path / "view.html")
    assert (tmp_path / "view.html").read_text(encoding="utf-8") == document(view)
    assert [one.name for one in tmp_path.iterdir()] == ["view.html"]


# --- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    own = translator()
    path = tmp_path_factory.mktemp("model") / "small"
    write(path, ModelBundle(own.model.float(), own.tokenizer, own.decoding.plain()), ModelCard("", ""))
    return path


def test_attend_writes_a_page(folder, tmp_path):
    out = tmp_path / "view.html"
    done = sublayer("attend", folder, "Where are my keys?", "--html", out, "--device", "cpu")
    assert done.code == 0, done.err
    assert done.out.endswith(f"The page is {out}\n")
    data = json.loads(re.search(r'id="view">(.*?)</script>', out.read_text(encoding="utf-8"), re.S)[1])
    assert (data["about"]["name"], data["question"]["text"]) == ("small", "Where are my keys?")
    assert data["output"]["text"] in done.out
    assert [one.name for one in tmp_path.iterdir()] == ["view.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Where?", "--html", "view.png"], "no name of a page"),
        ([" ", "--html", "view.html"], "the text is empty"),
        (["Where? " * 50, "--html", "view.html"], "positions end at 48"),
    ],
)
def test_attend_refuses(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = sublayer("attend", folder, *arguments, "--device", "cpu")
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())


def test_inspect_says_where_the_page_is(folder, monkeypatch):
    from sublayer.inspection import listening as network

    served = []
    monkeypatch.setattr(network, "serve", lambda app, listening: served.append(*network.addresses(listening)))
    done = sublayer("inspect", folder, "Where?", "--port", 0, "--device", "cpu")
    assert done.code == 0, done.err
    assert done.out == f"small: {served[0]}\n"


def test_inspect_without_what_it_needs(folder, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else real(name, *more)
    )
    done = sublayer("inspect", folder)
    assert done.code == 2
    assert "uvicorn is not installed" in done.err
    assert "sublayer[inspect]" in done.err


def test_a_notebook_without_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    notebook._widget_class.cache_clear()
    loaded, text = made("embed")
    with pytest.raises(ConfigError, match=r"sublayer\[inspect\]"):
        notebook.view(loaded, text)


def test_a_notebook_is_told_of_errors():
    loaded, text = made("generate")
    shown = notebook.view(loaded, text, tokens=2, silenced=[("decoder", 0, 1)])
    assert shown.view["question"]["silenced"] == [{"map": "decoder", "layer": 0, "head": 1}]
    sent = []
    shown.send = sent.append
    shown._hear(shown, {"number": 3, "question": {"text": ""}}, [])
    shown._hear(shown, {"number": 4, "question": {"text": "keys", "tokens": 1}}, [])
    assert sent[0] == {"number": 3, "error": {"what": "there is no text", "remedy": "Type a sentence."}}
    assert (sent[1]["number"], sent[1]["view"]["question"]["text"]) == (4, "keys")
