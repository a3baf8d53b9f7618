"""TF-IDF and logistic regression: the baseline that every classifier has to beat, and a bundle of its own.

Words and pairs of words where words are written apart, 1 to 3 characters where they are not (Chinese, Japanese, Thai …).
Letters: N texts, F terms, K labels, X features: F for texts; for pairs 3 F + 1 (each text, their product, their cosine).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.sparse import csr_matrix, hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lexloom import keys
from lexloom.errors import DataError
from lexloom.tasks.classification import softmax
from lexloom.tasks.columns import ColumnsConfig, clean
from lexloom.tasks.simple import SimpleClassifier, SimpleConfig, Tensors, check_tensors

MODEL_TYPE: Literal["lexloom-tfidf"] = "lexloom-tfidf"
MAX_TERMS = 200_000
MAX_WEIGHTS = 20_000_000  # F · K, so that many labels do not make it huge
MAX_ROWS = 200_000
MAX_CHARACTERS = 20_000  # of a text that are looked at
STRENGTHS = (1.0, 4.0, 16.0, 64.0)  # C, the inverse of the penalty
SEARCHED_ROWS = 20_000
_UNSEEN = -1e4  # the score of a label without a training row
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTER = re.compile(r"[^\W\d_]")
_CHARACTER_LANGUAGES = ("zh", "ja", "th", "lo", "km", "my", "yue", "wuu")
Unit = Literal["word", "char"]


class TfidfConfig(SimpleConfig):
    """`config.json` of the baseline."""

    model_type: Literal["lexloom-tfidf"] = MODEL_TYPE
    unit: Unit
    strength: float = Field(gt=0)


@dataclass
class TfidfClassifier(SimpleClassifier):
    """TF-IDF features and a logistic regression; predicts as a bundle does.

    Args:
        config: what it is.
        terms: F terms in the order of their columns.
        idf: (F,) float64.
        coef: (K, X) float32.
        intercept: (K,) float32.
    """

    KIND, CLASS = "TF-IDF", "TfidfClassifier"

    config: TfidfConfig
    terms: list[str]
    idf: npt.NDArray[np.float64]
    coef: npt.NDArray[np.float32]
    intercept: npt.NDArray[np.float32]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._vectorizer = _vectorizer(self.config.unit, vocabulary=self.terms) if self.terms else None
        if self._vectorizer is not None:
            self._vectorizer.idf_ = self.idf

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        labels: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        columns: ColumnsConfig | None = None,
        language: str | None = None,
        seed: int = 1,
    ) -> Self:
        """Learns from labelled texts. The strength of the penalty is chosen on a fifth of the rows, or in five folds of few rows.

        Args:
            pairs: the second text of each, or None.
            names: labels in the order of their ids; sorted where None.
            columns: where a row's texts stand, for `predict` with rows.
            language: such as "en" or "zh"; where None, the script of the texts decides between words and characters.
            seed: draws the folds, and the rows where there are more than `MAX_ROWS`.

        Raises:
            DataError: there are fewer than two labels.
        """
        if len(set(labels)) < 2:
            raise DataError("TF-IDF needs two labels to tell apart", got=", ".join(map(repr, sorted(set(labels)))) or "no rows")
        order = list(names) if names is not None else sorted(set(labels))
        ids = {name: i for i, name in enumerate(order)}
        y = np.asarray([ids[label] for label in labels])
        chosen = np.sort(keys.shuffled(keys.key(seed, "tf-idf rows"), len(y))[:MAX_ROWS])
        first = [texts[i] for i in chosen]
        second = [pairs[i] for i in chosen] if pairs is not None else None
        unit = unit_of([*first[:1000], *(second or [])[:1000]], language)
        terms, idf = _learn_terms([*first, *(second or [])], unit, max(1, min(MAX_TERMS, MAX_WEIGHTS // len(order))))
        counts = Counter(labels)
        config = TfidfConfig(
            unit=unit,
            pairs=pairs is not None,
            strength=1.0,
            labels=order,
            label_counts={name: counts[name] for name in order},
            columns=columns or ColumnsConfig(),
        )
        empty = np.zeros((len(order), _width(len(terms), config.pairs)), dtype=np.float32)
        model = cls(config, terms, idf, empty, np.zeros(len(order), dtype=np.float32))
        return model._fitted(model.features(first, second), y[chosen], seed)

    def _fitted(self, x: csr_matrix, y: npt.NDArray[np.int64], seed: int) -> Self:
        strength = _strength(x, y, seed) if self.terms else 1.0
        coef, intercept = _regression(x, y, len(self.labels), strength)
        config = self.config.model_copy(update={"strength": strength})
        return type(self)(config, self.terms, self.idf, coef, intercept)

    def features(self, texts: Sequence[str], pairs: Sequence[str] | None) -> csr_matrix:
        """(N, X) of texts or pairs."""
        first = self._transformed(texts)
        if pairs is None:
            return first
        second = self._transformed(pairs)
        product = first.multiply(second)
        cosine = csr_matrix(np.asarray(product.sum(axis=1)).reshape(-1, 1))  # a linear model cannot count shared words without it
        return csr_matrix(hstack([first, second, product, cosine], format="csr"))

    def _transformed(self, texts: Sequence[str]) -> csr_matrix:
        if self._vectorizer is None:
            return csr_matrix((len(texts), 0))
        return csr_matrix(self._vectorizer.transform([_seen(text) for text in texts]))

    def parts(self) -> tuple[list[str], Tensors]:
        return self.terms, {"idf": self.idf, "coef": self.coef, "intercept": self.intercept}

    def shares(self, texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.floating[Any]]:
        scores = self.features(texts, pairs) @ self.coef.T.astype(np.float64) + self.intercept.astype(np.float64)
        return softmax(np.asarray(scores))

    def save(self, folder: Path | str) -> Path:
        unit = "words and pairs of words" if self.config.unit == "word" else "1 to 3 characters"
        card = f"TF-IDF over {unit} ({len(self.terms):,} terms) and logistic regression with {len(self.labels)} labels"
        return self._write(folder, card)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        folder = Path(folder)
        config, terms, tensors, about = cls._read(folder, TfidfConfig, MAX_TERMS)
        k, f = len(config.labels), len(terms)
        wanted = {"idf": ((f,), np.float64), "coef": ((k, _width(f, config.pairs)), np.float32), "intercept": ((k,), np.float32)}
        check_tensors(tensors, wanted, folder)
        return cls(config, terms, tensors["idf"], tensors["coef"], tensors["intercept"], about)


def unit_of(texts: Sequence[str], language: str | None = None) -> Unit:
    """`char` for languages written without spaces between words: by name, else where 3 of 10 letters are of such a script."""
    if language:
        return "char" if language.lower().replace("_", "-").split("-")[0] in _CHARACTER_LANGUAGES else "word"
    sample = "".join(text[:1000] for text in texts)
    return "char" if 10 * len(_UNSPACED.findall(sample)) > 3 * len(_LETTER.findall(sample)) else "word"


def _width(terms: int, pairs: bool) -> int:
    return 3 * terms + 1 if pairs else terms


def _seen(text: str) -> str:
    return clean(text[:MAX_CHARACTERS])


def _vectorizer(unit: Unit, **options: Any) -> TfidfVectorizer:
    shape = (
        {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
        if unit == "word"
        else {"analyzer": "char", "ngram_range": (1, 3)}
    )
    return TfidfVectorizer(**shape, sublinear_tf=True, **options)


def _learn_terms(texts: Sequence[str], unit: Unit, most: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The most frequent terms in alphabetical order and their idf; none where the texts hold no word."""
    vectorizer = _vectorizer(unit, max_features=most)
    seen = [_seen(text) for text in texts]
    analyze = vectorizer.build_analyzer()
    if not any(analyze(text) for text in seen):
        return [], np.zeros(0)
    vectorizer.fit(seen)
    return list(map(str, vectorizer.get_feature_names_out())), np.asarray(vectorizer.idf_, dtype=np.float64)


