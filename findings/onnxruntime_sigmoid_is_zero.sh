#!/usr/bin/env bash
# onnxruntime's Sigmoid has no relative precision below zero: in float32 it is 17 % off at -15 and exactly 0 from -18 on,
# where 1 / (1 + Exp(-x)), from the same runtime's operators, is right to the last digits down to -88. So a probability
# of 1.5e-8 becomes 0, and its logarithm infinite. In float64 it is 4e-6 off at -25 and 0 at -37.
# Seen with onnxruntime 1.32.0 (CPU) on Linux x86_64, CPython 3.11:
#   float32 Sigmoid(-15), (-18): 3.5762787e-07 0.0, and not 3.0590223e-07 1.52299795e-08
#   float64 Sigmoid(-25), (-37): 1.38880019e-11 0.0, and not 1.38879439e-11 8.53304763e-17
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0
"$folder/env/bin/python" - <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

zeros = []
for kind, dtype, points in (("FLOAT", np.float32, [-15, -18]), ("DOUBLE", np.float64, [-25, -37])):
    x = helper.make_tensor_value_info("x", getattr(TensorProto, kind), [None])
    y = helper.make_tensor_value_info("y", getattr(TensorProto, kind), [None])
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    given = np.array(points, dtype)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": given})
    right = 1 / (1 + np.exp(-given))
    print(f"{given.dtype} Sigmoid({points[0]}), ({points[1]}):", *found, "and not", *right)
    zeros.append(found[1] == 0 < right[1])
sys.exit(0 if all(zeros) else 1)
PY
