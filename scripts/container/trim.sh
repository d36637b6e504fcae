#!/usr/bin/env bash
# Takes out of an environment what nothing loads at run time: static libraries, headers for compiling against the
# packages, and the packages' own tests. Prints what it freed. Used by the Dockerfile, in the layer that installs.
#
#   bash scripts/container/trim.sh /opt/venvs/core
set -euo pipefail
cd "$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

size() { du -sm . | cut -f1; }
before=$(size)
find . -name '*.a' -delete
# NVIDIA's headers and device code to link with; Triton brings the few headers that its launchers need.
find nvidia -depth \( -type d -name include -o -name '*.bc' -o -name '*.cmake' \) -exec rm -rf {} + 2>/dev/null || true
for package in numpy scipy sympy networkx mpmath; do
    [ ! -d "$package" ] || find "$package" -depth -type d -name tests -exec rm -rf {} +
done
echo "trimmed: $before MB to $(size) MB"
