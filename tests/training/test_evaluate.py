"""Evaluation against scikit-learn, and of any callable."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from pocketvision.errors import ConfigurationError, DataError
from pocketvision.nn.layers import Normalize
from pocketvision.nn.model import Model
from pocketvision.training.evaluate import ClassificationResult, evaluate, probabilities, torch_predictor

from .conftest import SPEC

P = SPEC.preprocessing


class Fixed:
    """A predictor with scores that are given; notes what it was called with."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.seen = scores, list[np.ndarray]()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        start = sum(map(len, self.seen))
        self.seen.append(pixels)
        return self.scores[start : start + len(pixels)]


def scores_of(n: int, classes: int = 10) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, classes)).astype(np.float32)


def test_counts_equal_scikit_learns(data):
    scores = scores_of(len(data.val))
    scores[:20, 3] += 5  # class 3 is predicted often, and some class may never be
    predict = Fixed(scores)
    result = evaluate(predict, data.val, P, data.classes, batch=16)
    assert [pixels.shape for pixels in predict.seen] == [(16, 16, 16, 3), (16, 16, 16, 3), (8, 16, 16, 3)]
    assert all(pixels.dtype == np.uint8 and pixels.flags.c_contiguous for pixels in predict.seen)
    labels, predicted = [item.label for item in data.val], scores.argmax(1)
    assert result.n == 40
    assert result.top1 == accuracy_score(labels, predicted)
    assert result.top5 == top_k_accuracy_score(labels, scores, k=5, labels=range(10))
    assert result.confusion.tolist() == confusion_matrix(labels, predicted, labels=range(10)).tolist()
    precision, recall, _, count = precision_recall_fscore_support(labels, predicted, labels=range(10), zero_division=0)
    rows = result.table()
    assert [row["precision"] or 0 for row in rows] == pytest.approx(precision.tolist())
    assert [row["recall"] or 0 for row in rows] == pytest.approx(recall.tolist())
    assert [row["n"] for row in rows] == count.tolist()


def test_worst_mistakes_come_first(data):
    scores = scores_of(len(data.val))
    result = evaluate(Fixed(scores), data.val, P, data.classes)
    wrong = sum(result.confusion.sum(1)) - np.trace(result.confusion)
    assert len(result.mistakes) == wrong
    confidence = [mistake.score for mistake in result.mistakes]
    assert confidence == sorted(confidence, reverse=True) and 0 < confidence[-1] < confidence[0] < 1
    first = result.mistakes[0]
    index = [item.image for item in data.val].index(first.image)
    assert (first.label, first.predicted) == (data.val[index].label, scores[index].argmax())
    assert first.score == pytest.approx(float(torch.tensor(scores[index]).softmax(0).max()), rel=1e-5)


def test_result_prints_and_is_json(data):
    result = evaluate(Fixed(scores_of(len(data.val))), data.val, P, data.classes)
    text, values = str(result), json.loads(json.dumps(result.to_dict()))
    assert f"top-1 {result.top1:.2%}" in text and "40 images" in text
    assert len(text.splitlines()) == 2 + 10
    assert values["top1"] == result.top1 and values["n"] == 40
    assert values["mistakes"][0]["label"] in data.classes


def test_undefined_shares_are_none():
    result = ClassificationResult(("a", "b", "c"), np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]), None, ())
    assert [row["precision"] for row in result.table()] == [2 / 3, None, None]
    assert [row["recall"] for row in result.table()] == [1, 0, None]
    assert "-" in str(result)


def test_interval():
    low, high = ClassificationResult(("a", "b"), np.array([[45, 5], [5, 45]]), None, ()).interval
    assert (low, high) == pytest.approx(
        (0.8256, 0.9448), abs=1e-4
    )  # statsmodels' proportion_confint(90, 100, "wilson")
    low, high = ClassificationResult(("a", "b"), np.array([[5, 0], [0, 5]]), None, ()).interval
    assert 0.7 < low < 0.8 and high == pytest.approx(1) and high <= 1


def test_probabilities():
    scores = scores_of(5)
    softmax = probabilities(scores)
    assert softmax.sum(1) == pytest.approx(np.ones(5))
    assert probabilities(softmax) is softmax
    assert probabilities(np.array([[1000.0, 0.0]])).tolist() == [[1, 0]]


def test_few_classes_have_no_top5(data):
    items = [replace(item, label=item.label % 2) for item in data.val]
    result = evaluate(Fixed(scores_of(40, 2)), items, P, ("even", "odd"))
    assert result.top5 is None


def test_wrong_scores_are_named(data):
    with pytest.raises(ConfigurationError, match=r"shape \(32, 9\), the data needs \(32, 10\)"):
        evaluate(Fixed(scores_of(40, 9)), data.val, P, data.classes)
    with pytest.raises(ConfigurationError, match="not finite"):
        evaluate(Fixed(np.full((40, 10), np.nan)), data.val, P, data.classes)
    with pytest.raises(DataError, match="no images"):
        evaluate(Fixed(scores_of(0)), (), P, data.classes)


def test_torch_predictor(model: Model):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    actual = torch_predictor(model)(pixels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        expected = model.eval().to(memory_format=torch.contiguous_format)(Normalize(P)(images))
    assert actual.dtype == np.float32 and not model.training
    assert actual == pytest.approx(expected.numpy(), abs=1e-5)
