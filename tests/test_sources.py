"""tlutils.sources: every known set states its facts; local copies are found in order."""

import re

import pytest

from tlutils import sources


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", sources.SETS)
def test_facts_are_complete(name):
    source = sources.source(name)
    assert source.what and source.source and source.licence and callable(source.read)
    assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    if source.archive:
        url, sha256, top = source.archive
        assert url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", sha256)
        assert top in (source.folder, *source.aliases), "what is fetched must be found the next time"


def test_named_folders_go_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_DATA", str(tmp_path / "mine"))
    source = sources.source("pacs")
    assert sources.find(source, None) is None
    (tmp_path / "cache" / "data" / "pacs").mkdir(parents=True)
    assert sources.find(source, None) == tmp_path / "cache" / "data" / "pacs"
    (tmp_path / "mine" / "pacs").mkdir(parents=True)
    assert sources.find(source, None) == tmp_path / "mine" / "pacs"


def test_what_is_not_there_and_not_public(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_DATA", str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError) as error:
        sources.fetch("pacs", sources.source("pacs"), None)
    for part in ("Homework3-PACS", str(tmp_path / "mine"), str(tmp_path / "cache" / "data" / "pacs"), "TLUTILS_DATA"):
        assert part in str(error.value)
