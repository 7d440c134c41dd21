"""LibreTranslate's own client against a running server, with the library's translations as the oracle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from libretranslatepy import LibreTranslateAPI

from served import Running, models, running, translator
from sublayer.errors import ConfigError
from sublayer.generation.translator import Translator
from sublayer.serving import languages, sentences
from sublayer.serving.keys import Keys
from sublayer.serving.limits import BatchLimits
from sublayer.serving.metrics import Metrics
from sublayer.serving.served import ServedModel


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Running) -> LibreTranslateAPI:
    return LibreTranslateAPI(server.address + "/")


def said(text: str, pair: str = "en-es") -> str:
    """A sentence by the library."""
    own = models()[pair]
    assert isinstance(own, Translator)
    return own.translate([text])[0].text


def test_libretranslatepy(client: LibreTranslateAPI) -> None:
    assert client.languages() == [
        {"code": "en", "name": "English", "targets": ["en", "es"]},
        {"code": "es", "name": "Spanish", "targets": ["en", "es"]},
    ]
    assert client.translate("the keys", "en", "es") == said("the keys")
    assert client.translate("las llaves", "es", "en") == said("las llaves", "es-en")
    assert client.detect("Where are the keys of the old house?")[0]["language"] == "en"
    assert client.detect("¿Dónde están las llaves de la casa?")[0]["language"] == "es"


def test_paragraphs_and_sentences_are_kept(client: LibreTranslateAPI) -> None:
    text = "  The keys. Where are they?\n\n\tOn the table!  \n- the door\r\n"
    expected = (
        f"  {said('The keys.')} {said('Where are they?')}\n\n\t{said('On the table!')}  \n{said('- the door')}\r\n"
    )
    assert client.translate(text, "en", "es") == expected


def test_a_long_text_comes_back_whole(client: LibreTranslateAPI) -> None:
    """Far longer than the model's positions: sentences, and one sentence that is too long by itself."""
    text = " ".join(["The old man looks at the sea."] * 40) + "\n" + "the house, " * 60
    found = client.translate(text, "en", "es")
    first, second = found.split("\n")
    assert first == " ".join([said("The old man looks at the sea.")] * 40)
    assert len(second) > 100


def test_lists_alternatives_and_detection(server: Running) -> None:
    body = {
        "q": ["Where are the keys of the house?", "¿Dónde está la puerta de la casa?", ""],
        "source": "auto",
        "target": "es",
    }
    reply = requests.post(f"{server.address}/translate", json=body, timeout=60).json()
    assert reply["translatedText"] == [said(body["q"][0]), body["q"][1], ""]
    assert [one["language"] for one in reply["detectedLanguage"][:2]] == ["en", "es"]
    body = {"q": "the keys", "source": "en", "target": "es", "alternatives": 3}
    reply = requests.post(f"{server.address}/translate", json=body, timeout=60).json()
    best = translator().translate(["the keys"], beam=4, n_best=4)[0].n_best
    assert [reply["translatedText"], *reply["alternatives"]] == [one.text for one in best]


def test_forms_as_browsers_and_curl_send_them(server: Running) -> None:
    form = urlencode({"q": "the keys & the door", "source": "en", "target": "es", "format": "text", "api_key": ""})
    kind = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = requests.post(f"{server.address}/translate", data=form, headers=kind, timeout=60)
    assert reply.json() == {"translatedText": said("the keys & the door")}
    # As curl -F and FormData send it; a field that comes several times is a list.
    parts = [
        ("q", "the keys & the door"),
        ("q", "¿the sea?\n"),
        ("source", "en"),
        ("target", "es"),
        ("alternatives", "1"),
    ]
    reply = requests.post(
        f"{server.address}/translate", files=[(name, (None, value)) for name, value in parts], timeout=60
    )
    assert reply.json()["translatedText"] == [said("the keys & the door"), said("¿the sea?") + "\n"]
    assert [len(others) for others in reply.json()["alternatives"]] == [1, 1]
    reply = requests.post(
        f"{server.address}/detect", files={"q": (None, "Where are the keys of the house?")}, timeout=60
    )
    assert reply.json()[0]["language"] == "en"


BOUNDARY = "multipart/form-data; boundary=x"


def part(about: bytes, value: bytes = b"a") -> bytes:
    return b"--x\r\nContent-Disposition: form-data" + about + b"\r\n\r\n" + value + b"\r\n"


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"", BOUNDARY, 400, "q: Field required"),
        (b"--x\r\n", "multipart/form-data", 400, "Missing boundary"),
        (b"nothing of the kind", BOUNDARY, 400, "Invalid multipart data"),
        (part(b"") + b"--x--\r\n", BOUNDARY, 400, '"name" must be provided'),
        (part(b'; name="q"', b"\xff") + b"--x--\r\n", BOUNDARY, 400, "not UTF-8"),
        (part(b'; name="q"; filename="a"') + b"--x--\r\n", BOUNDARY, 400, "no files"),
        (part(b'; name="q"') * 300 + b"--x--\r\n", BOUNDARY, 400, "Too many fields"),
        (b"a" * 5 * 2**20, BOUNDARY, 413, "bytes at most"),
        (b"q=a", "text/plain", 415, "multipart/form-data"),
    ],
)
def test_forms_that_cannot_be_read(server: Running, body: bytes, kind: str, status: int, words: str) -> None:
    reply = requests.post(f"{server.address}/translate", data=body, headers={"content-type": kind}, timeout=60)
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"]


