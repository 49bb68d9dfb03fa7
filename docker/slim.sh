#!/bin/sh
# Removes from an environment what no role needs at run time: tests, static libraries, headers, build helpers.
set -eu
site=$(echo "$1"/lib/python3*/site-packages)
cd "$site"
rm -rf torch/test torch/include torch/share torch/lib/*.a caffe2 torchgen/packaged
find . -type d \( -name tests -o -name test \) -not -path './torch/*' -not -path './numpy/*' -prune -exec rm -rf {} +
find . \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.hpp' -o -name '*.pyi' \) -type f -delete
find torch/bin -type f -not -name torch_shm_manager -delete
rm -rf pyarrow/include pyarrow/src
find googleapiclient/discovery_cache/documents -name '*.json' -not -name 'drive.v3.json' -delete  # 100 MB of other APIs

# RECORDs promise what is left: a role's environment is compared with them (datasites/node/installed.py).
"$1/bin/python" - <<'END'
import csv, pathlib
for record in pathlib.Path().glob("*.dist-info/RECORD"):
    rows = list(csv.reader(record.read_text().splitlines()))
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(row for row in rows if row[0].endswith(".pyc") or pathlib.Path(row[0]).exists())
END
