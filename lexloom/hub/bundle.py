"""Bundle: a model folder in Hugging Face layout, opened, used and saved."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lexloom
from lexloom import compute, files
from lexloom.errors import ConfigError, LexloomError, WeightsError, unknown
from lexloom.hub import card, features, weights
from lexloom.hub.answering import answering
from lexloom.hub.features import Features
from lexloom.hub.folder import GENERATION, OWN, Folder, settings_of
from lexloom.hub.pooling import Pooling
from lexloom.models.base import Network, Output
from lexloom.models.decoder import WRITING, special_ids
from lexloom.nn.decoding import GenerationConfig
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.base import TASKS, Task, plain_task, run
from lexloom.tasks.fasttext import MODEL_TYPE as FASTTEXT
from lexloom.tasks.fasttext import FastTextClassifier
from lexloom.tasks.likelihoods.base import LIKELIHOODS, Likelihood
from lexloom.tasks.simple import SimpleClassifier
from lexloom.tasks.tfidf import MODEL_TYPE as TFIDF
from lexloom.tasks.tfidf import TfidfClassifier
from lexloom.text.tokenizer import Tokenizer


@dataclass
class Bundle:
    """A network with its tokenizer and its task.

    Attributes:
        network: backbone and heads; `model` is another name for it.
        tokenizer: the text side.
        task: what it answers, or None for a bare encoder.
        pooling: how `embed` makes one vector of the token states.
        extra: settings of `config.json` that lexloom does not use, kept and written back.
        generation: `generation_config.json` of a network that writes text; None: what its config says of special tokens.
        about: what `lexloom.json` says: recipe, provenance, scores.
        loaded: what was found and what was missing when it was opened.
        dtype: what the backbone answers in, `float32` or `bfloat16`, with heads and pooling in fp32; or `int8`, where the weights of a
            decoder have 8 bits and the rest is fp32. Saved in `lexloom.json`.
    """

    network: Network
    tokenizer: Tokenizer
    task: Task | None = None
    pooling: Pooling | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] | None = None
    loaded: weights.Loaded = field(default_factory=weights.Loaded)
    dtype: str = "float32"
    _low: Network | None = field(default=None, init=False, repr=False, compare=False)  # the network as it answers

    @property
    def model(self) -> Network:
        """The network."""
        return self.network

    @property
    def labels(self) -> list[str]:
        """Label names in the order of their ids."""
        return self.task.labels if self.task else []

    @property
    def max_length(self) -> int:
        """The longest input in tokens: the least that network, tokenizer and pooling files allow."""
        limits = [self.network.backbone.max_length, self.tokenizer.model_max_length]
        return min([limit for limit in [*limits, self.pooling.max_length if self.pooling else None] if limit])

    @classmethod
    def load(
        cls, folder: Path | str, *, roles: frozenset[str] | None = None, seed: int = 0, tensors: Mapping[str, Tensor] | None = None
    ) -> Bundle:
        """Opens a folder that lexloom, `transformers` or `sentence-transformers` saved.

        Args:
            roles: heads to build in the place of those that `architectures` names; new ones are drawn from `seed`.
            tensors: weights under their names on disk, all of them, in the place of the folder's.

        Raises:
            WeightsError: no such folder, an architecture lexloom does not have, or weights that do not fit.
            FormatError: a file is damaged, or a newer lexloom wrote it.
        """
        found = Folder.read(Path(folder))
        wanted = found.roles if roles is None else roles
        network = Network.build(found.kind, found.config, wanted, labels=found.classes)
        drawn = seed if roles is not None and tensors is None else None
        given = weights.read_tensors(found.path) if tensors is None else tensors
        loaded = weights.load_into(network, given, where=str(found.path), seed=drawn)
        tokenizer = Tokenizer.load(found.path)
        _check_fit(network, tokenizer, found.path)
        dtype = str(found.own.get("inference", {}).get("dtype", "float32"))
        kept: dict[str, Any] = {"extra": found.extra, "generation": found.generation, "about": found.own.get("about", {}), "loaded": loaded}
        task = _task(found, wanted, Vocabulary.of(tokenizer))
        return cls(network.float(), tokenizer, task, Pooling.load(found.path), **kept).to(dtype=dtype)

    def save(self, folder: Path | str, *, masters: Mapping[str, Tensor] | None = None) -> Path:
        """Writes the folder, whole or not at all, so that `transformers` opens it as it is.

        Args:
            masters: own name -> fp32 tensor to store in the place of the network's compute copy.

        Raises:
            LexloomError: there is a folder with other files at that place.
        """
        folder = Path(folder)
        with files.new_folder(folder, kind="bundle") as new:
            weights.save(self.network, new, masters)
            files.write_json(new / "config.json", self.settings())
            if self.network.roles & WRITING:
                made = {"_from_model_config": True, **self._generation_values()}  # as the class in `transformers` writes it
                files.write_json(new / GENERATION, self.generation if self.generation is not None else made)
            self.tokenizer.save(new)
            if self.pooling is not None:
                self.pooling.save(new, self.network.backbone.width)
            files.write_json(new / OWN, self._own_json())
            files.write_text(new / "README.md", self._card(folder.resolve().name))
        return folder

    def settings(self) -> dict[str, Any]:
        """`config.json` as `transformers` reads it."""
        backbone = self.network.backbone
        found = {**self.extra, **backbone.config.plain(), "model_type": backbone.MODEL_TYPE, "dtype": "float32"}
        found["architectures"] = [self.network.class_name]
        if self.labels:
            found["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
            found["label2id"] = {label: i for i, label in enumerate(self.labels)}
            found["problem_type"] = getattr(self.task, "problem_type", None)
        return found

    def _own_json(self) -> dict[str, Any]:
        task = None
        if self.task is not None:
            task = {"name": _name_of(self.task), "config": self.task.config.plain(), "labels": self.labels}
        inference = {"dtype": self.dtype}
        return {"format": files.FORMAT, "lexloom": lexloom.__version__, "task": task, "inference": inference, "about": self.about}

    def _card(self, name: str) -> str:
        n = sum(p.numel() for p in self.network.parameters())
        about = {"pipeline": getattr(self.task, "pipeline", None), **self.about}
        opens = self.network.class_name if type(self.network.backbone).WEIGHTS else None
        return card.card(name, about, parameters=n, class_name=opens, max_length=self.max_length)

    @property
    def generation_config(self) -> GenerationConfig:
        """How it goes on with a text where nobody says otherwise.

        Raises:
            ConfigError: `generation_config.json` has a setting that is not to be had here.
        """
        return GenerationConfig.known(self._generation_values(), where=GENERATION)[0]

    def _generation_values(self) -> dict[str, Any]:
        """What `generation_config.json` says; without one, what `config.json` says of the same things, as older folders do."""
        if self.generation is not None:
            return self.generation
        return GenerationConfig.among(self.extra) | special_ids(self.network)

    def predict(self, texts: Sequence[str] | Sequence[Mapping[str, Any]], pairs: Sequence[str] | None = None, **options: Any) -> list[Any]:
        """Answers, one a text and in order, shaped like those of the `transformers` pipeline for the task.

        Args:
            texts: texts, or rows with the task's columns.
            pairs: the second text of each, for tasks on pairs.
            options: what the task takes, such as `top_k` or `max_new_tokens`.

        Raises:
            LexloomError: the bundle has no task, or `texts` is one string.
            ConfigError: the task takes no such option.
        """
        if self.task is None:
            raise LexloomError("this bundle has no task to answer; it can embed texts", hint="bundle.embed(texts)")
        columns = getattr(self.task.config, "columns", None)
        if pairs is not None and columns is not None and columns.text and not columns.pair:
            raise LexloomError("this model was trained on single texts, not on pairs", hint="give the texts alone")
        rows = as_rows(texts, pairs)
        takes = _options(self.task)
        if "generation" in takes:
            options = {"generation": self.generation_config, **options}
            if "max_length" in options:  # of a task's `predict` that is the context
                options["generation"] = options["generation"].within(options.pop("max_length"))
        for name in options:
            if name not in takes and _ANY not in takes:
                raise unknown(f"option of {self.task.pipeline}", name, takes)
        return self.task.predict(self._answering(), self.tokenizer, rows, max_length=self.max_length, **options)

    def embed(self, texts: Sequence[str], *, layer: int | None = None, batch_tokens: int = 4096) -> np.ndarray:
        """One vector a text: (N, D) float32, pooled as the folder's files say, else the mean over the tokens.

        Texts beyond `max_length` tokens are cut.

        Args:
            layer: whose states are pooled, counted as in the `hidden_states` of `transformers`: 0 the embeddings, -1 (and None) the last.

        Raises:
            ConfigError: there is no such layer.
        """
        if isinstance(texts, str):
            raise LexloomError("embed takes a list of texts", got=repr(texts)[:60])
        pooling = self.pooling or Pooling()
        rows = self.tokenizer.encode(list(texts), max_length=self.max_length)
        place = features.chosen(layer, self.network)[0] if layer is not None else None

        def pooled(output: Output, batch: Mapping[str, Tensor]) -> Tensor:
            return pooling(output if place is None else Output(features.states(output)[place]), batch)

        found = run(self._answering(), rows, self.tokenizer.fills, pooled, batch_tokens=batch_tokens, layers=place is not None)
        return np.stack(found) if found else np.zeros((0, self.network.backbone.width), dtype=np.float32)

    def features(
        self, texts: Sequence[str | Sequence[str]], *, layers: int | Sequence[int] | str = -1, batch_tokens: int = 4096
    ) -> list[Features]:
        """The states of every token of each text, with its place in the text, and of every word.

        Args:
            texts: texts, or lists of words.
            layers: one layer, several, or `all`, counted as in the `hidden_states` of `transformers`: 0 the embeddings, -1 the last.

        Raises:
            ConfigError: there is no such layer.
            DataError: an entry is neither a text nor a list of words.

        Example:
            >>> bundle.features([["The", "cats", "sleep"]], layers=-2)[0].words("first").shape
            (3, 768)
        """
        options: dict[str, Any] = {"layers": layers, "max_length": self.max_length, "batch_tokens": batch_tokens}
        return features.made(self._answering(), self.tokenizer, texts, **options)

    def likelihood(self) -> Likelihood:
        """How sure the network is of the tokens of texts, by the head that it was pre-trained with.

        Raises:
            LexloomError: it has no such head.

        Example:
            >>> bundle.likelihood()(["The cats sleep."])[0].logs
        """
        known = LIKELIHOODS.names()
        role = next((role for role in known if role in self.network.roles), None)
        if role is None:
            got = ", ".join(sorted(self.network.roles)) or "no head"
            raise LexloomError("this model does not say how likely a text is", expected=f"a head for {' or '.join(known)}", got=got)
        return LIKELIHOODS.get(role)(self._answering(), self.tokenizer, max_length=self.max_length)

    def to(self, device: str | None = None, *, dtype: str | None = None) -> Bundle:
        """This bundle, answering on another device or in another dtype; weights stay fp32 and are saved so.

        Args:
            device: `auto`, `cpu`, `cuda`, `cuda:N`; where it is now if None.
            dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where the device computes it natively. Its answers differ in the third digit.
                `int8` is for decoders on a CPU.

        Raises:
            ConfigError: the device is not there, there is no such dtype, or it is not for this network.
        """
        now = str(next(self.network.parameters()).device)
        chosen = compute.for_inference(device or now, dtype or self.dtype)
        if chosen.dtype == compute.INT8 and not WRITING & self.network.roles:
            raise ConfigError(
                "weights of 8 bits are for decoders with a head", got=self.network.class_name, hint="take bfloat16 or float32"
            )
        self.network.to(chosen.device)
        self.dtype, self._low = chosen.dtype, None
        return self

    def _answering(self) -> Network:
        """The network as it answers: in its dtype, with the products that are fastest here."""
        if self._low is None:
            self._low = answering(self.network, self.dtype)
        return self._low

    def with_task(self, task: Task, *, seed: int) -> tuple[Bundle, list[str]]:
        """The same encoder under the head of a task; also the names of the parameters that are new."""
        network, new = self.network.with_heads(task.roles, labels=len(task.labels), seed=seed)
        return replace(self, network=network, task=task, pooling=None, about={}), new


_ANY = "settings"  # a task that takes settings by any name looks at them itself


def _options(task: Task) -> frozenset[str]:
    """What a task's `predict` takes beside the rows."""
    return frozenset(inspect.signature(task.predict).parameters) - {"network", "tokenizer", "rows", "max_length"}


