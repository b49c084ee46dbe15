"""The text world: a generated language that a small network learns in minutes, the counterpart of the shapes world.

A grammar makes every sentence, and the same grammar reads it back (`parse`), so each has a topic, a sentiment (negation,
"but" and "although" count), agreement in number, and people whom a pronoun means. Sentences are lower-case, without a
full stop: "the soups near the kitchen were not really bland but the bread was fresh". Each belongs to one split by its
content words: no sentence of a labelled task, nor one with the same content words, is ever in the text for pretraining.
"""
from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import util
from pathlib import Path

import torch
from torch import Tensor

from . import shapes
from . import text_words as words

TOPICS = tuple(words.TOPICS)
SIGNS = ("negative", "positive")
SPLITS = {"pretraining": range(0, 14), "dev": range(14, 17), "target": range(17, 20)}     # of 20 equal parts
PARTS = {"train": (0, 1), "test": (2,)}                                                  # of the three of dev and target
HELD_OUT_LIBRARIES = ("sklearn", "scipy", "pandas", "matplotlib", "networkx", "torchvision")
_OTHER = {"positive": "negative", "negative": "positive", "sg": "pl", "pl": "sg", "f": "m", "m": "f"}
_PRONOUN = {"f": "she", "m": "he"}


# ---------------------------------------------------------------------------- the grammar
def _word_classes() -> dict[str, tuple[str, ...]]:
    found = {"name.f": words.WOMEN, "name.m": words.MEN, "role.sg": words.ROLES, "role.pl": tuple(w + "s" for w in words.ROLES),
             "feel.sg": words.FEELINGS["singular"], "feel.pl": words.FEELINGS["plural"], "deal": words.DEALINGS,
             "degree": words.DEGREES, "be.sg": ("is", "was"), "be.pl": ("are", "were"), "near": ("near", "beside")}
    for topic, of in words.TOPICS.items():
        found |= {f"noun.{topic}.sg": of["noun"], f"noun.{topic}.pl": tuple(w + "s" for w in of["noun"]), f"verb.{topic}": of["verb"],
                  f"adj.{topic}.positive": of["pos"] + words.PRAISE, f"adj.{topic}.negative": of["neg"] + words.BLAME}
    return found


CLASSES = _word_classes()


