"""Weight files: found, fetched, read without unpickling, and fitted to a network tensor by tensor."""

import re
from collections.abc import Iterable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from . import paths

SUFFIXES = (".safetensors", ".pth", ".pt")


def is_file_name(weights: object) -> bool:
    """Whether `weights` names a file: a Path, or text ending in .safetensors, .pth or .pt."""
    return isinstance(weights, Path) or (isinstance(weights, str) and weights.endswith(SUFFIXES))


def find(name: str, folders: Iterable[Path]) -> Path | None:
    """The first `folder/name` that is a file, or None."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def hub_folders() -> list[Path]:
    """Where torchvision's files may already be: `weight_folders()`, then torch hub's own checkpoint cache."""
    return [*paths.weight_folders(), Path(torch.hub.get_dir()) / "checkpoints"]


def find_or_fetch(url: str, folders: Iterable[Path]) -> Path:
    """The file that `url` names, from `folders` or else downloaded into the last of `weight_folders()`.

    torchvision writes the first digits of the sha256 into the file's name (`resnet18-f37072fd.pth`); they are
    checked. Raises FileNotFoundError (no copy and no network), ValueError (checksum).
    """
    name = url.rsplit("/", 1)[-1]
    digits = re.search(r"-([0-9a-f]{8,})\.", name)
    sha256 = digits.group(1) if digits else ""
    file = find(name, folders)
    if file is None:
        return paths.fetch(url, paths.weight_folders()[-1] / name, sha256=sha256)
    paths.check_sha256(file, sha256, f"the file {file}", "delete it and load again, so that it is fetched anew")
    return file


def read(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth state dict, by key; half precision is turned into float32.

    A .pth is read by `torch.load(weights_only=True)`: it runs no code of the file. Raises FileNotFoundError, and
    ValueError for a file that is damaged, needs unpickling or holds something else than tensors.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"weights file {file} does not exist: check the path")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"weights file {file} must end in one of {', '.join(SUFFIXES)}")
    state = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pth(file)
    if not isinstance(state, dict) or not state:
        raise ValueError(
            f"weights file {file} holds a {type(state).__name__}, not a state dict: save `model.state_dict()`"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"weights file {file} is not a plain state dict: {key!r} is a {type(value).__name__}, not a tensor; "
                "save the state dict alone"
            )
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(_damaged(file, error)) from None


def _read_pth(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises many kinds for a file that it can't read
        if "Unsupported" in str(error):
            raise ValueError(
                f"weights file {file} can only be read by unpickling, which may run code hidden in it: not read; "
                "save its state dict as .safetensors where you trust the file"
            ) from None
        raise ValueError(_damaged(file, error)) from None


def _damaged(file: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"weights file {file} is damaged or incomplete ({reason[:100]}): delete it and get it again"


def fit(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `model`, every tensor exactly once. source: what to call the file in an error.

    Raises ValueError naming the first tensor (in the model's order) that is missing or has another shape, or the
    first one that the model has no place for. Counters of batch norm may be missing, as in old files.
    """
    own = model.state_dict()
    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            raise ValueError(
                f"{source} does not fit this network: {key} is {tuple(state[key].shape)} in the file "
                f"and {tuple(value.shape)} in the network; build the network that the file was saved from"
            )
        if key not in state and not key.endswith("num_batches_tracked"):
            raise ValueError(
                f"{source} does not fit this network: it lacks {key} {tuple(value.shape)}; use that network's file"
            )
    for key in state:
        if key not in own:
            raise ValueError(
                f"{source} does not fit this network: it holds {key} {tuple(state[key].shape)}, "
                "which the network does not have; use that network's file"
            )
    model.load_state_dict(state, strict=False)
