#!/usr/bin/env bash
# learning_rate="invscaling" means two schedules in scikit-learn. SGDRegressor divides the rate by t ** power_t, where t
# counts the samples seen so far, and moves it at every sample. MLPRegressor's SGD divides by (t + 1) ** power_t, where t
# counts samples too, but moves it once an epoch: with the same rate, power and data the rates of an epoch differ.
# Seen with scikit-learn 1.9.1 and NumPy 2.4.6, CPython 3.11, rate 0.1, power 0.5, 10 rows in batches of 5, 3 epochs:
#   MLPRegressor after 3 epochs: 0.017961
#   rate of the last of 30 samples by SGDRegressor's rule: 0.018257
#   SGDRegressor's coefficient is that of the rule per sample: True
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn.linear_model import SGDRegressor
from sklearn.neural_network import MLPRegressor

x = np.linspace(-1, 1, 10).reshape(10, 1)
y = 2 * x[:, 0]
rate, power = 0.1, 0.5
settings = {"learning_rate": "invscaling", "power_t": power, "shuffle": False, "max_iter": 3, "tol": 0.0}

mlp = MLPRegressor(solver="sgd", hidden_layer_sizes=(2,), learning_rate_init=rate, batch_size=5, n_iter_no_change=9, **settings)
mlp.fit(x, y)
per_epoch = mlp._optimizer.learning_rate
print(f"MLPRegressor after 3 epochs: {per_epoch:.6f}")

coefficient, samples = 0.0, 0
for _ in range(3):
    for row, target in zip(x[:, 0], y, strict=True):
        samples += 1
        coefficient -= rate / samples**power * (coefficient * row - target) * row
print(f"rate of the last of {samples} samples by SGDRegressor's rule: {rate / samples**power:.6f}")
linear = SGDRegressor(eta0=rate, penalty=None, fit_intercept=False, **(settings | {"tol": None}))
linear.fit(x, y)
same = bool(np.isclose(coefficient, linear.coef_[0], rtol=1e-9))
print("SGDRegressor's coefficient is that of the rule per sample:", same)
sys.exit(0 if same and abs(per_epoch - rate / 31**power) < 1e-9 else 1)
PY