def _rules_of_a_topic(t: str) -> dict[str, list[tuple[float, str]]]:
    """The rules of one topic: symbol -> (weight, symbols, word classes and words)."""
    rules = {f"who.{t}": [(2, "name.f"), (2, "name.m"), (1, "the role.sg")]}
    for n in ("sg", "pl"):
        rules[f"things.{t}.{n}"] = [(4, f"the noun.{t}.{n}"), (1, f"the noun.{t}.{n} near the noun.{t}.{_OTHER[n]}")]
        rules[f"people.{n}"] = [(3, f"the role.{n}"), (1, f"the role.{n} near the role.{_OTHER[n]}")]
        rules[f"habit.{t}.{n}"] = [(1, f"people.{n} feel.{n} the noun.{t}.{m}") for m in ("sg", "pl")]
        for verb in ("sg", "pl"):        # good when the numbers agree
            rules[f"{'good' if n == verb else 'bad'}.{t}.{n}"] = [
                (1, f"things.{t}.{n} be.{verb} how.{t}.{s}") for s in SIGNS] + [
                (1, f"people.{n} feel.{verb} the noun.{t}.{m}") for m in ("sg", "pl")]
    rules[f"habit.{t}"] = [(1, f"habit.{t}.{n}") for n in ("sg", "pl")]
    for quality in ("good", "bad"):
        rules[f"{quality}.{t}"] = [(1, f"{quality}.{t}.{n}") for n in ("sg", "pl")]
    for s in SIGNS:
        o = _OTHER[s]
        rules[f"how.{t}.{s}"] = [(6, f"adj.{t}.{s}"), (4, f"degree adj.{t}.{s}"), (2, f"not adj.{t}.{o}"), (1, f"not degree adj.{t}.{o}"),
                                 (0.5, f"never adj.{t}.{o}")]
        rules[f"claim.{t}.{s}"] = [(1, f"things.{t}.{n} be.{n} how.{t}.{s}") for n in ("sg", "pl")]
        rules[f"scope.{t}.{s}"] = [(1, f"{phrase} claim.{t}.{o}")
                                   for phrase in ("it is not true that", "nobody thought that", "i do not think that")]
        rules[f"last.{t}.{s}"] = [(9, f"claim.{t}.{s}"), (1, f"scope.{t}.{s}")]
        rules[f"opinion.{t}.{s}"] = [(4, f"last.{t}.{s}"), (3, f"claim.{t}.{s} and last.{t}.{s}"), (2, f"claim.{t}.{o} but last.{t}.{s}"),
                                     (0.5, f"although claim.{t}.{o} , claim.{t}.{s}")]
        rules[f"then.{s}"] = [(1, phrase) for phrase in (words.GLAD if s == "positive" else words.SORRY)]
        rules[f"story.{t}.{s}"] = [(1, f"opinion.{t}.{s} so then.{s}"), (1, f"opinion.{t}.{s} and then.{s}")]
        rules[f"again.{t}.{s}"] = [(1, f"{'it' if n == 'sg' else 'they'} be.{n} also how.{t}.{s}") for n in ("sg", "pl")]
        pairs = [(2, f"opinion.{t}.{s} | opinion.{t}.{s}"), (2, f"opinion.{t}.{s} | then.{s}"), (1, f"then.{s} | opinion.{t}.{s}"),
                 (2, f"story.{t}.{s} | opinion.{t}.{s}"), (1, f"event.{t} | opinion.{t}.{s}"), (1, f"reference.{t} | opinion.{t}.{s}")]
        rules[f"pair.{t}.{s}"] = pairs + [
            (1, f"the noun.{t}.{n} be.{n} how.{t}.{s} | {'it' if n == 'sg' else 'they'} be.{n} also how.{t}.{s}") for n in ("sg", "pl")]
    events, lone = [], []
    for g, he in _PRONOUN.items():
        did, doing, named, other = f"verb.{t} the noun.{t}.sg", f"verb.{t} the noun.{t}.pl", f"name.{g}", f"name.{_OTHER[g]}"
        rules[f"did.{t}"] = [(1, did), (1, doing)]
        rules[f"clue.before.{g}.{t}"] = [(1, f"{named} did.{t} before {he} did.{t}"), (1, f"{named} did.{t} when {he} had time")]
        rules[f"clue.after.{g}.{t}"] = [(1, f"before {he} did.{t} , {named} did.{t}"), (1, f"when {he} had time , {named} did.{t}")]
        events += [(1, f"clue.before.{g}.{t}"), (1, f"clue.after.{g}.{t}")]
        lone.append((1, f"{named} did.{t} | {he} also did.{t}"))
        rules[f"refers.first.{g}.{t}"] = [(2, f"{named} deal {other} because {he} had did.{t}"), (1, f"{named} deal {other} when {he} did.{t}")]
        rules[f"refers.second.{g}.{t}"] = [(2, f"{other} deal {named} because {he} had did.{t}"), (1, f"{other} deal {named} when {he} did.{t}")]
    rules[f"event.{t}"] = [(2, f"who.{t} did.{t}"), (1, f"who.{t} did.{t} and who.{t} did.{t}"), *events]
    for which in ("first", "second"):
        rules[f"refers.{which}.{t}"] = [(1, f"refers.{which}.{g}.{t}") for g in "fm"]
    rules[f"reference.{t}"] = [(1, f"refers.{which}.{t}") for which in ("first", "second")]
    rules[f"told.{t}"] = [(2, f"event.{t}"), (1, f"habit.{t}"), (1, f"claim.{t}.positive"), (1, f"claim.{t}.negative")]
    rules[f"document.{t}"] = [(3, f"pair.{t}.{s}") for s in SIGNS] + [
        (1, f"event.{t} | event.{t}"), (1, f"habit.{t} | event.{t}"), (1, f"reference.{t} | event.{t}"), *lone]
    return rules


RULES = {symbol: alternatives for t in TOPICS for symbol, alternatives in _rules_of_a_topic(t).items()}
RULES["document"] = [(1, f"document.{t}") for t in TOPICS]
_BODIES = {symbol: [tuple(body.split()) for _, body in alternatives] for symbol, alternatives in RULES.items()}
_WEIGHTS = {symbol: [weight for weight, _ in alternatives] for symbol, alternatives in RULES.items()}


def _expand(symbol: str, rng: random.Random, out: list[str]) -> None:
    """Append the words of one random expansion of a symbol."""
    if symbol in _BODIES:
        for part in rng.choices(_BODIES[symbol], _WEIGHTS[symbol])[0]:
            _expand(part, rng, out)
    else:
        out.append(rng.choice(CLASSES[symbol]) if symbol in CLASSES else symbol)


