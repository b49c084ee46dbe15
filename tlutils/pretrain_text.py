"""The recipes behind the bundled text minis: masked words, next words, sentence pairs, and a distilled student.

What the four differ in stands in `TextRecipe`; the loop is `training.fit`. Documents are pairs of sentences, written
"[CLS] first [SEP] second [SEP]"; a batch holds documents of one length, so that nothing is padded.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import distillation, mini_transformers, paths, report, text, training, zoo
from .mini_transformers import CLS, MASK, PAD, SEP

IGNORED = -100                  # places whose word is not asked for
MASKED_SHARE = 0.15             # BERT's and RoBERTa's; a recipe may ask for more
TOKENIZER_DOCUMENTS = 20_000
TEST_DOCUMENTS = 1_000


@dataclass(frozen=True)
class TextRecipe:
    """What a text mini learned, from what, and how long.

    objective: "masked" or "next". masks: "static" (each document masked once, before training) or "dynamic" (anew each time).
    pairs: also tell whether the second sentence follows the first (half of them are swapped). documents: so many
    different ones. share: of the tokens that are asked for. teacher: a mini whose every other layer it starts from and whose outputs it learns from.
    """
    model: str
    teaches: str
    objective: str = "masked"
    masks: str = "dynamic"
    pairs: bool = False
    share: float = MASKED_SHARE
    teacher: str | None = None
    documents: int = 64_000
    steps: int = 4000
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0
    variant: str = mini_transformers.DEFAULT_VARIANT
    width: int = mini_transformers.WIDTH
    layers: int | None = None

    @property
    def name(self) -> str:
        """Network and variant, as in the file's name."""
        return f"{self.model}-{self.variant}"


RECIPES = {r.name: r for r in (
    TextRecipe("bert-mini", "fills in masked words (masked once) and tells whether a sentence follows another", masks="static", pairs=True),
    TextRecipe("roberta-mini", "fills in masked words, masked anew each time, on more text in larger batches, without sentence pairs",
               documents=96_000, steps=2400, batch_size=128),
    TextRecipe("gpt-mini", "predicts the next word", objective="next", steps=2400, lr=2e-3),
    TextRecipe("distilbert-mini", "fills in masked words as its teacher bert-mini does, with half the layers", teacher="bert-mini", steps=1600),
)}


# ---------------------------------------------------------------------------- documents as tokens
def make_tokenizer() -> None:
    """Train the tokenizer of the minis on text for pretraining and store it beside the weights."""
    said = (sentence for pair in text.documents(TOKENIZER_DOCUMENTS, seed=-1) for sentence in pair)
    made = mini_transformers.train_tokenizer(said)
    paths.atomic_write(paths.data_dir() / "weights" / mini_transformers.TOKENIZER, made.to_str() + "\n")


def tokens(pairs: list[tuple[str, str]]) -> list[list[int]]:
    """[CLS] first [SEP] second [SEP] for each pair, cut to the window."""
    encoded = mini_transformers.tokenizer()([a for a, _ in pairs], [b for _, b in pairs], truncation=True)
    return encoded["input_ids"]


