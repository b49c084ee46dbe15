"""tlutils.decisions: every advice rests on runs, a run that says otherwise stops it, and the tree reads as text and as picture."""

import re

import pytest
import yaml
from conftest import ROOT

from tlutils import decisions, report
from tlutils.decisions import AdviceContradicted

EVIDENCE = {
    "gain": {"run": "lab/demo", "a": {"method": "new"}, "b": {"method": "old"}, "where": {"labels": 5},
             "says": "new beats old by {effect} points", "see": "part/page"},
}
TREE = {"ask": "How many labels?", "branches": [{"if": "few", "do": "Take <new>", "because": ["gain"], "see": "part/page"},
                                               {"if": "many", "do": "Take old", "because": ["gain"], "see": "part/other"}]}
CARD = [{"situation": "300 images", "do": "Take new", "because": ["gain"], "see": "part/page"}]


@pytest.fixture(autouse=True)
def stored(tmp_path, monkeypatch):
    """A small stored result: at 5 labels `new` is 10, 12 and 14 points ahead of `old`."""
    rows = [{"method": method, "labels": labels, "seed": seed, "accuracy": accuracy}
            for labels in (5, 50) for seed, (old, new) in enumerate([(0.5, 0.6), (0.6, 0.72), (0.4, 0.54)])
            for method, accuracy in (("old", old), ("new", new if labels == 5 else old - 0.1 + 0.01 * seed))]
    monkeypatch.setattr(report, "path", lambda kind, name: tmp_path / kind / f"{name}.json")
    (tmp_path / "lab").mkdir()
    report.save("lab", "demo", rows, started=0.0)


def write(tmp_path, *, evidence=EVIDENCE, tree=TREE, card=CARD):
    file = tmp_path / "decisions.yml"
    file.write_text(yaml.safe_dump({"evidence": evidence, "tree": tree, "card": card}))
    return file


def with_gain(**change):
    return {"gain": EVIDENCE["gain"] | change}


def test_the_number_comes_from_the_run(tmp_path):
    found = decisions.load(write(tmp_path))
    interval = found.evidence["gain"].interval()
    assert interval.mean == pytest.approx(12) and interval.n == 3 and interval.low > 0
    assert found.evidence["gain"].sentence().startswith("new beats old by +12.0 [+")


def test_one_side_alone_gives_its_own_mean(tmp_path):
    evidence = decisions.load(write(tmp_path, evidence=with_gain(b={}))).evidence["gain"]
    assert evidence.interval().mean == pytest.approx(62)
    assert evidence.sentence().startswith("new beats old by 62.0 [")


def test_advice_that_its_run_contradicts_is_refused(tmp_path):
    for change in ({"where": {"labels": 50}}, {"margin": 12.5}, {"sign": "-"}, {"sign": "0", "margin": 1}):
        found = decisions.load(write(tmp_path, evidence=with_gain(**change)))
        with pytest.raises(AdviceContradicted, match="gain: the advice needs"):
            decisions.card(found)
        with pytest.raises(AdviceContradicted):
            decisions.outline(found.tree)


def test_items_that_runs_share_are_counted(tmp_path):
    rows = [{"method": m, "seed": s, "labels": 5, "accuracy": 0.5, "correct": "1100" if m == "old" else "1101"}
            for m in ("old", "new") for s in (0, 1, 2)]
    report.save("lab", "items", rows, started=0.0)
    found = decisions.load(write(tmp_path, evidence=with_gain(run="lab/items"))).evidence["gain"].interval()
    assert found.mean == pytest.approx(25) and not found.excludes_zero       # three equal runs, but one item of four


@pytest.mark.parametrize("change, message", [
    ({"where": {"labls": 5}}, "no column 'labls'"),
    ({"where": {"labels": 7}}, "no rows with labels = 7"),
    ({"a": {"method": "nwe"}}, "no rows with method = 'nwe'.*new"),
    ({"where": {}}, "the same seed; name more columns"),
])
def test_evidence_that_is_not_there_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        decisions.load(write(tmp_path, evidence=with_gain(**change))).evidence["gain"].interval()


@pytest.mark.parametrize("change, message", [
    ({"tree": {"ask": "How?", "branches": TREE["branches"][:1]}}, "fewer than two branches"),
    ({"tree": {"text": "How?"}}, "either ask or do"),
    ({"card": [CARD[0] | {"because": ["gian"]}]}, "rests on 'gian'.*gain"),
    ({"card": [CARD[0] | {"because": []}]}, "rests on nothing"),
    ({"evidence": EVIDENCE | {"idle": EVIDENCE["gain"]}}, "nothing rests on idle"),
    ({"evidence": with_gain(sign="plus")}, "sign 'plus'"),
    ({"evidence": with_gain(unit="points")}, "gain needs run, a, says, see"),
])
def test_a_file_with_a_mistake_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        decisions.load(write(tmp_path, **change))


def test_the_outline_holds_every_question_answer_and_reason(tmp_path):
    shown = decisions.outline(decisions.load(write(tmp_path)).tree)._repr_mimebundle_()
    for words in ("How many labels?", "few", "many", "Take old", "new beats old by +12.0"):
        assert words in shown["text/plain"] and words in shown["text/html"]
    assert "Take &lt;new&gt;" in shown["text/html"] and 'href="../part/other.html"' in shown["text/html"]
    assert shown["text/html"].count("<ul>") == shown["text/html"].count("</ul>")


def test_the_card_has_a_row_for_each_situation(tmp_path):
    shown = decisions.card(decisions.load(write(tmp_path)))
    assert '<th scope="row">300 images</th>' in shown.page and "300 images: Take new" in shown.text


def test_a_page_and_a_place_on_it_are_linked(tmp_path):
    shown = decisions.card(decisions.load(write(tmp_path, card=[CARD[0] | {"see": "part/page#the-rule"}])))
    assert 'href="../part/page.html#the-rule"' in shown.page


def test_the_runs_are_listed_with_the_command_that_repeats_them(tmp_path):
    table = decisions.runs(decisions.load(write(tmp_path)))
    assert table.loc["lab/demo", "repeat with"] == "python -m tlutils.experiments demo"


def test_boxes_of_the_picture_do_not_touch(tmp_path):
    deep = {"ask": "First?", "branches": [TREE | {"if": "yes"}, TREE | {"if": "no, and for a long reason that takes several lines"}]}
    shown = decisions.picture(decisions.load(write(tmp_path, tree=deep)).tree, alt="a tree of two questions with four leaves")
    boxes = [tuple(map(float, b)) for b in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', shown.page)]
    assert len(boxes) == 7 and shown.page.count("<a href") == 4
    for i, (x, y, w, h) in enumerate(boxes):
        for X, Y, W, H in boxes[:i]:
            assert x + w <= X or X + W <= x or y + h <= Y or Y + H <= y
    with pytest.raises(ValueError, match="alt"):
        decisions.picture(decisions.load(write(tmp_path)).tree, alt="tree")


@pytest.mark.skipif(not (ROOT / "data" / "decisions.yml").exists(), reason="no advice is written yet")
def test_all_our_advice_rests_on_runs_and_pages_that_exist(monkeypatch):
    monkeypatch.undo()
    ours = decisions.load()
    for evidence in ours.evidence.values():
        evidence.sentence()
    for advice in (*ours.tree.leaves(), *ours.card):
        assert advice.because
    for see in {e.see for e in ours.evidence.values()} | {a.see for a in (*ours.tree.leaves(), *ours.card)}:
        assert list((ROOT / "chapters").glob(f"{see.partition('#')[0]}.*")), see