SIMPLE: dict[str, type[SimpleClassifier]] = {TFIDF: TfidfClassifier, FASTTEXT: FastTextClassifier}
"""Classifiers that are no networks, by their `model_type`."""


def load(folder: Path | str) -> Bundle | SimpleClassifier:
    """Opens a bundle, or any model folder lexloom has the architecture of; the baselines TF-IDF and fastText are bundles too."""
    folder = Path(folder)
    simple = SIMPLE.get(str(settings_of(folder).get("model_type")))
    return simple.load(folder) if simple is not None else Bundle.load(folder)


def as_rows(texts: Sequence[Any], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Texts, pairs or rows as rows with `text` and `pair`.

    Raises:
        LexloomError: one string was given, an entry is neither text nor row, or the pairs are of another number.
    """
    if isinstance(texts, str):
        raise LexloomError("predict takes a list of texts", got=repr(texts)[:60], hint="put it in brackets: [text]")
    if pairs is not None and len(pairs) != len(texts):
        raise LexloomError("each text needs its pair", expected=f"{len(texts)} pairs", got=str(len(pairs)))
    rows = [dict(text) if isinstance(text, Mapping) else {"text": text} for text in texts]
    for i, row in enumerate(rows):
        if not isinstance(texts[i], str | Mapping):
            raise LexloomError("a text is a string", got=f"{type(texts[i]).__name__} at place {i}")
        if pairs is not None:
            row["pair"] = pairs[i]
    return rows


def _task(found: Folder, roles: frozenset[str], vocabulary: Vocabulary) -> Task | None:
    if own := found.own.get("task"):
        kind = TASKS.get(own["name"])
        return kind(kind.Config.read(own["config"]), vocabulary, own["labels"])
    return plain_task(roles, vocabulary, found.labels)


def _name_of(task: Task) -> str:
    return next(name for name in TASKS.names() if type(task) is TASKS.get(name))


def _check_fit(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    type(network.backbone).check_rows(network.backbone.config, tokenizer.fills, where=str(folder))
    embedding = network.backbone.embedding
    if embedding is not None and len(tokenizer) > embedding.num_embeddings:
        raise WeightsError(
            "the tokenizer does not fit the model",
            expected=f"at most {embedding.num_embeddings} tokens, the rows of the embedding",
            got=f"{len(tokenizer)} tokens",
            where=str(folder),
            hint="take the tokenizer that the model was trained with",
        )


def parameters(network: torch.nn.Module) -> int:
    """How many numbers a network holds, tied ones counted once."""
    return sum(p.numel() for p in network.parameters())
