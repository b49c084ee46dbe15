"""The picture on the landing page and in the README shows the stored grid as it is."""
from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import first_figure


def test_the_picture_was_drawn_from_the_stored_grid():
    assert first_figure.main(["--check"]) == 0, "run python book/first_figure.py"


def test_another_grid_is_noticed(tmp_path, monkeypatch):
    old = tmp_path / "old.svg"
    old.write_text("<svg></svg><!-- drawn from other rows -->")
    monkeypatch.setattr(first_figure, "TARGET", old)
    monkeypatch.setattr(first_figure, "ROOT", tmp_path)
    assert first_figure.main(["--check"]) == 1


def test_the_picture_reads_on_light_and_dark_pages_and_has_words():
    text = first_figure.TARGET.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.split("<!--")[0])
    assert "labels per class" in root.attrib["aria-label"]
    assert first_figure.INK in text and "currentColor" not in text
