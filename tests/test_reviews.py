"""The reviews written for the book: balanced, different from each other, and not to be told apart by their length."""

import csv
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlutils import datasets, metrics, paths

with (paths.data_dir() / "reviews.csv").open(encoding="utf-8", newline="") as lines:
    ROWS = list(csv.DictReader(lines))
TEXTS = [row["text"] for row in ROWS]
Y = np.array([row["label"] == "positive" for row in ROWS]).astype(int)
FOLDS = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)


def test_domains_and_labels_are_balanced_and_ids_unique():
    counts = Counter((row["domain"], row["label"]) for row in ROWS)
    assert counts == {(domain, label): 80 for domain in datasets.REVIEW_DOMAINS for label in ("negative", "positive")}
    assert len({row["id"] for row in ROWS}) == 800 and all(row["id"].startswith(row["domain"]) for row in ROWS)


def test_length_and_opening_vary():
    words = [len(text.split()) for text in TEXTS]
    assert min(words) >= 10 and max(words) <= 40 and np.std(words) > 5
    openings = Counter(" ".join(re.findall(r"[\w']+", text.lower())[:3]) for text in TEXTS)
    assert openings.most_common(1)[0][1] <= 6, "an opening of three words is used too often"


def test_no_two_reviews_resemble_each_other():
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(TEXTS)
    cosine = (vectors @ vectors.T).toarray() - np.eye(len(TEXTS))
    assert cosine.max() < 0.4
    shared = Counter()
    for text in TEXTS:
        found = re.findall(r"[a-z0-9']+", text.lower())
        shared.update({tuple(found[i : i + 6]) for i in range(len(found) - 5)})
    assert max(shared.values()) == 1, "six words in a row stand in two reviews"


def shape(text: str) -> list[float]:
    """What can be seen without reading: lengths, punctuation, capitals, digits."""
    words = text.split()
    return [len(text), len(words), np.mean([len(w) for w in words]), sum(c.isdigit() for c in text),
            sum(c.isupper() for c in text), *(text.count(c) for c in ".,;:!?\"'-()")]


def test_length_and_punctuation_tell_nothing():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    right = metrics.correct(cross_val_predict(model, np.array([shape(t) for t in TEXTS]), Y, cv=10), Y)
    found = metrics.t_interval(right)
    assert found.low < 0.5 + 0.03 and found.high < 0.57, f"shape alone: {found:.3f}"


def test_words_tell_something_but_not_all():
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=10))
    scores = cross_val_score(model, TEXTS, Y, cv=FOLDS)
    assert 0.65 < scores.mean() < 0.85


def test_parts_share_nothing_and_near_duplicates_stay_together():
    whole = datasets.reviews(seed=3)
    assert len(whole.x_train) == 500 and len(whole.x_test) == 300 and not set(whole.x_train) & set(whole.x_test)
    assert whole.y_train.sum() == 250 and whole.y_test.sum() == 150
    vectors = TfidfVectorizer(sublinear_tf=True).fit(TEXTS)
    across = vectors.transform(whole.x_train) @ vectors.transform(whole.x_test).T
    assert across.max() < datasets.NEAR_DUPLICATE


def test_labels_belong_to_their_texts():
    label = {row["text"]: row["label"] for row in ROWS}
    found = datasets.reviews("apps", seed=1)
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert [found.classes[i] for i in y] == [label[text] for text in x]


def test_a_domain_is_a_slice_of_the_whole():
    whole, parts = datasets.reviews(seed=2), [datasets.reviews(domain, seed=2) for domain in datasets.REVIEW_DOMAINS]
    assert whole.x_test == [text for part in parts for text in part.x_test]
    assert all(len(part.x_test) == 60 and part.y_test.sum() == 30 for part in parts)
    assert whole.x_test != datasets.reviews(seed=4).x_test


def test_the_card_says_who_wrote_them():
    card = datasets.reviews("films").card
    assert "written for this course" in card["what"] and card["licence"].startswith("CC BY 4.0") and card["domain"] == "films"
    assert card["counts"]["test"] == {"negative": 30, "positive": 30}


def test_unknown_domain():
    with pytest.raises(ValueError, match="domain='music': the reviews are about books"):
        datasets.reviews("music")


def test_a_group_is_never_split():
    strata, groups = np.repeat([0, 1], 20), np.arange(40)
    groups[[3, 22, 25]] = 3          # one group over both classes
    for seed in range(5):
        chosen = datasets._grouped_split(strata, groups, test=0.25, seed=seed)
        assert np.bincount(strata[chosen]).tolist() == [5, 5] and len(set(chosen[[3, 22, 25]])) == 1
