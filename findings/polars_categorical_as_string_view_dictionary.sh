#!/usr/bin/env bash
# A polars Categorical reaches pyarrow, over the Arrow stream that both speak, as dictionary<values=string_view,
# indices=uint32>. pyarrow can neither decode that dictionary nor cast it to text: both need a `take` on string_view,
# which has no kernel. Casting the dictionary's values and taking them by the indices works, and so does to_pylist.
# (An Enum is a dictionary of string_view, too; polars' own to_arrow() has large_string in its place.)
# Seen with polars 2.1.0, pyarrow 26.0.1:
#   dictionary<values=string_view, indices=uint32, ordered=0>
#   dictionary_decode: ArrowNotImplementedError
#   cast to string: ArrowNotImplementedError
#   values cast, then take: ['b', 'a', 'b']
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet polars==2.1.0 pyarrow==26.0.1
"$folder/env/bin/python" - <<'PY'
import sys

import polars
import pyarrow

frame = polars.DataFrame({"letter": polars.Series(["b", "a", "b"], dtype=polars.Categorical)})
column = pyarrow.table(frame)["letter"].chunk(0)
print(column.type)
seen = [str(column.type).startswith("dictionary<values=string_view")]
for name, decode in {
    "dictionary_decode": column.dictionary_decode,
    "cast to string": lambda: column.cast(pyarrow.string()),
}.items():
    try:
        print(f"{name}:", decode().to_pylist())
        seen.append(False)
    except pyarrow.ArrowNotImplementedError as error:
        print(f"{name}:", type(error).__name__)
        seen.append(True)
values = column.dictionary.cast(pyarrow.large_string()).take(column.indices).to_pylist()
print("values cast, then take:", values)
sys.exit(0 if all(seen) and values == ["b", "a", "b"] else "changed")
PY