def _sentences(symbol: str, rng: random.Random, buckets: range | tuple[int, ...]) -> Iterator[str]:
    """Endless sentences of a symbol whose content words fall into `buckets`."""
    while True:
        out: list[str] = []
        _expand(symbol, rng, out)
        said = " ".join(out)
        if all(_bucket(part) in buckets for part in said.split(" | ") if _content(part)):
            yield said


# ---------------------------------------------------------------------------- words and splits
@lru_cache(maxsize=None)
def vocabulary() -> tuple[str, ...]:
    """All words of the language, in alphabetical order (those of the captions are in it)."""
    said = {word for bodies in _BODIES.values() for body in bodies for part in body
            for word in ([part] if part not in _BODIES and part not in CLASSES else CLASSES.get(part, ()))} - {"|"}
    scenes = " ".join((*shapes.SIZES, *shapes.COLOURS, *shapes.TEXTURES, *shapes.SHAPES, "a on background"))
    return tuple(sorted(said | set(scenes.split())))


@lru_cache(maxsize=None)
def _lemmas() -> dict[str, str]:
    """Content words -> the form that counts for the split (singular)."""
    found = {}
    for name, members in CLASSES.items():
        if name.split(".")[0] in ("noun", "role", "adj", "verb", "name"):
            found |= {word: word[:-1] if name.endswith(".pl") else word for word in members}
    return found


def _content(sentence: str) -> list[str]:
    lemmas = _lemmas()
    return sorted(lemmas[word] for word in sentence.split() if word in lemmas)


