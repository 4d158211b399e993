"""Checksums against sha256sum itself, and a card that says what was given."""

import shutil
import subprocess

import pytest
import yaml

from ispf_jax.errors import UserError
from ispf_jax.files.card import CARD, SUMS, model_card, verify, write_sums

needs_sha256sum = pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "student"
    directory.mkdir()
    files = [directory / "weights.pt", directory / "odd \\ name\nhere", tmp_path / "model.pt"]
    for i, path in enumerate(files):
        path.write_bytes(bytes([i]) * 1000)
    write_sums(directory, files)
    return directory


@needs_sha256sum
def test_sha256sum_agrees(place):
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3, done.stderr


def test_a_changed_byte_and_a_missing_file_are_named(place):
    names = ("weights.pt", "odd \\ name\nhere", "../model.pt")
    assert verify(place).same == names and verify(place)
    (place / CARD).write_text("a card")
    assert verify(place / CARD).same == verify(place / SUMS).same == names
    content = bytearray((place / "weights.pt").read_bytes())
    content[500] ^= 1
    (place / "weights.pt").write_bytes(content)
    (place.parent / "model.pt").unlink()
    found = verify(place)
    assert not found and (found.changed, found.missing) == (("weights.pt",), ("../model.pt",))
    assert "weights.pt: CHANGED" in str(found)


@pytest.mark.parametrize("text", ["", "no checksum\n", "0123  weights.pt\n"])
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / SUMS).write_text(text)
    with pytest.raises(UserError, match=SUMS):
        verify(tmp_path)


def test_a_card_says_what_was_given():
    text = model_card("A title", ["One.", "Two."], {"forgotten": "a|b"}, {"weights.pt": "0" * 64}, ["ispf"])
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["tags"] == ["machine-unlearning", "data-free", "ispf"]
    for part in ("# A title", "One.", "Two.", "| forgotten | a\\|b |", "0" * 64 + "  weights.pt"):
        assert part in body
