#!/usr/bin/env bash
# ParquetFile.iter_batches(rows) holds more than the rows of a batch. By default it reads the whole file ahead
# (pre_buffer=True); with pre_buffer=False it holds the column chunks of a row group, which may be as large as the file.
# Only with buffer_size= is a chunk read piece by piece. The documentation names pre_buffer for minimal memory, and says of
# buffer_size that reads are buffered then, and of memory nothing.
# Seen with pyarrow 26.0.1, one file of 64 MB with two row groups, in batches of 1,000 rows; the most that pyarrow held:
#   {}: 64 MB
#   {'pre_buffer': False}: 40 MB
#   {'pre_buffer': False, 'buffer_size': 65536}: 1 MB
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
cat > show.py <<'PY'
import json
import sys

import pyarrow
import pyarrow.parquet as parquet

options = json.loads(sys.argv[1])
for batch in parquet.ParquetFile("table.parquet", **options).iter_batches(1000, use_threads=False):
    pass
print(round(pyarrow.default_memory_pool().max_memory() / 1e6))
PY
cat > main.py <<'PY'
import json
import subprocess
import sys

import numpy
import pyarrow
import pyarrow.parquet as parquet

columns = numpy.random.default_rng(0).random((4, 2_000_000))
table = pyarrow.table({str(place): column for place, column in enumerate(columns)})
parquet.write_table(table, "table.parquet", row_group_size=1_000_000, use_dictionary=False, compression="none")
held = []
for options in ({}, {"pre_buffer": False}, {"pre_buffer": False, "buffer_size": 1 << 16}):
    done = subprocess.run([sys.executable, "show.py", json.dumps(options)], capture_output=True, text=True, check=True)
    held.append(int(done.stdout))
    print(f"{options}: {held[-1]} MB")
sys.exit(0 if held[0] > 60 > 50 > held[1] > 30 > 10 > held[2] else "changed")
PY
"$folder/env/bin/python" main.py
