#!/usr/bin/env bash
# A tensor named "__metadata__" is written by safetensors without an error into a file that safetensors cannot open.
# The file's header keeps its metadata under that key; the writer does not reserve it, the reader does.
# Seen with safetensors 0.8.0 and NumPy 2.4.6 on Linux x86_64, CPython 3.11:
#   saved: 88 bytes
#   opened: SafetensorError: Error while deserializing header: invalid JSON in header: invalid type: sequence, ...
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
"$folder/env/bin/python" - "$folder/file.safetensors" <<'PY'
import os
import sys

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

path = sys.argv[1]
save_file({"__metadata__": np.zeros(2, np.float32)}, path)
print("saved:", os.path.getsize(path), "bytes")
try:
    load_file(path)
except SafetensorError as error:
    print("opened: SafetensorError:", str(error)[:90])
    sys.exit(0 if "expected a string" in str(error) else 1)
sys.exit("changed: the file can be opened")
PY
