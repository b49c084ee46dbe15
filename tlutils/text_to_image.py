"""DALL-E in miniature: a transformer that reads a caption and goes on in image tokens (Ramesh et al. 2021).

Caption and picture are one sequence: 10 places for words, then 64 image tokens (`image_tokens`), drawn one after another,
each given all before it. `load()` gives the trained pair; `Painter.draw` draws.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from . import image_tokens, multimodal, paths, shapes, zoo
from . import weights as weight_files
from .image_tokens import LENGTH, ImageTokens

TEXT = 10                       # places for the caption: start, up to eight words, end
VARIANT = "drawings"
SPOKEN = ("a", "on", "background", *shapes.COLOURS, *shapes.SOURCE_SHAPES)      # words that its captions have


def caption_tokens(texts: Sequence[str]) -> Tensor:
    """Captions as numbers of words: (N, 10) int64, as `multimodal.tokens`.

    Raises ValueError also for a word of size or texture, which the drawn scenes don't vary, and for more than eight words.
    """
    numbers = multimodal.tokens(texts)
    for i, text in enumerate(texts):
        for word in text.lower().replace(",", " ").replace(".", " ").split():
            if word not in SPOKEN:
                raise ValueError(f"texts[{i}]={text!r}: {word!r} is no word for drawing, its scenes are all solid and of one size; "
                                 f"{paths.did_you_mean(word, SPOKEN)}")
    if (numbers[:, TEXT:] != multimodal.PAD).any():
        i = int((numbers[:, TEXT:] != multimodal.PAD).any(1).nonzero()[0])
        raise ValueError(f"texts[{i}]={texts[i]!r} is longer than the {TEXT - 2} words that it reads; leave some out")
    return numbers[:, :TEXT]


def no_caption(n: int) -> Tensor:
    """The empty caption, n times: (n, 10) int64. What the model saw in training where the caption was left out."""
    row = torch.full((TEXT,), multimodal.PAD)
    row[:2] = torch.tensor([multimodal.START, multimodal.END])
    return row.expand(n, -1)


def drawing_captions(scenes: shapes.Scenes, background: bool = True) -> list[str]:
    """One caption a scene: "a red ring on a green background", or without its last four words."""
    names = zip(scenes.colour.tolist(), scenes.shape.tolist(), scenes.background.tolist())
    return [f"a {shapes.COLOURS[c]} {shapes.SHAPES[s]}" + (f" on a {shapes.COLOURS[b]} background" if background else "")
            for c, s, b in names]


class DALLEMini(nn.Module):
    """GPT-2's own transformer, small, over words and image tokens; it predicts the image tokens only."""

    def __init__(self, codes: int = image_tokens.CODES, width: int = 160, layers: int = 3, heads: int = 5):
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        self.words = len(multimodal.WORDS)
        self.body = GPT2Model(GPT2Config(
            vocab_size=self.words + codes, n_positions=TEXT + LENGTH, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_pytorch_tanh", bos_token_id=None, eos_token_id=None,
            attn_implementation="eager"))      # on a CPU twice as fast as the fused kernel at this size
        self.head = nn.Linear(width, codes, bias=False)

    def forward(self, sequence: Tensor) -> Tensor:
        """sequence: (N, 74) int64 from `join`. Returns the logits of its image tokens (N, codes, 64), each from what stands before."""
        hidden = self.body(sequence[:, :-1], use_cache=False).last_hidden_state
        return self.head(hidden[:, TEXT - 1:]).transpose(1, 2)

    def join(self, captions: Tensor, numbers: Tensor) -> Tensor:
        """One sequence of caption (N, 10) and image tokens (N, L): (N, 10 + L) int64."""
        return torch.cat([captions, numbers + self.words], 1)

    @torch.no_grad()
    def sample(self, captions: Tensor, *, generator: torch.Generator, temperature: float = 1.0, top_k: int | None = None,
               guidance: float = 1.0) -> Tensor:
        """Image tokens for captions (N, 10), drawn one after another: (N, 64) int64.

        temperature: logits are divided by it; 0 takes the likeliest token. top_k: only the k likeliest are drawn from.
        guidance: 1 is the model as it is; above 1 pushes away from what it would draw without a caption (Ho & Salimans
        2022, on logits). Raises ValueError for settings out of range.
        """
        if temperature < 0 or guidance < 0 or (top_k is not None and top_k < 1):
            raise ValueError(f"temperature={temperature}, guidance={guidance} must be at least 0, top_k={top_k} at least 1")
        both, n = captions, len(captions)
        if guidance != 1:
            both = torch.cat([captions, no_caption(n).to(captions.device)])
        state, fed, drawn = None, both, []
        for _ in range(LENGTH):
            answer = self.body(fed, past_key_values=state, use_cache=True)
            state, logits = answer.past_key_values, self.head(answer.last_hidden_state[:, -1])
            if guidance != 1:
                logits = logits[n:] + guidance * (logits[:n] - logits[n:])
            drawn.append(pick(logits, generator=generator, temperature=temperature, top_k=top_k))
            fed = (drawn[-1] + self.words)[:, None].repeat(len(both) // n, 1)
        return torch.stack(drawn, 1)


def pick(logits: Tensor, *, generator: torch.Generator, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """One token of each row: logits (N, K) to numbers (N,) int64. temperature and top_k as in `DALLEMini.sample`."""
    if temperature == 0:
        return logits.argmax(1)
    if top_k is not None and top_k < logits.shape[1]:
        floor = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]


@dataclass
class Painter:
    """A trained pair: `tokens` knows pictures as codes, `model` goes on from a caption in codes."""

    tokens: ImageTokens
    model: DALLEMini
    card: dict = field(default_factory=dict)

    def draw(self, texts: Sequence[str], *, seed: int = 0, batch_size: int = 64, **settings) -> Tensor:
        """One picture for each of N captions: (N, 3, 32, 32) in [0, 1]. settings: those of `DALLEMini.sample`."""
        captions, generator = caption_tokens(texts), torch.Generator().manual_seed(seed)
        drawn = [self.model.sample(part, generator=generator, **settings) for part in captions.split(batch_size)]
        return self.tokens.decode(torch.cat(drawn))


def load(variant: str = VARIANT, *, folder: str | Path | None = None) -> Painter:
    """The bundled drawing pair, in eval mode. folder: searched instead of the bundled weights.

    Raises ValueError for an unknown variant (names near ones) or a file that doesn't fit, naming the first wrong tensor.
    """
    parts, cards = [], {}
    for name, build in (("vqvae-mini", ImageTokens), ("dalle-mini", DALLEMini)):
        file, cards[name] = zoo.bundled_file(name, variant, folder)
        with torch.random.fork_rng(devices=[]):
            parts.append(build().eval())
        weight_files.fit(parts[-1], weight_files.read(file), f"weights file {file}")
    return Painter(*parts, card=cards)


# ---------------------------------------------------------------------------- the independent judge
def judge(pictures: Tensor) -> dict[str, Tensor]:
    """What two classifiers and a rule see in pictures (N, 3, 32, 32): index of shape, colour and background, each (N,).

    Shape and colour: the ResNet minis trained on labels of ordinary scenes, never on drawings. Background: the background colour
    nearest to the median of the picture's border.
    """
    seen = {}
    with torch.no_grad():
        for factor, variant in (("shape", "shapes"), ("colour", "colours")):
            loaded = zoo.load("resnet-mini", variant)
            seen[factor] = torch.cat([loaded.logits(part) for part in pictures.split(512)]).argmax(1)
    edge = torch.cat([pictures[:, :, :2].flatten(2), pictures[:, :, -2:].flatten(2),
                      pictures[:, :, :, :2].flatten(2), pictures[:, :, :, -2:].flatten(2)], 2).median(2).values
    seen["background"] = torch.cdist(edge, shapes._colour_table()[1]).argmin(1)
    return seen
