"""Names of any bytes, terminals of any encoding, closed streams: no work is lost, and nothing acts on a terminal."""

import codecs
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import refused, run
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import names as fuzzer
from flowsr._support.json import to_json
from flowsr._support.names import output_stem, printable, visible
from flowsr.cli.console import Reporter
from flowsr.cli.tables import Facts
from flowsr.images import write_image
from flowsr.results import csv_table

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name) and name.strip(b"."))


@given(NAMES)
@settings(max_examples=300, deadline=None)
def test_a_name_is_told_in_one_notation_that_can_be_read_back(name):
    told = printable(os.fsdecode(name))
    assert fuzzer.decoded(told) == name
    assert visible(told) == told  # what the console does to all it prints does nothing to names
    assert told.isprintable() or not re.search("[\0-\x1f\x7f-\x9f\u202e\ud800-\udfff]", told)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_shown_and_encoded(text):
    shown = visible(text)
    shown.encode()
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert json.loads(to_json({"text": text})) == {"text": shown}


def test_stems_leave_room_for_endings_and_stay_different():
    long = [Path(letter * (250 // len(letter.encode())) + end + ".png") for letter in ("a", "é", "日") for end in "xy"]
    stems = [output_stem(path) for path in long]
    assert len(set(stems)) == len(stems)
    assert all(len(os.fsencode(f"{stem}_tau1.23457e-05_mean.png")) <= 255 for stem in stems)
    assert all(letter < "\udc80" for stem in stems for letter in stem)  # cut between letters
    assert output_stem(Path("caf\udce9.png")) == "caf\udce9"


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(1)", "\tx", "\rx", "＝1", "'=1", "a;=1", 'a"b', "plain", "'t"]
)
def test_formulas_in_csv_are_texts_and_numbers_numbers(name):
    text = csv_table(["image", "psnr"], [[name, -1.5], ["cat", None]])
    head, row, empty = csv.reader(io.StringIO(text, newline=""))
    assert (head, row[1], empty) == (["image", "psnr"], "-1.5", ["cat", ""])
    assert not re.match(r"[=+\-@\t\r＝]", row[0])
    assert re.sub(r"^'(?='*[=+\-@\t\r＝])", "", row[0]) == name
    # Read with the separator of other countries it is one cell too.
    assert sum(cell.strip('"').startswith("=") for cell in next(csv.reader(text.splitlines()[1:2], delimiter=";"))) == 0


def test_provenance_and_titles_do_not_act_on_the_terminal(capsys):
    reporter = Reporter(quiet=False, json_only=False)
    reporter.result(Facts("\x1b]0;gone\x07", {"made by\x9b": "\x1b[2J\udce9\u202e"}))
    reporter.remark("\x1b[31mred")
    said = "".join(capsys.readouterr())
    assert r"\x1b]0;gone" in said and r"\x1b[2J\xe9\xe2\x80\xae" in said and r"\x1b[31mred" in said
    assert not set(said) & set("\x1b\x07\x9b\u202e")


def test_wrong_words_do_not_act_on_the_terminal():
    for words in (["--\x1b[31m"], ["\x1b[31m"], ["info", "\x1b[31m.png"], ["sample", "a.png", "--\x9b"]):
        result = run(*words)
        assert result.exit_code == 2 and not set(result.output) & set("\x1b\x9b"), words
    assert refused(run("info", "caf\udce9\n.png"), r"caf\xe9\x0a.png does not exist")


@pytest.fixture(scope="module")
def flowsr():
    """A function that runs the command in a process of its own, in a shell."""

    def run_shell(words, **variables):
        command = f"{sys.executable} -m flowsr {words}"
        return subprocess.run(command, shell=True, capture_output=True, env={**os.environ, **variables}, check=False)

    return run_shell


def test_a_real_terminal_of_another_encoding(flowsr):
    found = flowsr("sample --help", PYTHONIOENCODING="ascii")
    assert found.returncode == 0, found.stderr
    assert b"tau >= 0 of the latents" in b" ".join(found.stdout.replace(b"|", b" ").split())


def test_json_stays_json_without_stderr_and_a_full_disk_is_told(flowsr, tmp_path):
    path = tmp_path / "c.png"
    write_image(path, torch.rand(3, 8, 8))
    closed = flowsr(f"info {path} --json 2>&-", PYTHONIOENCODING="cp1252")
    assert closed.returncode == 0 and json.loads(closed.stdout.decode("ascii"))["kind"] == "image"
    full = flowsr("--help >/dev/full")
    assert full.returncode == 2 and full.stderr.count(b"\n") == 1, full.stderr
    assert b"the results could not be printed (No space left on device)" in full.stderr


def test_signs_are_spelt_where_an_encoding_lacks_them():
    from flowsr.cli.console import _spell

    codecs.register_error("flowsr.spell", _spell)
    assert "τ ≥ 0 · é".encode("ascii", "flowsr.spell") == rb"tau >= 0 * \xc3\xa9"
    assert "τ × é".encode("cp1252", "flowsr.spell") == b"tau \xd7 \xe9"


def test_commands_survive_hostile_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    trial = fuzzer.run(seconds=6, seed=0)
    assert not trial.failures, trial
    assert trial.counts.total() >= 3 and trial.counts["done"]


def test_the_fuzzer_sees_what_must_not_be(tmp_path):
    """A fuzzer that never fails shows nothing: each check refuses what it is for."""
    path = tmp_path / "a.png"
    attempt = fuzzer.Attempt(["info"], tmp_path, [path, path], "utf-8", "file", "file")
    wrong = {
        "traceback": fuzzer.Ending(2, b"", b"Traceback (most recent call last)"),
        "no error said": fuzzer.Ending(2, b"", b"out"),
        "printed": fuzzer.Ending(0, b"\x1b[31m", b""),
        "code 1": fuzzer.Ending(1, b"", b""),
    }
    assert all(word in fuzzer.fault(attempt, ending) for word, ending in wrong.items())
    assert fuzzer.fault(attempt, fuzzer.Ending(0, b"fine", b"")) == ""
    (tmp_path / "half.json").write_text('{"a":')
    assert "not whole" in fuzzer.fault(attempt, fuzzer.Ending(0, b"fine", b""))
