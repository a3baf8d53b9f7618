"""How token states become one vector a text: read from and written to the files that `sentence-transformers` keeps beside a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom import files
from lexloom.config import Config
from lexloom.errors import FormatError
from lexloom.models.base import Output

Mode = Literal["mean", "cls", "max", "mean_sqrt_len"]
_SWITCHES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
_MODULES = "sentence_transformers.models."


class Pooling(Config):
    """The mean over the tokens, unless a folder says otherwise."""

    mode: Mode = "mean"
    normalize: bool = False
    max_length: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Pooling | None:
        """What the folder's `modules.json` says; None where there is none.

        Raises:
            FormatError: it names modules that lexloom does not know.
        """
        if not (folder / "modules.json").is_file():
            return None
        modules = files.read_json(folder / "modules.json", kind="module list")
        kinds = {str(m.get("type", "")).rsplit(".", 1)[-1]: str(m.get("path", "")) for m in modules if isinstance(m, Mapping)}
        if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
            raise FormatError("this embedding model has modules lexloom does not know", got=", ".join(unknown), where=str(folder))
        settings = _read(folder / Path(kinds.get("Pooling", "1_Pooling")).name / "config.json")
        limit = _read(folder / "sentence_bert_config.json").get("max_seq_length")
        return cls(mode=_mode(settings, folder), normalize="Normalize" in kinds, max_length=limit if isinstance(limit, int) else None)

    def save(self, folder: Path, width: int) -> None:
        """Writes the files that `sentence-transformers` opens."""
        names = ["Transformer", "Pooling", *(["Normalize"] if self.normalize else [])]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [{"idx": i, "name": str(i), "path": paths[i], "type": _MODULES + name} for i, name in enumerate(names)]
        files.write_json(folder / "modules.json", modules)
        switches = {name: mode == self.mode for name, mode in _SWITCHES.items()}
        files.write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **switches})
        files.write_json(folder / "sentence_bert_config.json", {"max_seq_length": self.max_length, "do_lower_case": False})

    def __call__(self, output: Output, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, T, D) states -> (B, D) float32 vectors, padding left out."""
        hidden, mask = output.hidden.float(), batch["attention_mask"][..., None].float()
        if self.mode == "cls":
            found = hidden[:, 0]
        elif self.mode == "max":
            found = hidden.masked_fill(mask == 0, -torch.inf).amax(1)
        else:
            n = mask.sum(1).clamp(min=1e-9)
            found = (hidden * mask).sum(1) / (n if self.mode == "mean" else n.sqrt())
        return F.normalize(found, dim=1) if self.normalize else found


def _read(path: Path) -> dict[str, Any]:
    found = files.read_json(path, kind="pooling settings") if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _mode(settings: Mapping[str, Any], folder: Path) -> Mode:
    named = settings.get("pooling_mode")
    on = [mode for switch, mode in _SWITCHES.items() if settings.get(switch)] + ([named] if named else [])
    odd = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value and name not in _SWITCHES]
    if odd or len(on) > 1 or any(mode not in _SWITCHES.values() for mode in on):
        raise FormatError("lexloom does not know this pooling", got=", ".join([*odd, *on]), where=str(folder))
    return cast(Mode, on[0]) if on else "mean"
