"""tlutils.text: the generated language, its labels, its splits, and docstrings of installed libraries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import evaluation, shapes, text, text_words


# ---------------------------------------------------------------------------- words
def test_every_content_word_belongs_to_one_class_alone():
    seen = {}
    for topic, of in text_words.TOPICS.items():
        for kind, members in of.items():
            for word in members:
                assert word not in seen, (word, topic, kind, seen[word])
                seen[word] = (topic, kind)
    for name in ("PRAISE", "BLAME", "WOMEN", "MEN", "ROLES", "DEALINGS", "DEGREES"):
        for word in getattr(text_words, name):
            assert word not in seen, (word, name)
            seen[word] = name


def test_the_vocabulary_is_of_the_size_promised():
    assert 500 <= len(text.vocabulary()) <= 1000
    assert len(text.TOPICS) == 8 and text.unknown_words("the zebra was tasty") == ["zebra"]


# ---------------------------------------------------------------------------- labels, by examples written by hand
@pytest.mark.parametrize(
    "sentence, sentiment",
    [
        ("the soup was tasty", "positive"),
        ("the soup was not tasty", "negative"),
        ("the soup was never very tasty", None),  # "never" takes no degree in this language
        ("the soup was never tasty", "negative"),
        ("the soups near the steak were not really bland", "positive"),
        ("the soup was bland but the bread was crisp", "positive"),
        ("the bread was crisp but the soup was bland", "negative"),
        ("the bread was crisp but the soup was not bland", None),  # "but" joins opposites
        ("although the soup was bland , the bread was crisp", "positive"),
        ("it is not true that the soup was bland", "positive"),
        ("nobody thought that the soup was not bland", "negative"),
        ("the soup was tasty and it is not true that the bread was stale", "positive"),
        ("the film was gripping and the plot was witty so we clapped", "positive"),
        ("the film was corny so we clapped", None),
        ("we left early", "negative"),
    ],
)
def test_sentiment(sentence, sentiment):
    found = text.parse(sentence)
    assert (found and found.sentiment) == sentiment


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_not_flips_a_plain_opinion(seed):
    for sentence in text.SENTIMENT.draw(3, seed=seed)[0]:
        words = sentence.split()
        if {"not", "never", "but", "and", "although", "that"} & set(words):
            continue
        place = next(i for i, word in enumerate(words) if word in ("is", "are", "was", "were"))
        flipped = text.parse(" ".join([*words[: place + 1], "not", *words[place + 1 :]]))
        assert {flipped.sentiment, text.parse(sentence).sentiment} == set(text.SIGNS)


@pytest.mark.parametrize(
    "sentence, kind",
    [
        ("the soup is bland", "opinion"),
        ("the soup are bland", "violated"),
        ("the soup near the steaks is bland", "opinion"),
        ("the soup near the steaks are bland", "violated"),
        ("the bakers near the pilot love the songs", "habit"),
        ("the bakers near the pilot loves the songs", "violated"),
        ("maria cooked the soup before she tasted the bread", "event"),
        ("maria cooked the soup before he tasted the bread", None),
        ("before he tasted the bread , peter cooked the soups", "event"),
        ("a small red striped ring on a green background", "caption"),
        ("the soup was gripping", None),  # a word of another topic
        ("soup the bland was", None),
        ("the zebra was bland", None),
    ],
)
def test_agreement_and_grammar(sentence, kind):
    found = text.parse(sentence)
    assert (found and found.kind) == kind
    assert text.is_sentence(sentence) == (kind not in (None, "violated"))


def test_whom_a_pronoun_means():
    assert text.parse("maria thanked peter because he had cooked the soup").who == "second"
    assert text.parse("maria thanked peter because she had cooked the soup").who == "first"
    assert text.parse("peter thanked maria because she had cooked the soup").who == "second"
    assert text.parse("peter thanked paul because he had cooked the soup") is None  # nobody could tell


# ---------------------------------------------------------------------------- what is drawn
def test_every_sentence_parses_and_the_parse_says_what_the_draw_says():
    said = {"topic": lambda p: p.topic, "sentiment": lambda p: p.sentiment, "reference": lambda p: p.who,
            "acceptability": lambda p: "acceptable" if p.acceptable else "violated"}  # fmt: skip
    for name, task in text.TASKS.items():
        x, y = task.draw(15, seed=3)
        assert torch.equal(y.bincount(), torch.full((len(task.classes),), 15)) and len(set(x)) == len(x)
        for sentence, label in zip(x, y.tolist(), strict=True):
            assert said[name](text.parse(sentence)) == task.classes[label], sentence
            assert not text.unknown_words(sentence)


def test_documents_are_of_the_language_and_go_on_about_the_same():
    pairs = text.documents(300, seed=1)
    assert len(pairs) == 300 and pairs == text.documents(300, seed=1) != text.documents(300, seed=2)
    captions = 0
    for first, second in pairs:
        a, b = text.parse(first), text.parse(second)
        assert a and b and a.acceptable and b.acceptable, (first, second)
        captions += a.kind == "caption"
        if a.topic and b.topic:
            assert a.topic == b.topic
        if a.sentiment and b.sentiment and a.kind != "habit":
            assert a.sentiment == b.sentiment, (first, second)
        if a.kind == "caption":
            assert first.split()[-5] == second.split()[-5] and first.split()[-5] in shapes.SOURCE_SHAPES
    assert captions == 15


def test_text_for_pretraining_holds_no_sentence_of_a_task():
    told = {sentence for pair in text.documents(2000, seed=0) for sentence in pair}
    for task in text.TASKS.values():
        drawn = {}
        for split in ("dev", "target"):
            for part in ("train", "test"):
                drawn[split, part] = set(task.draw(30, seed=0, split=split, part=part)[0])
                assert all(text.split_of(sentence) == split for sentence in drawn[split, part])
                assert not drawn[split, part] & told
        sets = list(drawn.values())
        assert not any(a & b for i, a in enumerate(sets) for b in sets[:i])
    # neither number nor negation moves a sentence to another split
    assert text.split_of("the soup was bland") == text.split_of("the soups are not bland")


def test_a_world_feeds_the_learning_curves():
    draw = text.world(text.SENTIMENT, test_per_class=5)
    x, y, x_test, y_test = draw(2, 0)
    assert len(x) == len(y) == 4 and len(x_test) == len(y_test) == 10
    rows = evaluation.one_draw({"always": lambda x, y, x_test, seed: [1] * len(x_test)}, draw, 2, 0)
    assert rows[0]["accuracy"] == 0.5


@pytest.mark.parametrize("where", ["before", "after"])
def test_clues_stand_where_they_should(where):
    found = text.clues(40, seed=1, where=where)
    assert sum(clue.answer == "he" for clue in found) == 20
    for clue in found:
        words = clue.text.split()
        name = next(i for i, word in enumerate(words) if word in text_words.WOMEN + text_words.MEN)
        assert (name < words.index("[MASK]")) == (where == "before")
        assert (words[name] in text_words.MEN) == (clue.answer == "he")
        assert text.parse(clue.text.replace("[MASK]", clue.answer)).kind == "event"


def test_questions_are_answered_in_the_story():
    for story, question, answer in text.questions(30, seed=2):
        first, second = story.split(" and ")
        clause = first if first.startswith(answer + " ") else second
        assert clause == f"{answer} {question.removeprefix('who ')}"


# ---------------------------------------------------------------------------- bad input
def test_bad_input_gets_one_clear_sentence():
    for call in (lambda: text.parse("  "), lambda: text.split_of("")):
        with pytest.raises(ValueError, match="number 0 is empty"):
            call()
    assert not text.is_sentence("")
    with pytest.raises(TypeError, match="not one string"):
        text.check_texts("the soup")
    with pytest.raises(ValueError, match="texts is empty"):
        text.check_texts([])
    with pytest.raises(ValueError, match="per_class: must be at least 1"):
        text.TOPIC.draw(0, seed=0)
    with pytest.raises(ValueError, match="split='test' is unknown"):
        text.TOPIC.draw(1, seed=0, split="test")
    with pytest.raises(ValueError, match="labelled sentences come from"):
        text.TOPIC.draw(1, seed=0, split="pretraining")
    with pytest.raises(ValueError, match='"before" or "after"'):
        text.clues(1, where="left")


# ---------------------------------------------------------------------------- docstrings
@pytest.fixture
def library(tmp_path, monkeypatch):
    folder = tmp_path / "gardenlib"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        '"""Tools for gardens of every size. They grow\nslowly in the shade.\n\n>>> plant(3)\n\nToo short.\n"""\n'
        'raise RuntimeError("imported")\n'
        "def plant(n):\n"
        '    """Plant so many roses at once.\n\n    n : int\n        how many roses there are.\n    """\n'
    )
    (folder / "broken.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_docstrings_are_read_and_nothing_is_imported(library):
    found = text.docstrings(["gardenlib"])
    assert found == {"gardenlib": ["Tools for gardens of every size.", "They grow slowly in the shade.", "Plant so many roses at once."]}
    assert text.docstrings(["gardenlib"], longest=28) == {"gardenlib": ["Plant so many roses at once."]}


def test_docstrings_of_a_test_task_never_enter_pretraining():
    with pytest.raises(ValueError, match="sklearn: its docstrings are a test task"):
        text.docstrings(["sklearn"], pretraining=True)
    with pytest.raises(FileNotFoundError, match="no_such_library is not installed"):
        text.docstrings(["no_such_library"])
