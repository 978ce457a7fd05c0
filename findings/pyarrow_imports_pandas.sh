#!/usr/bin/env bash
# pyarrow imports all of pandas, where that is installed, as soon as an array is made from Python objects, a scalar is
# made, or an array becomes NumPy's: some 0.2 s at the start of a program that uses pyarrow so as not to need pandas.
# Reading files, casting, comparing, `to_pylist`, and arrays over buffers do without it.
# Seen with pyarrow 26.0.1 and pandas 3.1.1; a line says what was done first in a new process, and whether pandas was
# imported then:
#   read_csv and cast: no
#   from_buffers and to_pylist: no
#   array: yes
#   scalar: yes
#   to_numpy: yes
# Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet numpy==2.4.6 pyarrow==26.0.1 pandas==3.1.1
cd "$folder"
cat > main.py <<'PY'
import subprocess
import sys

READ = "table = csv.read_csv(io.BytesIO(b'a\\n1\\n2\\n'))"
BUFFERS = "pa.StringArray.from_buffers(2, pa.py_buffer(struct.pack('3i', 0, 1, 2)), pa.py_buffer(b'xy'))"
done = {
    "read_csv and cast": (READ + "; table['a'].cast(pa.float64())", False),
    "from_buffers and to_pylist": (BUFFERS + ".to_pylist()", False),
    "array": ("pa.array(['x', 'y'])", True),
    "scalar": ("pa.scalar('x')", True),
    "to_numpy": (READ + "; table['a'].to_numpy()", True),
}
wrong = 0
for what, (statement, expected) in done.items():
    program = f"import io, struct, sys; import pyarrow as pa; from pyarrow import csv; {statement}; print('pandas' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{what}: {'yes' if said == 'True' else 'no'}")
    wrong += said != str(expected)
sys.exit("changed" if wrong else 0)
PY
"$folder/env/bin/python" main.py
