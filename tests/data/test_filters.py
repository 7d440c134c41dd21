"""Checks of text: planted faults are found, each by its own check, and sound text of many languages is left alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer import config
from sublayer.config import SUSPICIOUS, Filter
from sublayer.data.filters import checks, clean, script
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import DataError
from sublayer.training.progress import Reporter
from sublayer.training.task_data import prepare

SOUND = [
    ("I bought 3 apples & pears for < 5 euros.", "Compré 3 manzanas y peras por < 5 euros."),
    ("The café «CAFÉ» is open.", "El café «CAFÉ» está abierto."),
    ("São João, NÃO!", "São João, ¡no!"),
    ("Â, Ã and Ð are letters.", "Â, Ã y Ð son letras."),
    ("Yes, I do.", "Sí."),
    ("R&D; is it?", "¿I+D?"),
    ("if a<b and c>d then", "si a<b y c>d entonces"),
    ("A family: 👨\u200d👩\u200d👧", "Una familia: 👨\u200d👩\u200d👧"),
    ("a\tb", "a\tb y"),
    ("x = 2", "2 = x"),
]


def pairs(rows: list[tuple[str, str]]) -> Pairs:
    return Pairs([*rows], Report(len(rows), len(rows)), list(range(1, len(rows) + 1)))


def found(rows: list[tuple[str, str]], settings: Filter = SUSPICIOUS) -> dict[str, list[int]]:
    return {fault: list(find(rows)) for fault, find in checks(settings).items()}


def test_sound_text_is_left_alone() -> None:
    assert found(SOUND) == {fault: [] for fault in checks(SUSPICIOUS)}


@pytest.mark.parametrize(
    ("setting", "row"),
    [
        ("identical", ("The same.", "the  SAME.")),
        ("length_ratio", ("A long sentence that says a great deal more than what stands beside it does.", "Ja.")),
        ("script", ("The weather is fine.", "今天天气很好。")),
        ("script", ("Погода хорошая.", "Hace buen tiempo.")),
        ("control", ("Nul\x00 here", "Aquí")),
        ("control", ("Red\x1b[31m text", "Texto rojo")),
        ("control", ("Zero\u200bwidth", "Ancho cero")),
        ("control", ("Turned \u202eround", "Al revés")),
        ("control", ("Lost \ufffd character", "Carácter perdido")),
        ("markup", ("A <b>bold</b> word", "Una palabra en negrita")),
        ("markup", ('<a href="x">link</a>', "un enlace")),
        ("markup", ("Fish &amp; chips", "Pescado y patatas")),
        ("markup", ("It&#39;s", "Es")),
        ("mojibake", ("A cafÃ©.", "Un café.")),
        ("mojibake", ("It was 20Â° outside", "Hacía 20° fuera")),
        ("mojibake", ("He said â€œyesâ€\x9d", "Dijo que sí, «sí»")),
        ("mojibake", ("ÐŸÑ€Ð¸Ð²ÐµÑ‚ mundo", "Hola, mundo")),
    ],
)
def test_a_fault_is_found_by_its_check_and_by_no_other(setting: str, row: tuple[str, str]) -> None:
    on = Filter(**{setting: getattr(SUSPICIOUS, setting)})
    assert found([*SOUND, row], on) == {fault: [len(SOUND)] for fault in checks(on)}
    others = SUSPICIOUS.model_copy(update={setting: getattr(Filter(), setting)})
    # Bytes of UTF-8 that Windows-1252 has no letter for are control characters too.
    expected = {fault: [len(SOUND)] if "control" in fault and "\x9d" in row[0] else [] for fault in checks(others)}
    assert found([*SOUND, row], others) == expected


def test_a_duplicate_is_all_but_the_first() -> None:
    rows = [("One.", "Uno."), ("Two.", "Dos."), ("one. ", "uno."), ("One.", "Uno solo."), ("One.", "Uno.")]
    assert found(rows, Filter(duplicates=True)) == {"that came before": [2, 4]}


def test_words_are_counted_on_each_side() -> None:
    rows = [("a b c", "a b"), ("a", "a b"), ("a b c d", "a b")]
    assert found(rows, Filter(min_words=2, max_words=3)) == {
        "of fewer than 2 words": [1],
        "of more than 3 words": [2],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", "LATIN"), ("été", "LATIN"), ("Привет abc", "CYRILLIC"), ("漢字とかな", "HAN"), ("カタカナ", "HAN"),
        ("한국어", "HANGUL"), ("שלום", "HEBREW"), ("123 .", ""), ("١٢٣", ""), ("", ""), ("हिन्दी", "DEVANAGARI"),
    ],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text: str, expected: str) -> None:
    assert script(text) == expected


def test_planted_faults_are_all_counted_and_left_out_where_asked() -> None:
    """300 faults in 3,000 lines, of which no message once named one."""
    rng = random.Random(5)
    words = [f"{chr(97 + a)}{chr(97 + b)}o" for a in range(26) for b in range(26)]

    def sentence() -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(6, 12)))

    sound = [(sentence(), sentence()) for _ in range(2700)]
    planted = [sound[7]] * 200
    planted += [(text := sentence(), text) for _ in range(25)]
    planted += [(sentence(), "今天天气很好。" * 4) for _ in range(25)]
    planted += [(sentence(), f"<p>{sentence()}</p>") for _ in range(20)]
    planted += [(f"{sentence()}\x00", f"\x1b{sentence()}") for _ in range(15)]
    planted += [(" ".join(sentence() for _ in range(5)), "Ja.") for _ in range(15)]
    rows = [*sound, *planted]
    rng.shuffle(rows)
    table = pairs(rows)

    noted = clean(table, Filter())
    assert len(noted) == 3000
    assert not noted.report.dropped
    assert {each.reason: each.count for each in noted.report.noted} == {
        "that came before": 200,
        "with two equal sides": 25,
        "in another script than most": 25,
        "with markup": 20,
        "with control or zero-width characters": 15,
        "with one side over 4 times as long": 15,
    }
    left = clean(table, SUSPICIOUS)
    assert sorted(zip(left.sources, left.targets, strict=True)) == sorted(sound)
    assert (left.report.read, left.report.kept, left.report.noted) == (3000, 2700, ())
    assert "200 that came before" in str(left.report)


TEXT = st.text(alphabet="aAé<b>&;Ã©\x00\u200bж漢 ", max_size=12)


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_every_row_is_kept_or_counted_once(rows: list[tuple[str, str]]) -> None:
    table = pairs(rows)
    faults = {row for where in found(rows).values() for row in where}
    if len(faults) == len(rows):
        with pytest.raises(DataError, match=r"data\.filter leaves none of"):
            clean(table, SUSPICIOUS)
        return
    left = clean(table, SUSPICIOUS)
    assert left.report.kept == len(left) == len(rows) - len(faults)
    assert sum(each.count for each in left.report.dropped) == len(faults)
    assert left.lines == [row + 1 for row in range(len(rows)) if row not in faults]


def test_training_leaves_out_what_the_recipe_asks_for_and_scoring_does_not(tmp_path: Path) -> None:
    for name in ("train", "held"):
        (tmp_path / f"{name}.tsv").write_text(
            "".join(f"{name} {n}\tel {n} {name}\n" for n in "abcdefgh") + f"<b>{name}</b>\tmarcado\n", encoding="utf-8"
        )
    held = {"type": "tsv", "path": "held.tsv"}
    recipe = config.Recipe.parse(
        {
            "name": "filtered",
            "data": {
                "source": {"type": "tsv", "path": "train.tsv"},
                "split": {"type": "given", "validation": held, "test": held},
                "filter": {"markup": True},
            },
            "tokenizer": {"vocab_size": 300},
            "model": {"preset": "tiny"},
            "training": {"steps": 1},
        },
        "recipe",
    )
    said: list[str] = []

    class Said(Reporter):
        def say(self, text: str) -> None:
            said.append(text)

    data = prepare(recipe, tmp_path, None, Said())
    assert len(data.splits.train) == 8
    assert len(data.splits.validation) == len(data.splits.test) == 9
    assert "training: 8 of 9 pairs; left out: 1 with markup (line 9)" in said