def swap_half(pairs: list[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[int]]:
    """Half of the second sentences replaced by those of other documents, and for each pair whether it is a true one."""
    generator = torch.Generator().manual_seed(seed)
    true = (torch.rand(len(pairs), generator=generator) < 0.5).int().tolist()
    other = torch.randint(1, len(pairs), (len(pairs),), generator=generator).tolist()
    swapped = [pair if keep else (pair[0], pairs[(i + far) % len(pairs)][1]) for i, (pair, keep, far) in enumerate(zip(pairs, true, other))]
    return swapped, true


def mask_words(x: Tensor, generator: torch.Generator, *, share: float = MASKED_SHARE, vocabulary: int = 1600) -> tuple[Tensor, Tensor]:
    """BERT's masking (Devlin et al. 2019): of the tokens a `share` is asked for; of these 80 % become [MASK], 10 % another
    token, 10 % stay.

    x: (N, L) int64 tokens. Returns the masked copy and the labels (N, L), IGNORED where nothing is asked. Marks ([CLS], [SEP],
    [PAD]) are never asked for; each row is asked for at least one token. Raises ValueError for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share} must lie between 0 and 1")
    words = (x != PAD) & (x != CLS) & (x != SEP)
    draw = torch.rand(x.shape, generator=generator).masked_fill(~words, 2.0)
    asked = (draw < share) | ((draw == draw.min(1, keepdim=True).values) & words)
    kind = torch.rand(x.shape, generator=generator)
    random_words = torch.randint(len(mini_transformers.SPECIAL), vocabulary, x.shape, generator=generator)
    masked = torch.where(asked & (kind < 0.8), MASK, torch.where(asked & (kind >= 0.9), random_words, x))
    return masked, torch.where(asked, x, IGNORED)


class Documents:
    """A stream for `training.fit`: batches of documents of one length; x (N, L) tokens, y (N, L) labels.

    A length is drawn as often as there are documents of it. With pairs, y[:, 0] says whether the second sentence follows.
    """

    def __init__(self, recipe: TextRecipe, seed: int | None = None):
        seed = recipe.seed if seed is None else seed
        pairs, true = text.documents(recipe.documents, seed=seed), None
        if recipe.pairs:
            pairs, true = swap_half(pairs, seed)
        by_length: dict[int, list[int]] = {}
        ids = tokens(pairs)
        for number, row in enumerate(ids):
            by_length.setdefault(len(row), []).append(number)
        self.recipe, generator, self.groups = recipe, torch.Generator().manual_seed(seed), []
        for members in by_length.values():
            x = torch.tensor([ids[i] for i in members])
            y = torch.tensor([true[i] for i in members]) if true else None
            fixed = mask_words(x, generator, share=recipe.share) if recipe.objective == "masked" and recipe.masks == "static" else None
            self.groups.append((x, y, fixed))
        self.sizes = torch.tensor([len(x) for x, _, _ in self.groups], dtype=torch.float)

    def __repr__(self) -> str:
        return f"Documents({self.recipe})"

    def __call__(self, generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        x, true, fixed = self.groups[int(torch.multinomial(self.sizes, 1, generator=generator))]
        index = torch.randint(len(x), (n,), generator=generator)
        if self.recipe.objective == "next":
            return x[index], x[index]
        masked, labels = (fixed[0][index], fixed[1][index]) if fixed else mask_words(x[index], generator, share=self.recipe.share)
        if true is not None:
            labels[:, 0] = true[index]
        return masked, labels


# ---------------------------------------------------------------------------- the model that learns
class Learner(nn.Module):
    """A network with its heads as `training.fit` takes it: tokens (N, L) to hidden states (N, L, width); `loss` does the rest."""

    def __init__(self, net: nn.Module, recipe: TextRecipe, teacher: nn.Module | None = None):
        super().__init__()
        self.net, self.words, self.recipe = net, mini_transformers.Words(net), recipe
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher is not None else []     # in a list: not a part of this module

    def forward(self, x: Tensor):
        hidden = _states(self.net, x)
        if not self._teacher:
            return hidden
        with torch.no_grad():
            return hidden, _states(self._teacher[0], x)

    def loss(self, output, y: Tensor) -> Tensor:
        """Mean over the words asked for; with pairs, plus the sentence-pair loss; with a teacher, DistilBERT's three losses."""
        hidden, taught = output if isinstance(output, tuple) else (output, None)
        if self.recipe.objective == "next":
            return F.cross_entropy(self.words(hidden[:, :-1]).flatten(0, 1), y[:, 1:].flatten())
        asked = (y != IGNORED)
        asked[:, 0] = False
        logits = self.words(hidden[asked])
        value = F.cross_entropy(logits, y[asked])
        if self.recipe.pairs:
            pooled = self.net.bert.pooler(hidden)
            value = value + F.cross_entropy(self.net.cls.seq_relationship(pooled), y[:, 0])
        if taught is not None:      # weights as in the published code: 5 soft targets, 2 masked words, 1 cosine
            soft = distillation.soft_targets(logits, mini_transformers.Words(self._teacher[0])(taught[asked]))
            cosine = distillation.cosine_distance(hidden.flatten(0, 1), taught.flatten(0, 1))
            value = 5 * soft + 2 * value + cosine
        return value


def sentence_types(x: Tensor) -> Tensor:
    """0 for the tokens of the first sentence and its mark, 1 for what follows; x: (N, L) tokens."""
    ends = x == SEP
    return ((ends.cumsum(1) - ends.int()) > 0).long()


def _states(net: nn.Module, x: Tensor) -> Tensor:
    more = {}
    if type(net).__name__ == "BertForPreTraining":
        more["token_type_ids"] = sentence_types(x)
    return mini_transformers.encoder(net)(input_ids=x, **more).last_hidden_state


def student_of(teacher: nn.Module, seed: int = 0) -> nn.Module:
    """A DistilBERT of half the layers that starts from every other layer of a BERT, and from its embeddings and head."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student = mini_transformers.network("distilbert-mini", width=teacher.config.hidden_size, layers=teacher.config.num_hidden_layers // 2)
    state, theirs = student.state_dict(), teacher.state_dict()
    names = {"attention.q_lin": "attention.self.query", "attention.k_lin": "attention.self.key", "attention.v_lin": "attention.self.value",
             "attention.out_lin": "attention.output.dense", "sa_layer_norm": "attention.output.LayerNorm", "ffn.lin1": "intermediate.dense",
             "ffn.lin2": "output.dense", "output_layer_norm": "output.LayerNorm"}
    heads = {"vocab_transform": "cls.predictions.transform.dense", "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
             "vocab_projector": "cls.predictions.decoder"}
    for key in state:
        module, kind = key.rsplit(".", 1)
        if module.startswith("distilbert.embeddings"):
            state[key] = theirs[f"bert{module.removeprefix('distilbert')}.{kind}"]
        elif module.startswith("distilbert.transformer.layer"):
            layer, part = module.removeprefix("distilbert.transformer.layer.").split(".", 1)
            state[key] = theirs[f"bert.encoder.layer.{2 * int(layer)}.{names[part]}.{kind}"]
        else:
            state[key] = theirs[f"{heads[module]}.{kind}"]
    # DistilBERT has no sentence types: type 0 goes into the positions
    state["distilbert.embeddings.position_embeddings.weight"] = (state["distilbert.embeddings.position_embeddings.weight"]
                                                                + theirs["bert.embeddings.token_type_embeddings.weight"][0])
    student.load_state_dict(state)
    return student


def whole_network(name: str, variant: str = mini_transformers.DEFAULT_VARIANT) -> nn.Module:
    """A bundled mini with all its heads, as transformers' class."""
    loaded = zoo.load(name, variant)
    net = mini_transformers.network(name)
    for mine, theirs in ((mini_transformers.encoder(net), loaded.backbone.model), (mini_transformers.Words(net), loaded.head)):
        mine.load_state_dict(theirs.state_dict())
    return net


# ---------------------------------------------------------------------------- training and scores
def learner(recipe: TextRecipe, teacher: nn.Module | None = None) -> Learner:
    """The untrained learner of a recipe, from its seed; a student starts from its teacher's layers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        net = (mini_transformers.network(recipe.model, width=recipe.width, layers=recipe.layers)
               if teacher is None else student_of(teacher, recipe.seed))
    return Learner(net, recipe, teacher)


def pretrain(recipe: TextRecipe, *, teacher: nn.Module | None = None, data: Callable | None = None, **options):
    """Train a recipe's network; returns (learner, history). options go to `training.fit`."""
    model = learner(recipe, teacher)
    data = Documents(recipe) if data is None else data
    history = training.fit(model, data, steps=recipe.steps, lr=recipe.lr, weight_decay=recipe.weight_decay, batch_size=recipe.batch_size,
                           warmup=recipe.steps // 10, clip=1.0, loss=model.loss, seed=recipe.seed, channels_last=False, **options)
    return model, history


def heldout(documents: int = TEST_DOCUMENTS, split: str = "dev") -> list[Tensor]:
    """True pairs of sentences that no recipe was trained on, as tokens grouped by length."""
    by_length: dict[int, list[list[int]]] = {}
    for row in tokens(text.documents(documents, seed=7, split=split)):
        by_length.setdefault(len(row), []).append(row)
    return [torch.tensor(rows) for _, rows in sorted(by_length.items())]


@torch.no_grad()
def score(model: Learner, groups: list[Tensor] | None = None) -> dict[str, float]:
    """Loss per word, perplexity and accuracy on held-out text: of masked words (masks from a fixed seed) or of next words."""
    groups = heldout() if groups is None else groups
    generator, loss, right, n = torch.Generator().manual_seed(11), 0.0, 0, 0
    model.eval()
    for x in groups:
        if model.recipe.objective == "next":
            logits, y = model.words(_states(model.net, x)[:, :-1]).flatten(0, 1), x[:, 1:].flatten()
        else:
            masked, labels = mask_words(x, generator)
            asked = labels != IGNORED
            logits, y = model.words(_states(model.net, masked)[asked]), labels[asked]
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right, n = right + int((logits.argmax(-1) == y).sum()), n + len(y)
    mean = loss / n
    return {"loss": round(mean, 4), "perplexity": round(float(torch.tensor(mean).exp()), 3), "word_accuracy": round(right / n, 4)}


def train(recipe: TextRecipe, *, progress: bool = True) -> dict:
    """Run the recipe, store weights and card, and return the card's entry."""
    started = time.time()
    if not (paths.data_dir() / "weights" / mini_transformers.TOKENIZER).is_file():
        make_tokenizer()
    folder = paths.cache_dir() / "pretrain"
    folder.mkdir(parents=True, exist_ok=True)
    teacher = whole_network(recipe.teacher) if recipe.teacher else None
    model, history = pretrain(recipe, teacher=teacher, checkpoint=folder / f"{recipe.name}.safetensors", checkpoint_every=200, progress=progress)
    scores = {"training_loss_last_100": round(sum(history.losses[-100:]) / len(history.losses[-100:]), 4), **score(model)}
    card = {"recipe": f"python -m tlutils.pretrain {recipe.name}", "teaches": recipe.teaches, "task": "the generated language",
            "objective": recipe.objective, "masks": recipe.masks if recipe.objective == "masked" else None, "sentence_pairs": recipe.pairs,
            "masked_share": recipe.share if recipe.objective == "masked" else None,
            "teacher": recipe.teacher, "documents": recipe.documents, "seed": recipe.seed, "steps": recipe.steps,
            "batch_size": recipe.batch_size, "lr": recipe.lr, "weight_decay": recipe.weight_decay,
            "documents_seen": recipe.steps * recipe.batch_size, "training_seconds": round(history.last["seconds"], 1),
            "seconds": round(time.time() - started, 1), "threads": torch.get_num_threads(),
            "encoder_parameters": mini_transformers.encoder_parameters(model.net), "scores": scores,
            "code": report.code_hash("text", "text_words", "mini_transformers", "training", "loop", "batches", "optim"), **report.environment()}
    zoo.save_bundled(model.net, recipe.model, recipe.variant, card, leave_out=mini_transformers.tied(model.net))
    (folder / f"{recipe.name}.safetensors").unlink(missing_ok=True)
    return card
