"""`sublayer data check` on what a user names."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sublayer.cli.main import app

RUN = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "en.txt").write_text("One <b>bold</b> word\nTwo\nTwo\n", encoding="utf-8")
    (tmp_path / "es.txt").write_text("Una palabra\nDos\ndos\n", encoding="utf-8")
    (tmp_path / "both.tsv").write_text("same\tsame\nTwo\tDos\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(
        'name = "mine"\n[data]\nsource = { type = "lines", source = "en.txt", target = "es.txt" }\n'
        "[data.filter]\nmax_words = 2\n[tokenizer]\nvocab_size = 300\n"
        '[model]\npreset = "tiny"\n[training]\nsteps = 1\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("what", "counted"),
    [
        (["en.txt", "es.txt"], {"with markup": 1, "that came before": 1, "with two equal sides": 0}),
        (["both.tsv"], {"with two equal sides": 1, "with markup": 0}),
        (["en.txt"], {"with markup": 1, "that came before": 1}),
        (["recipe.toml"], {"of more than 2 words": 1, "with markup": 1}),
        (["recipe.toml", "--set", "data.filter.max_words=1"], {"of more than 1 words": 1}),
    ],
)
def test_faults_are_counted(folder: Path, what: list[str], counted: dict[str, int]) -> None:
    done = RUN.invoke(app, ["data", "check", *what])
    assert done.exit_code == 0, done.output
    for fault, count in counted.items():
        row = next(line for line in done.output.splitlines() if fault in line)
        assert int(row.strip("│ ").split()[0]) == count, row


def test_a_sample_shows_what_cannot_be_seen(folder: Path) -> None:
    (folder / "en.txt").write_text("zero\u200bwidth\x1b[31m\nTwo\nThree\n", encoding="utf-8")
    done = RUN.invoke(app, ["data", "check", "en.txt", "es.txt"])
    assert "zero\\u200bwidth\\u001b[31m" in done.output
    assert "\x1b[31m" not in done.output


@pytest.mark.parametrize("what", [["no.txt"], ["no.txt", "es.txt"], ["a", "b", "c"]])
def test_a_wrong_name_is_an_error(folder: Path, what: list[str]) -> None:
    assert RUN.invoke(app, ["data", "check", *what]).exit_code != 0