def _bucket(sentence: str) -> int:
    digest = hashlib.blake2b(" ".join(_content(sentence)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 20


def split_of(sentence: str) -> str:
    """The split that a sentence belongs to, by its content words alone: "pretraining", "dev" or "target"."""
    check_texts([sentence])
    bucket = _bucket(sentence)
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def unknown_words(sentence: str) -> list[str]:
    """The words of a sentence that are not of the language, in their order."""
    known = set(vocabulary())
    return [word for word in sentence.split() if word not in known]


def check_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list. Raises TypeError for anything but strings, ValueError for none or an empty one (which)."""
    if isinstance(texts, str):
        raise TypeError("texts: give a list of sentences, not one string")
    texts = list(texts)
    if not texts:
        raise ValueError("texts is empty: give at least one sentence")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts: number {number} is a {type(text).__name__}, not a string")
        if not text.strip():
            raise ValueError(f"texts: number {number} is empty; give it at least one word, or leave it out")
    return texts


# ---------------------------------------------------------------------------- reading sentences
@dataclass(frozen=True)
class Parsed:
    """What the grammar finds in a sentence; None where a sentence of this kind says nothing about it.

    kind: "opinion", "story", "event", "habit", "reference", "caption" or "violated" (agreement broken). who: "first" or
    "second" of the two people named.
    """
    kind: str
    topic: str | None = None
    sentiment: str | None = None
    acceptable: bool = True
    who: str | None = None


def _starts() -> Iterator[tuple[str, Parsed]]:
    for t in TOPICS:
        for s in SIGNS:
            yield f"opinion.{t}.{s}", Parsed("opinion", t, s)
            yield f"story.{t}.{s}", Parsed("story", t, s)
            yield f"again.{t}.{s}", Parsed("opinion", t, s)
        for kind in ("event", "habit"):
            yield f"{kind}.{t}", Parsed(kind, t)
        yield from ((f"also.{g}.{t}", Parsed("event", t)) for g in "fm")
        yield from ((f"refers.{which}.{t}", Parsed("reference", t, who=which)) for which in ("first", "second"))
        yield f"bad.{t}", Parsed("violated", t, acceptable=False)
    yield from ((f"then.{s}", Parsed("story", None, s)) for s in SIGNS)


_BODIES |= {f"also.{g}.{t}": [(he, "also", f"did.{t}")] for t in TOPICS for g, he in _PRONOUN.items()}
STARTS = tuple(_starts())
_CAPTION = re.compile(rf"a ({'|'.join(shapes.SIZES)}) ({'|'.join(shapes.COLOURS)}) (?:({'|'.join(shapes.TEXTURES)}) )?"
                      rf"({'|'.join(shapes.SHAPES)}) on a ({'|'.join(shapes.COLOURS)}) background")
_OF_EVERY_TOPIC = frozenset(words.PRAISE + words.BLAME)
_MEMBERS = {name: frozenset(members) for name, members in CLASSES.items()}


def parse(sentence: str) -> Parsed | None:
    """What the grammar makes of a sentence, or None if it is not of the language. Raises ValueError for an empty one."""
    check_texts([sentence])
    said, memo = tuple(sentence.split()), {}
    if _CAPTION.fullmatch(sentence):
        return Parsed("caption")
    found = next((found for symbol, found in STARTS if len(said) in _ends(symbol, 0, said, memo)), None)
    # "it was also good" fits every topic
    return replace(found, topic=None) if found and said[2:3] == ("also",) and said[-1] in _OF_EVERY_TOPIC else found


def _ends(symbol: str, start: int, said: tuple[str, ...], memo: dict) -> frozenset[int]:
    """Where an expansion of the symbol that starts at word `start` can end."""
    if symbol not in _BODIES:
        fits = start < len(said) and said[start] in _MEMBERS.get(symbol, (symbol,))
        return frozenset((start + 1,)) if fits else frozenset()
    if (symbol, start) not in memo:
        found: set[int] = set()
        for body in _BODIES[symbol]:
            ends = {start}
            for part in body:
                ends = {end for begin in ends for end in _ends(part, begin, said, memo)}
                if not ends:
                    break
            found |= ends
        memo[symbol, start] = frozenset(found)
    return memo[symbol, start]


def is_sentence(sentence: str) -> bool:
    """Whether a sentence is of the language, with its agreement right: the measure of what a language model writes."""
    found = parse(sentence) if sentence.strip() else None
    return found is not None and found.acceptable


# ---------------------------------------------------------------------------- text for pretraining, and tasks
def documents(n: int, *, seed: int = 0, split: str = "pretraining") -> list[tuple[str, str]]:
    """n pairs of a sentence and the one that follows it: same topic, same sentiment, people and things taken up again.

    One in twenty is a pair of captions of the same shape in the shapes world (source shapes only, in pretraining).
    """
    rng, buckets = _rng(seed, f"documents {split}"), _buckets(split)
    stream, scenes, found = _sentences("document", rng, buckets), iter(()), []
    if n >= 20:
        scenes = iter(_captions(2 * (n // 20), rng))
    for number in range(n):
        pair = (next(scenes), next(scenes)) if number % 20 == 19 else tuple(next(stream).split(" | "))
        found.append(pair)
    return found


def _captions(n: int, rng: random.Random) -> list[str]:
    """Captions of the shapes world, two by two of the same shape."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    shape = torch.randint(len(shapes.SOURCE_SHAPES), (n // 2,), generator=generator).repeat_interleave(2)
    colour = torch.randint(len(shapes.COLOURS), (n,), generator=generator)
    captions = shapes.caption(shapes.sample(shape, colour, generator=generator))
    pairs = [captions[i:i + 2] for i in range(0, n, 2)]
    rng.shuffle(pairs)
    return [said for pair in pairs for said in pair]


def _rng(seed: int, purpose: str) -> random.Random:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _buckets(split: str, part: str | None = None) -> range | tuple[int, ...]:
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown: use one of {', '.join(SPLITS)}")
    if part is None:
        return SPLITS[split]
    if split == "pretraining" or part not in PARTS:
        raise ValueError(f"split={split!r}, part={part!r}: labelled sentences come from \"dev\" or \"target\", part \"train\" or \"test\"")
    return tuple(SPLITS[split][i] for i in PARTS[part])


@dataclass(frozen=True)
class Task:
    """A labelled task of the text world: its classes, and for each the symbols of the grammar that it is drawn from."""
    name: str
    classes: tuple[str, ...]
    symbols: tuple[tuple[str, ...], ...]

    def draw(self, per_class: int, *, seed: int, split: str = "target", part: str = "train") -> tuple[list[str], Tensor]:
        """Sentences and their classes, (per_class x classes) of them, each sentence once; shuffled by the seed.

        split, part: "dev" or "target", "train" or "test"; no two of the four share a sentence, nor one with the text for
        pretraining. Raises ValueError for a wrong name or per_class < 1.
        """
        if per_class < 1:
            raise ValueError(f"per_class: must be at least 1, got {per_class}")
        rng, buckets = _rng(seed, f"{self.name} {split} {part}"), _buckets(split, part)
        drawn: dict[str, int] = {}
        for label, symbols in enumerate(self.symbols):
            streams = [_sentences(symbol, rng, buckets) for symbol in symbols]
            target = len(drawn) + per_class
            while len(drawn) < target:
                drawn.setdefault(next(rng.choice(streams)), label)
        order = list(drawn.items())
        rng.shuffle(order)
        return [said for said, _ in order], torch.tensor([label for _, label in order])


def _every_topic(*patterns: str) -> tuple[str, ...]:
    return tuple(pattern.format(t) for t in TOPICS for pattern in patterns)


TOPIC = Task("topic", TOPICS, tuple((f"told.{t}",) for t in TOPICS))
SENTIMENT = Task("sentiment", SIGNS, tuple(_every_topic(f"opinion.{{}}.{s}") for s in SIGNS))
ACCEPTABILITY = Task("acceptability", ("violated", "acceptable"), (_every_topic("bad.{}"), _every_topic("good.{}")))
REFERENCE = Task("reference", ("first", "second"), tuple(_every_topic(f"refers.{which}.{{}}") for which in ("first", "second")))
TASKS = {task.name: task for task in (TOPIC, SENTIMENT, ACCEPTABILITY, REFERENCE)}


def world(task: Task, *, split: str = "target", test_per_class: int = 100) -> Callable:
    """Draws for `evaluation.learning_curve`: (labels_per_class, seed) -> fresh training and test sentences with labels."""
    def draw(labels_per_class: int, seed: int):
        return (*task.draw(labels_per_class, seed=seed * 1000 + labels_per_class, split=split),
                *task.draw(test_per_class, seed=seed, split=split, part="test"))
    return draw


# ---------------------------------------------------------------------------- clues and questions
@dataclass(frozen=True)
class Clue:
    """A sentence with a gap ("[MASK]"), the word that belongs there, and the two that come into question."""
    text: str
    answer: str
    options: tuple[str, str] = ("he", "she")


def clues(n: int, *, seed: int = 0, where: str = "before") -> list[Clue]:
    """Gaps for "he" or "she" whose only clue, a name, stands before the gap or after it (half of each answer)."""
    if where not in ("before", "after"):
        raise ValueError(f'where={where!r}: the clue stands "before" or "after" the gap')
    rng, buckets = _rng(seed, f"clues {where}"), _buckets("target")
    streams = {g: [_sentences(f"clue.{where}.{g}.{t}", rng, buckets) for t in TOPICS] for g in "fm"}
    found = []
    for number in range(n):
        g = "fm"[number % 2]
        said = next(rng.choice(streams[g])).split()
        said[said.index(_PRONOUN[g])] = "[MASK]"
        found.append(Clue(" ".join(said), _PRONOUN[g]))
    return found


def questions(n: int, *, seed: int = 0, split: str = "target", part: str = "train") -> list[tuple[str, str, str]]:
    """(story, question, answer): two people did two things; "who baked the cakes" is answered by a name in the story.

    The one asked for is the first or the second with equal chance, so that guessing one of them is right half the time.
    """
    rng, buckets = _rng(seed, f"questions {split} {part}"), _buckets(split, part)
    found = []
    while len(found) < n:
        t = rng.choice(TOPICS)
        first, second = rng.sample(words.WOMEN + words.MEN, 2)
        done: list[list[str]] = [[], []]
        for out in done:
            _expand(f"did.{t}", rng, out)
        which = rng.randrange(2)
        story = f"{first} {' '.join(done[0])} and {second} {' '.join(done[1])}"
        if done[0] != done[1] and _bucket(story) in buckets:
            found.append((story, f"who {' '.join(done[which])}", (first, second)[which]))
    return found


# ---------------------------------------------------------------------------- docstrings
def docstrings(libraries: Iterable[str], *, longest: int = 200, pretraining: bool = False) -> dict[str, list[str]]:
    """Sentences of the docstrings of installed libraries, by library; read from their files, nothing is imported.

    longest: characters; longer ones and those under four words are left out. pretraining=True refuses HELD_OUT_LIBRARIES,
    whose docstrings are a test task. Raises ValueError for these, FileNotFoundError for a library that is not installed.
    """
    found = {}
    for library in libraries:
        if pretraining and library in HELD_OUT_LIBRARIES:
            raise ValueError(f"{library}: its docstrings are a test task and never enter pretraining; choose another library")
        spec = util.find_spec(library)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"{library} is not installed as a package: pip install it, or leave it out")
        said = dict.fromkeys(sentence for file in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py"))
                             for text in _docs(file) for sentence in sentences(text) if len(sentence) <= longest)
        found[library] = list(said)
    return found


def _docs(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8", errors="ignore"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def sentences(text: str) -> list[str]:
    """The prose sentences of a docstring: paragraphs without code, lists and tables, cut at full stops; four words or more."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r"^\s*(>>>|\.\.|[-=~^*]{3,}|[-*+] |:\w+|\w+ ?: )", paragraph, re.M) or "::" in paragraph:
            continue
        for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if part.endswith((".", "!", "?")) and len(part.split()) >= 4:
                found.append(part)
    return found
