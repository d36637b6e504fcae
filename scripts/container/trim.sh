#!/usr/bin/env bash
# Takes out of an environment what training never loads, and prints what that freed. Used by the Dockerfile, in the
# layers that install: a file that a later layer removes would still take its room.
#
#   bash scripts/container/trim.sh /opt/venvs/core
set -euo pipefail
cd "$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

size() { du -sm . | cut -f1; }
before=$(size)
unneeded=(
    # CUDA: the solver for several GPUs, a second build of the compiler; no library of ours or torch's names them.
    nvidia/*/lib/libcusolverMg.so* nvidia/*/lib/libnvrtc*.alt.so*
    # For linking device code with NVSHMEM, which is for clusters.
    nvidia/nvshmem/lib/libnvshmem_device.*
    # Headers for compiling against CUDA and torch. Triton, which does compile, brings the few that it needs.
    nvidia/*/include torch/include
    # The libraries of Triton's own profiler, and the tools of its tests.
    triton/backends/nvidia/lib/cupti triton/FileCheck
)
for path in "${unneeded[@]}"; do rm -rf "$path"; done
find . -name '*.a' -delete # static libraries
for package in numpy scipy sympy networkx mpmath supervisor; do
    [ ! -d "$package" ] || find "$package" -depth -type d -name tests -exec rm -rf {} +
done
echo "trimmed: $before MB to $(size) MB"
