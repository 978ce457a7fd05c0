#!/usr/bin/env bash
# A product whose first operand is transposed ends the process where a batch has no rows: onnxruntime makes one node of
# Transpose and MatMul, which divides by a size that is 0 then (SIGFPE). Without graph optimisations, and with a Reshape
# to the shape [0, 0, 0], which copies each size, between the two, the result has no rows, as it should.
# Seen with onnxruntime 1.18.1, 1.20.1, 1.22.1, 1.24.4 and 1.28.0 on Linux x86_64, CPython 3.11; 1.32.0 has it right:
#   1 row: (2, 1, 4)
#   0 rows without optimisations: (2, 0, 4)
#   0 rows: exit status 136 (Floating point exception)
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.28.0
cat > "$folder/make.py" <<'PY'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), helper.make_node("MatMul", ["t", "w"], ["y"])]
weight = numpy_helper.from_array(np.ones((2, 3, 4), np.float32), "w")
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2, 3])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
graph = helper.make_graph(nodes, "graph", [x], [y], [weight])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), sys.argv[1])
PY
cat > "$folder/run.py" <<'PY'
import sys

import numpy as np
import onnxruntime

path, rows, level = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
session = onnxruntime.InferenceSession(path, options)
print(session.run(None, {"x": np.zeros((int(rows), 2, 3), np.float32)})[0].shape)
PY
"$folder/env/bin/python" "$folder/make.py" "$folder/model.onnx"
run() { "$folder/env/bin/python" "$folder/run.py" "$folder/model.onnx" "$@"; }
echo "1 row: $(run 1 ORT_ENABLE_ALL)"
echo "0 rows without optimisations: $(run 0 ORT_DISABLE_ALL)"
status=0
run 0 ORT_ENABLE_ALL 2> "$folder/said" || status=$?
echo "0 rows: exit status $status"
[ "$status" = 136 ]
