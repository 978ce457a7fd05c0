#!/usr/bin/env bash
# gzip.GzipFile(fileobj=SpooledTemporaryFile()) without a mode opens for writing, although the file holds compressed data
# and stands at its beginning: GzipFile asks the file for its mode, and that of a temporary file is 'w+b'. Reading is then
# an error, with a FutureWarning before it. (An io.BytesIO has no mode, so there the same call reads.)
# Seen with CPython 3.11.7, standard library alone:
#   BytesIO: read b'karp'
#   SpooledTemporaryFile: FutureWarning OSError: [Errno 9] read() on write-only GzipFile object
# Ends with 0 while this is so.
set -euo pipefail
python3 - <<'PY'
import gzip
import io
import sys
import tempfile
import warnings

packed = gzip.compress(b"karp")
print("BytesIO: read", gzip.GzipFile(fileobj=io.BytesIO(packed)).read())
with tempfile.SpooledTemporaryFile() as file, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    file.write(packed)
    file.seek(0)
    try:
        gzip.GzipFile(fileobj=file).read()
    except OSError as error:
        kinds = [warning.category.__name__ for warning in caught]
        print("SpooledTemporaryFile:", *kinds[:1], "OSError:", error)
        sys.exit(0 if kinds == ["FutureWarning"] and "write-only" in str(error) else 1)
sys.exit("changed: it can be read")
PY