def _strength(x: csr_matrix, y: npt.NDArray[np.int64], seed: int) -> float:
    """The C with the best accuracy on held-out rows; the first, most cautious one of equals."""
    chosen = np.sort(keys.shuffled(keys.key(seed, "tf-idf search"), len(y))[:SEARCHED_ROWS])
    x, y = x[chosen], y[chosen]
    fold = _folds(y, seed)
    held = [fold == number for number in range(5 if len(y) < 2000 else 1)]
    held = [rows for rows in held if rows.any() and len(set(y[~rows].tolist())) > 1]
    if not held:
        return STRENGTHS[1]
    right = {c: sum(_right(x, y, rows, c) for rows in held) for c in STRENGTHS}
    return max(STRENGTHS, key=lambda c: right[c])


def _folds(y: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """A number of 0 to 4 a row, each label spread evenly over them."""
    shuffled = keys.shuffled(keys.key(seed, "tf-idf folds"), len(y))
    order = shuffled[np.argsort(y[shuffled], kind="stable")]
    fold = np.empty(len(y), dtype=np.int64)
    fold[order] = np.arange(len(y)) % 5
    return fold


def _right(x: csr_matrix, y: npt.NDArray[np.int64], held: npt.NDArray[np.bool_], strength: float) -> int:
    coef, intercept = _regression(x[~held], y[~held], int(y.max()) + 1, strength)
    return int(((x[held] @ coef.T + intercept).argmax(axis=1) == y[held]).sum())


def _regression(
    x: csr_matrix, y: npt.NDArray[np.int64], k: int, strength: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(K, X) weights and (K,) intercepts; without features the shares of the labels decide."""
    coef, intercept = np.zeros((k, x.shape[1]), dtype=np.float32), np.full(k, _UNSEEN, dtype=np.float32)
    if x.nnz == 0:
        counts = np.bincount(y, minlength=k)
        intercept[counts > 0] = np.log(counts[counts > 0] / len(y))
        return coef, intercept
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=300).fit(x, y)
    seen = model.classes_
    if len(seen) == 2:  # one row of weights, for the second label
        coef[seen[1]], intercept[seen[0]], intercept[seen[1]] = model.coef_[0], 0.0, model.intercept_[0]
    else:
        coef[seen], intercept[seen] = model.coef_, model.intercept_
    return coef, intercept
