"""Estimators, karp's and scikit-learn's: the outputs that they predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import session

from karp.errors import SettingError
from karp.export import onnx

pytest.importorskip("onnx")
sklearn = pytest.importorskip("sklearn.neural_network")
karp = pytest.importorskip("karp.estimator")
pytestmark = pytest.mark.filterwarnings("ignore:.*onverge:UserWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
NUMBERS = (X[:, 0] > 0) + 1 * (X[:, 1] > 0.5)  # 0, 1, 2
LABELS: dict[str, Any] = {
    "int64": NUMBERS.astype(np.int64),
    "int32": NUMBERS.astype(np.int32),
    "float": NUMBERS * 2.0,
    "text": np.array(["a", "bc", "d"])[NUMBERS],
    "objects": np.array(["a", "bc", "d"], object)[NUMBERS],
    "two texts": np.array(["no", "yes"])[NUMBERS % 2],
    "truth": NUMBERS > 0,
    "one number": np.full(60, 4),
    "two numbers": np.array([3, 7])[NUMBERS % 2],
    "many labels": np.stack([NUMBERS == 0, NUMBERS == 1, NUMBERS == 0], 1).astype(np.int64),
}


@pytest.mark.parametrize("neural", [sklearn, karp], ids=["scikit-learn", "karp"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("labels", LABELS)
def test_a_classifier(tmp_path: Path, labels: str, dtype: Any, neural: Any) -> None:
    model = neural.MLPClassifier((5, 3), max_iter=3, random_state=0).fit(X.astype(dtype), LABELS[labels])
    onnx(model, tmp_path / "m.onnx")
    runtime = session(tmp_path / "m.onnx")
    for rows in (X, X[:1]):
        label, probabilities = runtime.run(None, {"X": rows.astype(dtype)})
        expected = model.predict(rows.astype(dtype))
        assert expected.tolist() == label.tolist()
        assert label.dtype == (object if expected.dtype.kind == "U" else expected.dtype)
        np.testing.assert_allclose(probabilities, model.predict_proba(rows.astype(dtype)), rtol=1e-4)
    label, probabilities = runtime.run(None, {"X": X[:0].astype(dtype)})
    assert (0, 0) == (len(label), len(probabilities))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_probabilities_are_no_zeros(tmp_path: Path, dtype: Any) -> None:
    """onnxruntime's own Sigmoid is 0 from -18 on in float32, from -37 on in float64."""

    class Fitted:
        coefs_ = (np.ones((1, 1), dtype),)
        intercepts_ = (np.zeros(1, dtype),)
        activation, out_activation_ = "relu", "logistic"
        classes_ = np.array([0, 1])

    onnx(Fitted(), tmp_path / "m.onnx")
    x = np.array([[-80.0], [-40.0], [-20.0], [-1.0], [0.0], [90.0], [900.0]], dtype)
    label, probabilities = session(tmp_path / "m.onnx").run(None, {"X": x})
    assert [0, 0, 0, 0, 0, 1, 1] == label.tolist()
    expected = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    np.testing.assert_allclose(probabilities[:, 1:], expected, rtol=1e-6 if dtype is np.float32 else 1e-14)


@pytest.mark.parametrize("neural", [sklearn, karp], ids=["scikit-learn", "karp"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor(
    tmp_path: Path, activation: str, settings: dict[str, Any], outputs: int, neural: Any
) -> None:  # fmt: skip
    y = np.exp(X[:, :outputs]) if outputs > 1 else np.exp(X[:, 0])
    model = neural.MLPRegressor(
        hidden_layer_sizes=(5,), activation=activation, max_iter=3, random_state=0, **settings).fit(X, y)  # fmt: skip
    onnx(model, tmp_path / "m.onnx")
    (value,) = session(tmp_path / "m.onnx").run(None, {"X": X})
    expected = model.predict(X)
    assert (expected.shape, expected.dtype) == (value.shape, value.dtype)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_another_activation_is_refused(tmp_path: Path) -> None:
    model = karp.MLPRegressor(max_iter=1).fit(X, X[:, 0])
    model.activation = "swish"
    with pytest.raises(SettingError, match="the activations 'swish' and 'identity' have no ONNX form"):
        onnx(model, tmp_path / "m.onnx")
