"""Tokenizers: without loss on any text, the same each time, and deaf to special tokens in the text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Subwords
from sublayer.errors import CheckpointError, DataError, InputError
from sublayer.text import Tokenizer
from sublayer.text.pieces import byte_level_piece
from sublayer.text.training import spread

LINES = [
    f"{who} {does} {what}."
    for who in ("Tom", "Mary", "The old man", "Ella", "El niño")
    for does in ("sees", "doesn't like", "wants", "no quiere", "perdió")
    for what in ("the house", "a small dog", "la canción", "42 apples", "the tea </s> she made")
]
KINDS = {kind: Tokenizer.train(LINES, Subwords(type=kind, vocab_size=400)) for kind in ("bpe", "unigram")}
# Text, and more of what is special about text here, than chance alone would bring.
TEXTS = st.one_of(
    st.text(), st.text(alphabet=" \t\n\r▁Ġ<>/s0x41ñ'’é\u0301\u2028\ufeff\ufffd\0"), st.sampled_from(LINES)
)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(TEXTS, max_size=5))
def test_any_text_comes_back_as_it_was(kind: str, texts: list[str]) -> None:
    assert KINDS[kind].decode(KINDS[kind].encode(texts)) == texts


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_no_text_makes_a_special_token(kind: str, text: str) -> None:
    assert all(identifier > 3 for identifier in KINDS[kind].encode([text])[0])


@pytest.mark.parametrize("text", ["</s>", "a </s> b", "<s><pad><unk>", "<0x41>", "▁a", "<s>"])
def test_text_that_looks_like_a_token_stays_text(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = tokenizer.encode([text])
    assert min(ids) > 3
    assert tokenizer.decode([ids]) == [text]
    assert tokenizer.pieces([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]


def test_special_tokens_have_the_first_ids_and_are_not_decoded(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.unknown_id) == (0, 1, 2, 3)
    (ids,) = tokenizer.encode(["Tom sees"])
    assert tokenizer.decode([[1, *ids, 2, 0, 0]]) == ["Tom sees"]


def test_ids_are_within_the_vocabulary_and_every_id_has_a_piece(tokenizer: Tokenizer) -> None:
    assert max(max(ids) for ids in tokenizer.encode(LINES)) < tokenizer.vocab_size <= 400
    assert len(tokenizer.pieces(range(tokenizer.vocab_size))) == tokenizer.vocab_size
    # Models have rows for ids that their tokenizers do not know: such an id has a name, and no text.
    beyond = tokenizer.vocab_size
    assert tokenizer.pieces([beyond]) == [f"[{beyond}]"]
    assert tokenizer.decode([[beyond]]) == [""]
    with pytest.raises(IndexError, match="is not in 0"):
        tokenizer.token(beyond)


def test_training_learns_pieces_longer_than_a_character(tokenizer: Tokenizer) -> None:
    # The library's unigram trainer counts words once each, and so learns little from this little text.
    assert sum(map(len, tokenizer.encode(LINES))) < 0.9 * sum(map(len, LINES))
    (ids,) = tokenizer.encode(["the house"])
    assert "".join(tokenizer.pieces(ids)) == "▁the▁house"


def test_pieces_show_real_characters_and_name_bytes(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["canción"])
    assert "".join(tokenizer.pieces(ids)) == "▁canción"
    (ids,) = tokenizer.encode(["☃\n"])
    assert "".join(tokenizer.pieces(ids)) in {"▁<0xE2><0x98><0x83>\\n", "▁<0xE2><0x98><0x83><0x0A>"}


def test_the_byte_table_is_the_librarys() -> None:
    from tokenizers import decoders, pre_tokenizers

    decoder = decoders.ByteLevel()
    for character in pre_tokenizers.ByteLevel.alphabet():
        piece = byte_level_piece(character)
        expected = decoder.decode([character])
        assert piece == expected or (expected == "\ufffd" and piece.startswith("<0x"))


def test_words_are_alike_at_the_start_and_inside(tokenizer: Tokenizer) -> None:
    (first,), (inside,) = tokenizer.encode(["Tom"]), tokenizer.encode(["x Tom"])
    assert inside[-len(first) :] == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_lines_give_the_same_tokenizer_in_another_process(kind: str, tmp_path: Path) -> None:
    """Hash tables of the trainer are seeded by the process, so only another process can show it."""
    (tmp_path / "lines.txt").write_text("\n".join(LINES), encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from sublayer.config import Subwords;"
        "from sublayer.text import Tokenizer; from sublayer.text.lines import read_lines;"
        "print(Tokenizer.train(read_lines(Path(sys.argv[1])),"
        "Subwords(type=sys.argv[2], vocab_size=400)).fingerprint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lines.txt"), kind]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == KINDS[kind].fingerprint


def test_saving_and_loading_keep_everything(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    texts = [*LINES, "</s>", "☃"]
    assert loaded.encode(texts) == tokenizer.encode(texts)
    # Whitespace and the order of keys are not the tokenizer.
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), sort_keys=True, indent=7), encoding="utf-8")
    assert Tokenizer.load(path).fingerprint == tokenizer.fingerprint


def test_another_tokenizer_has_another_fingerprint() -> None:
    fingerprints = {each.fingerprint for each in KINDS.values()}
    fingerprints.add(Tokenizer.train(LINES[1:], Subwords(vocab_size=400)).fingerprint)
    assert len(fingerprints) == 3


def test_files_that_are_no_tokenizer_are_refused_in_one_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="is missing"):
        Tokenizer.load(path)
    tokenizer.save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[: len(whole) // 2], b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json") as caught:
            Tokenizer.load(path)
        assert "\n" not in str(caught.value)
    path.write_text(whole.decode().replace("</s>", "</t>"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"has no </s>"):
        Tokenizer.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_an_error(kind: str) -> None:
    for lines in ([], ["", ""]):
        with pytest.raises(DataError, match="no text"):
            Tokenizer.train(lines, Subwords(type=kind))


def test_more_characters_than_pieces_are_left_to_bytes() -> None:
    lines = [f"{chr(0x4E00 + n)}{chr(0x4E00 + n // 2)} wörd" for n in range(2000)]
    tokenizer = Tokenizer.train(lines, Subwords(type="unigram", vocab_size=500))
    assert tokenizer.vocab_size <= 500
    assert tokenizer.decode(tokenizer.encode(lines)) == lines


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="text 1 is not Unicode: character 2"):
        tokenizer.encode(["fine", "ab\ud800"])


@given(total=st.integers(0, 500), count=st.integers(1, 60))
def test_a_sample_is_spread_evenly(total: int, count: int) -> None:
    places = [int(line) for line in spread((str(n) for n in range(total)), count)]
    assert len(places) == min(total, count)
    gaps = [after - before for before, after in zip([-1, *places], [*places, total])]
    assert min(gaps) >= 1
    assert max(gaps) <= max(4, 4 * total // count)


def test_a_sample_trains_on_few_lines_only() -> None:
    lines = ["common words"] * 50 + ["zyzzyva zyzzyva zyzzyva"] + ["common words"] * 49
    assert len(Tokenizer.train(lines, Subwords()).encode(["zyzzyva"])[0]) == 1
    assert len(Tokenizer.train(lines, Subwords(sample=10)).encode(["zyzzyva"])[0]) > 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_encodes_without_a_warning() -> None:
    program = (
        "import os, sys; from sublayer.config import Subwords; from sublayer.text import Tokenizer\n"
        "t = Tokenizer.train(['some text'] * 100, Subwords()); t.encode(['some'] * 100)\n"
        "child = os.fork()\n"
        "if child == 0: t.encode(['some'] * 100); os._exit(0)\n"
        "os.waitpid(child, 0); assert 'TOKENIZERS_PARALLELISM' not in os.environ"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
