"""The layers of the original Transformer (Vaswani et al. 2017, section 3.1), and what its decoder reads.

Each sub-layer is followed by add and norm. A layer of the decoder looks at the target so far, then at all of the source.

Letters: B rows, S source tokens, T target tokens, D width, H heads, K head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.attention import SelfAttention, attend
from lexloom.nn.block import activation
from lexloom.nn.cache import Recall, Remember
from lexloom.nn.dropout import Dropout


@dataclass(frozen=True)
class Rates:
    """Shares that are dropped: of what a sub-layer adds, of attention, of the inner values of the feed-forward."""

    added: float
    attention: float
    inner: float


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, each followed by add and norm."""

    sites = 4  # dropouts in one block

    def __init__(self, width: int, heads: int, inner: int, *, act: str, rates: Rates, site: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout=rates.attention, site=site)
        self.attention_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.attention_dropout, self.inner_dropout = Dropout(rates.added, site + 1), Dropout(rates.inner, site + 2)
        self.dropout, self.act = Dropout(rates.added, site + 3), activation(act)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        x = self.attention_norm(x + self.attention_dropout(self.attention(x, bias, row_keys), row_keys))
        inner = self.inner_dropout(self.act(self.up(x)), row_keys)
        return self.norm(x + self.dropout(self.down(inner), row_keys))


class MaskedAttention(nn.Module):
    """Self-attention to what stands before, with one fused projection."""

    def __init__(self, width: int, heads: int, *, dropout: float, site: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None, remember: Remember | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if remember is not None:
            k, v = remember(k, v)
        seen = attend(q, k, v, bias, self.dropout, row_keys, causal=bias is None)
        return self.out(seen.transpose(1, 2).reshape(b, t, d))


class CrossAttention(nn.Module):
    """Attention to the source: queries from the target, keys and values from the encoder's states."""

    def __init__(self, width: int, heads: int, *, dropout: float, site: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, source: Tensor | None, bias: Tensor | None, row_keys: Tensor | None, recall: Recall | None) -> Tensor:
        """(B, T, D), and (B, S, D) or None where the cache holds what was made of it -> (B, T, D)."""
        b, t, d = x.shape
        q = self.q(x).view(b, t, self.heads, d // self.heads).transpose(1, 2)
        k, v = recall(lambda: self.seen(source)) if recall is not None else self.seen(source)
        return self.out(attend(q, k, v, bias, self.dropout, row_keys).transpose(1, 2).reshape(b, t, d))

    def seen(self, source: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> keys and values, each (B, H, S, K)."""
        assert source is not None
        b, s, d = source.shape
        k, v = self.kv(source).view(b, s, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return k, v


class DecoderBlock(nn.Module):
    """Self-attention, attention to the source and feed-forward, each followed by add and norm."""

    sites = 6  # dropouts in one block

    def __init__(self, width: int, heads: int, inner: int, *, act: str, rates: Rates, site: int) -> None:
        super().__init__()
        self.attention = MaskedAttention(width, heads, dropout=rates.attention, site=site)
        self.attention_norm = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads, dropout=rates.attention, site=site + 1)
        self.cross_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.attention_dropout, self.cross_dropout = Dropout(rates.added, site + 2), Dropout(rates.added, site + 3)
        self.inner_dropout, self.dropout = Dropout(rates.inner, site + 4), Dropout(rates.added, site + 5)
        self.act = activation(act)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        source: Tensor | None,
        source_bias: Tensor | None,
        row_keys: Tensor | None,
        remember: Remember | None = None,
        recall: Recall | None = None,
    ) -> Tensor:
        """(B, T, D), and the source (B, S, D) unless a cache recalls it -> (B, T, D)."""
        x = self.attention_norm(x + self.attention_dropout(self.attention(x, bias, row_keys, remember), row_keys))
        x = self.cross_norm(x + self.cross_dropout(self.cross(x, source, source_bias, row_keys, recall), row_keys))
        inner = self.inner_dropout(self.act(self.up(x)), row_keys)
        return self.norm(x + self.dropout(self.down(inner), row_keys))


class TargetHead(nn.Module):
    """(…, D) states of the decoder -> (…, V) scores of the next token; `weight` is (V, D), an embedding's own where tied, `bias` (V,).

    The bias is `final_logits_bias` in published weights: Marian learned it. `transformers` keeps it as it is, at 0 for new models.
    """

    def __init__(self, vocabulary: int, width: int, *, tied: bool) -> None:
        super().__init__()
        self.weight: nn.Parameter | Tensor = nn.Parameter(torch.empty(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.tied = tied

    def tie(self, embedding: nn.Embedding) -> None:
        """Shares the embedding's matrix, unless the config unties them."""
        if self.tied:
            self.weight = embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight, self.bias)


def decoder_inputs(batch: Mapping[str, Tensor], start: int) -> tuple[Tensor, Tensor | None]:
    """What a decoder reads of a batch: (B, T) ids, and which of them are no padding, (B, T) bool or None for all.

    That is `decoder_input_ids`, with `decoder_attention_mask` if it is there; else the tokens of `target_ids`, each one place later behind
    the start token; else those of `input_ids`, as BART reads a text whose tokens are to be told apart (Lewis et al. 2019, section 3.2).
    """
    if "decoder_input_ids" in batch:
        return batch["decoder_input_ids"], batch.get("decoder_attention_mask")
    if "target_ids" in batch:
        return later(batch["target_ids"], None, start), None
    mask = batch.get("attention_mask")
    return later(batch["input_ids"], mask, start), mask


def later(ids: Tensor, mask: Tensor | None, start: int) -> Tensor:
    """(B, T) ids, each one place later, `start` before the first of a row; padding in front (False in `mask`) stays in front."""
    before = ids[:, :-1] if mask is None else torch.where(mask[:, :-1], ids[:, :-1], start)
    return F.pad(before, (1, 0), value=start)
