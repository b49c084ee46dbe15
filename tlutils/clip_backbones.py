"""CLIP by its id on the hub, e.g. openai/clip-vit-base-patch32: from a local folder or the hub, safetensors only."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import transformer_backbones
from .datasets import as_float

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)      # of OpenAI's own preprocessing


@dataclass(frozen=True)
class CLIPPreprocess:
    """From pictures to what CLIP was trained on: the shorter side resized (bicubic), the middle square, (x - mean) / std.

    Takes (N, 3, H, W) in [0, 1], or uint8, and returns (N, 3, size, size) float.
    """

    size: int
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __call__(self, x: Tensor) -> Tensor:
        x = as_float(x)
        height, width = x.shape[-2:]
        if (height, width) != (self.size, self.size):
            factor = self.size / min(height, width)
            height, width = round(height * factor), round(width * factor)
            x = F.interpolate(x, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            top, left = (height - self.size) // 2, (width - self.size) // 2
            x = x[:, :, top:top + self.size, left:left + self.size]
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


class CLIPBackbone(nn.Module):
    """A CLIP of transformers with the interface of the mini: pictures and texts to vectors of length one."""

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model, self.tokenizer, self.width = model, tokenizer, model.config.projection_dim

    def vision(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W), preprocessed. Returns the picture tower's own features (N, D), for linear probes."""
        return self.model.vision_model(pixel_values=x).pooler_output

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W), preprocessed. Returns the pictures' embeddings (N, width), each of length one."""
        return F.normalize(self.model.visual_projection(self.vision(x)), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of N texts: (N, width), each of length one. Longer ones than the model reads are cut with a warning.

        Raises TypeError for one string, ValueError for no text or an empty one.
        """
        texts, longest = transformer_backbones.check_texts(texts), self.model.config.text_config.max_position_embeddings
        lengths = [len(ids) for ids in self.tokenizer(texts)["input_ids"]]
        if max(lengths) > longest:
            warnings.warn(f"texts[{lengths.index(max(lengths))}] has {max(lengths)} tokens, the model reads {longest}: the rest is cut off",
                          stacklevel=2)
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(self.model.device)
        pooled = self.model.text_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=1)

    @property
    def scale(self) -> Tensor:
        """What the products are multiplied by (one over the temperature)."""
        return self.model.logit_scale.exp()


def is_name(name: str) -> bool:
    """Whether `name` looks like a CLIP's id on the hub: owner/...clip..."""
    return "/" in name and "clip" in name.split("/")[-1].lower()


def load(name: str, weights: str | None = "DEFAULT", folder: Path | None = None) -> tuple[CLIPBackbone, CLIPPreprocess, dict]:
    """The CLIP `name`, its preprocessing and its card; looked for and refused as in `transformer_backbones.read`.

    Raises ValueError also for a model that is no CLIP.
    """
    model, tokenizer, card = transformer_backbones.read(name, weights, folder)
    if model.config.model_type != "clip":
        raise ValueError(f"{name} is a {model.config.model_type} by its config.json, not a clip: give the id of a CLIP, "
                         "such as openai/clip-vit-base-patch32")
    return CLIPBackbone(model, tokenizer), CLIPPreprocess(model.config.vision_config.image_size), card