def test_files_are_refused_as_libretranslate_does_where_they_are_switched_off(server: Running) -> None:
    reply = requests.post(f"{server.address}/translate_file", files={"file": ("a.txt", b"the keys")}, timeout=60)
    assert reply.status_code == 403
    assert "files are not translated here" in reply.json()["error"]


def test_markup_stays_where_it_was(server: Running) -> None:
    html = (
        '<!doctype html><p class="a">The keys &amp; the door.<br>Where <b>are they</b>?</p><!-- the note -->'
        "<script>if (a < b) the()</script><pre>the code</pre><span translate=no>Tom</span><img src=x alt='the'></div>"
    )
    body = {"q": html, "source": "en", "target": "es", "format": "html"}
    found = requests.post(f"{server.address}/translate", json=body, timeout=60).json()["translatedText"]
    tags = re.compile(r"<[^>]*>")
    assert tags.findall(found) == tags.findall(html)
    assert "<script>if (a < b) the()</script><pre>the code</pre><span translate=no>Tom</span>" in found
    assert f'<p class="a">{escape(said("The keys & the door."), quote=False)}<br>' in found


def test_what_cannot_be_is_said_in_libretranslates_form(server: Running) -> None:
    for body, status, words in (
        ({"q": "x", "source": "en", "target": "fr"}, 400, "fr is not supported"),
        ({"q": "x", "source": "xx", "target": "es"}, 400, "xx is not supported"),
        ({"source": "en", "target": "es"}, 400, "q"),
        ({"q": "x", "source": "en", "target": "es", "alternatives": 99}, 400, "alternatives"),
        ({"q": "x" * 200_000, "source": "en", "target": "es"}, 400, "100000"),
        ({"q": ["x"] * 300, "source": "en", "target": "es"}, 400, "256"),
    ):
        reply = requests.post(f"{server.address}/translate", json=body, timeout=60)
        assert reply.status_code == status, reply.text
        assert words in reply.json()["error"]


def test_health_and_settings(server: Running) -> None:
    assert requests.get(f"{server.address}/health", timeout=60).json() == {"status": "ok"}
    settings = requests.get(f"{server.address}/frontend/settings", timeout=60).json()
    assert settings["language"]["source"] == {"code": "en", "name": "English"}
    assert settings["language"]["target"] == {"code": "es", "name": "Spanish"}
    assert settings["charLimit"] == 100_000
    assert not settings["keyRequired"]


def test_keys_beside_the_text() -> None:
    with running({"en-es": models()["en-es"]}, keys=Keys(["secret"])) as server:
        with_key = LibreTranslateAPI(server.address + "/", api_key="secret")
        assert with_key.translate("the keys", "en", "es") == said("the keys")
        body = {"q": "x", "source": "en", "target": "es", "api_key": "wrong"}
        reply = requests.post(f"{server.address}/translate", json=body, timeout=60)
        assert reply.status_code == 403
        assert "API key" in reply.json()["error"]


# --- the parts -----------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.sampled_from("ab A.!?…。 \n\r\t\"')1é猫-,"), max_size=80))
def test_sentences_put_together_are_the_text(text: str) -> None:
    assert "".join(part + space for part, space in sentences.split(text)) == text
    for part, _ in sentences.split(text):
        pieces = sentences.fitted(part, lambda piece: len(piece) <= 7)
        assert "".join(piece + space for piece, space in pieces) == part
        assert all(len(piece) <= 7 for piece, _ in pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Dr. Smith saw Mr. J. Doe at 5 p.m. today. He left.",
            ["Dr. Smith saw Mr. J. Doe at 5 p.m. today.", "He left."],
        ),
        ("It costs 3.5 euros. Really? Yes!", ["It costs 3.5 euros.", "Really?", "Yes!"]),
        ("«¿Qué?» Nada... Adiós.", ["«¿Qué?»", "Nada...", "Adiós."]),
        ("行きます。猫です。", ["行きます。", "猫です。"]),
        ("See e.g. the table. 2 more follow.", ["See e.g. the table.", "2 more follow."]),
        ("1. First", ["1. First"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert [part for part, _ in sentences.split(text) if part] == expected


def test_languages_of_names() -> None:
    assert languages.pair("tatoeba-en-es-demo") == ("en", "es")
    assert languages.pair("opus-mt-en-de") == ("en", "de")
    assert languages.pair("eng-spa") == ("en", "es")
    assert languages.pair("to-be-or-not") is None
    assert (
        languages.code("eng_Latn")
        == languages.code("en_XX")
        == languages.code("__en__")
        == languages.code("en")
        == "en"
    )
    assert languages.code(">>spa<<") == "es"


def test_a_translator_without_languages_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"serve en-es=MODEL"):
        ServedModel.of("demo", models()["en-es"], Metrics(), BatchLimits())
