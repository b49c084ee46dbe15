"""BERT, RoBERTa, GPT and DistilBERT in miniature: transformers' own classes with small configs, and one tokenizer.

All four read the same WordPiece tokens (real RoBERTa and GPT-2 have byte-level BPE of their own), so that they differ in
what they learn from, not in how they spell. Position 0 of a text is [CLS], its last token [SEP]; for the GPT these mark
beginning and end. Nothing drops out: the networks are too small for the text to be learned by heart.
"""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import paths
from . import weights as weight_files
from .transformer_backbones import TextBackbone, check_texts

WINDOW = 64                     # tokens, marks included; longer texts are cut with a warning
TOKENIZER = "text-mini-tokenizer.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
WIDTH, HEADS, LAYERS = 128, 4, 4
NETWORKS = ("bert-mini", "roberta-mini", "gpt-mini", "distilbert-mini")
DEFAULT_VARIANT = "text"


# ---------------------------------------------------------------------------- tokenizer
@lru_cache(maxsize=4)
def _tokenizer_text(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: get it from the repository again, or run python -m tlutils.pretrain bert-mini-text")
    return file.read_text(encoding="utf-8")


def tokenizer(name: str = "bert-mini", folder: Path | None = None):
    """The minis' tokenizer as a fast tokenizer of transformers: WordPiece, trained on the generated language alone.

    A word that it does not know is split into pieces that it knows; a letter that it never saw becomes [UNK].
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = (paths.data_dir() / "weights" if folder is None else Path(folder)) / TOKENIZER
    named = {key: f"[{key.split('_')[0].upper()}]" for key in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")}
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if name == "bert-mini" else [])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_tokenizer_text(file)), model_max_length=WINDOW, padding_side="right",
                                   model_input_names=inputs, **named)


def train_tokenizer(sentences, size: int = 1600):
    """A WordPiece tokenizer (Schuster & Nakajima 2012) trained on sentences; returns tokenizers' own object."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizers.Lowercase(), pre_tokenizers.Whitespace(), decoders.WordPiece()
    made.train_from_iterator(sentences, trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    return made


# ---------------------------------------------------------------------------- networks
def network(name: str, *, vocabulary: int = 1600, width: int = WIDTH, layers: int | None = None, heads: int = HEADS) -> nn.Module:
    """One of NETWORKS with its language-model head, untrained (torch's global generator), from transformers' own class."""
    import transformers as hf

    layers = layers or (LAYERS // 2 if name == "distilbert-mini" else LAYERS)
    if name == "gpt-mini":
        config = hf.GPT2Config(vocab_size=vocabulary, n_positions=WINDOW, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0,
                               embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=CLS, eos_token_id=SEP, pad_token_id=PAD)
        return hf.GPT2LMHeadModel(config)
    if name == "distilbert-mini":
        config = hf.DistilBertConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW, n_layers=layers, n_heads=heads, dim=width,
                                     hidden_dim=4 * width, dropout=0.0, attention_dropout=0.0, pad_token_id=PAD)
        return hf.DistilBertForMaskedLM(config)
    common = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
              "intermediate_size": 4 * width, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": PAD}
    if name == "roberta-mini":      # its positions are counted from pad_token_id + 1
        return hf.RobertaForMaskedLM(hf.RobertaConfig(max_position_embeddings=WINDOW + PAD + 1, type_vocab_size=1, bos_token_id=CLS,
                                                      eos_token_id=SEP, **common))
    if name == "bert-mini":
        return hf.BertForPreTraining(hf.BertConfig(max_position_embeddings=WINDOW, **common))
    raise ValueError(f"name={name!r} is no text mini; {paths.did_you_mean(name, NETWORKS)}")


def encoder(net: nn.Module) -> nn.Module:
    """The part of a network below its head, e.g. `net.bert`."""
    return getattr(net, net.base_model_prefix)


def encoder_parameters(net: nn.Module) -> int:
    """Parameters of the transformer layers alone, without embeddings and heads."""
    body = encoder(net)
    stack = body.h if hasattr(body, "h") else (body.transformer if hasattr(body, "transformer") else body.encoder)
    return sum(p.numel() for p in stack.parameters())


class Words(nn.Module):
    """The language-model head of a network: hidden states (..., width) to logits over the vocabulary."""

    def __init__(self, net: nn.Module):
        super().__init__()
        parts = {"BertForPreTraining": "cls", "RobertaForMaskedLM": "lm_head", "GPT2LMHeadModel": "lm_head"}
        if type(net).__name__ == "DistilBertForMaskedLM":
            self.part = nn.Sequential(net.vocab_transform, nn.GELU(), net.vocab_layer_norm, net.vocab_projector)
        else:
            part = getattr(net, parts[type(net).__name__])
            self.part = part.predictions if hasattr(part, "predictions") else part

    def forward(self, hidden: Tensor) -> Tensor:
        return self.part(hidden)


def tied(net: nn.Module) -> tuple[str, ...]:
    """Names of tensors that are the same as others of the network: not stored twice."""
    return tuple(net._tied_weights_keys)


def as_loaded(net: nn.Module, tokens) -> tuple[TextBackbone, Words]:
    """A network as the zoo gives it: features for sentences, and the head."""
    return TextBackbone(encoder(net), tokens), Words(net)


def load(name: str, state: dict[str, Tensor] | None, source: str, folder: Path | None = None) -> tuple[TextBackbone, Words, Any]:
    """Backbone, head and tokenizer of a mini; state: its tensors, or None for random ones.

    Raises ValueError naming the first tensor (of the file called `source`) that does not fit.
    """
    net = network(name)
    if state is not None:
        own = net.state_dict()
        for copy, original in net._tied_weights_keys.items():
            if original in state and original in own:
                state = state | {copy: state[original]}
        weight_files.fit(net, state, source)
    tokens = tokenizer(name, folder)
    return *as_loaded(net.eval(), tokens), tokens


# ---------------------------------------------------------------------------- what they say
@torch.no_grad()
def _run(loaded, texts: list[str], **more):
    batch = loaded.backbone.encode(check_texts(texts))
    return batch, loaded.backbone.model(**batch, **more)


@torch.no_grad()
def word_logits(loaded, texts: list[str]) -> tuple[Tensor, Tensor]:
    """(token ids (N, L), logits (N, L, vocabulary)): for every place, which word a mini expects there (a GPT: after it)."""
    batch, out = _run(loaded, texts)
    return batch["input_ids"], loaded.head(out.last_hidden_state)


def fill_mask(loaded, text: str, *, top: int = 5) -> list[list[tuple[str, float]]]:
    """For each [MASK] of the text the `top` likeliest tokens with their probabilities, likeliest first.

    Raises ValueError if the text has no [MASK], or if the network is a GPT, which reads only what stands before.
    """
    if loaded.name.startswith("gpt"):
        raise ValueError(f"{loaded.name} predicts the next word from those before; use continue_text, or a masked model")
    ids, logits = word_logits(loaded, [text])
    places = (ids[0] == MASK).nonzero()[:, 0]
    if not len(places):
        raise ValueError(f"text {text!r} has no [MASK]: put one where a word is to be guessed")
    best = logits[0, places].softmax(-1).topk(top)
    return [[(loaded.tokenizer.convert_ids_to_tokens(int(i)), float(p)) for p, i in zip(values, indices)]
            for values, indices in zip(best.values, best.indices)]


@torch.no_grad()
def continue_text(loaded, prompt: str = "", *, temperature: float = 1.0, generator: torch.Generator | None = None, longest: int = 30) -> str:
    """The prompt and what a GPT writes after it, up to its end mark or `longest` tokens; an empty prompt starts a sentence.

    temperature: 0 takes the likeliest token each time. Raises ValueError for a negative one or a masked model.
    """
    if not loaded.name.startswith("gpt"):
        raise ValueError(f"{loaded.name} fills gaps and can't continue a text; load gpt-mini")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be at least 0")
    ids = [CLS, *loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]][:WINDOW]
    for _ in range(min(longest, WINDOW - len(ids))):
        logits = loaded.head(loaded.backbone.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if token == SEP:
            break
        ids.append(token)
    return loaded.tokenizer.decode(ids, skip_special_tokens=True)


def hidden_states(loaded, text: str) -> tuple[list[str], Tensor]:
    """(tokens, states (layers + 1, L, width)) of one text: the embeddings, then what each layer makes of every token."""
    batch, out = _run(loaded, [text], output_hidden_states=True)
    return loaded.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()), torch.cat(out.hidden_states)


def attention(loaded, text: str) -> tuple[list[str], Tensor]:
    """(tokens, weights (layers, heads, L, L)) of one text; row i says from where token i takes what it takes in."""
    model = loaded.backbone.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")       # the fused kernel does not give its weights away
    try:
        batch, out = _run(loaded, [text], output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    return loaded.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()), torch.cat(out.attentions)


@torch.no_grad()
def choose(loaded, text: str, options: tuple[str, ...]) -> str:
    """Which of some words (one token each) a mini would put in place of the [MASK]; a GPT reads only what stands before it."""
    ids = loaded.tokenizer.convert_tokens_to_ids(list(options))
    if UNK in ids:
        raise ValueError(f"options: {options[ids.index(UNK)]!r} is not a single token of the minis; choose another word")
    tokens = loaded.tokenizer(text)["input_ids"]
    if MASK not in tokens:
        raise ValueError(f"text {text!r} has no [MASK]: put one where a word is to be chosen")
    place = tokens.index(MASK)
    if loaded.name.startswith("gpt"):
        tokens, place = tokens[:place], place - 1
    logits = loaded.head(loaded.backbone.model(input_ids=torch.tensor([tokens])).last_hidden_state[0, place])
    return options[int(logits[ids].argmax())]
