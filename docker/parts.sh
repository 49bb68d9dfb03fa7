#!/bin/sh
# Divides what pip installed of our own code into the folders that become layers (Dockerfile).
#
#   sh parts.sh /own /parts
set -eu
own=$1 parts=$2
site=lib/python$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages
part() {  # part NUMBER PATH...: these paths below $own go into that part
  number=$1; shift
  for path in "$@"; do
    mkdir -p "$parts/$number/$site/$(dirname "$path")"
    mv "$own/$path" "$parts/$number/$site/$path"
  done
}
find "$own" -name __pycache__ -prune -exec rm -rf {} +
part 1 models privacy tessera orchestrator
cd "$own"
part 2 datasites/data datasites/language datasites/study datasites/strategy datasites/training datasites/worker datasites/syft
part 3 datasites
part 4 *.dist-info
mv "$own/bin" "$parts/4/bin"
test -z "$(ls -A "$own")" || { echo "left over: $(ls -A "$own")" >&2; exit 1; }
for number in 1 2 3; do
  python -m compileall -q -j 0 --invalidation-mode checked-hash -s "$parts/$number" -p /opt/tessera "$parts/$number/$site"
done
find "$parts" -exec touch -h -d @0 {} +
