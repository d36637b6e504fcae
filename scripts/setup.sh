#!/usr/bin/env bash
# Makes everything ready to run: .venv with torch (CPU or CUDA build) and this project, and the panel's front-end files.
# Safe to repeat; what is in place is skipped. Needs Python 3.11 or 3.12 and npm. Used by demo.sh, test.sh and the
# README.
#
#   PILOT_PYTHON       the Python to build on, else the first of python3.11, python3.12, python3
#   PILOT_TORCH_INDEX  a package index to take torch from, for a build that pip's own sources do not have
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'error in scripts/setup.sh\n  given    %s\n  allowed  %s\n  remedy   %s\n' "$1" "$2" "$3" >&2
    exit 2
}

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PILOT_PYTHON:+"$PILOT_PYTHON"} python3.11 python3.12 python3; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
        [ "$candidate" != "${PILOT_PYTHON:-}" ] || return 1
    done
    return 1
}

# --- which torch ------------------------------------------------------------------------------------------------------
driver=""
if command -v nvidia-smi >/dev/null 2>&1; then
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || driver=""
fi
major=${driver%%.*}
torch_pin=$(grep '^torch==' requirements.lock)
if [[ "$major" =~ ^[0-9]+$ ]] && [ "$major" -ge 580 ]; then
    build=cuda
    why="NVIDIA driver $driver"
elif [[ "$major" =~ ^[0-9]+$ ]]; then
    build=cpu
    why="NVIDIA driver $driver is older than 580, which CUDA 13 needs: update the driver, or name an index of an older CUDA build in PILOT_TORCH_INDEX"
else
    build=cpu
    why="no NVIDIA driver answers"
fi

# --- is it in place already -------------------------------------------------------------------------------------------
python=.venv/bin/python
stamp=.venv/.pilot-setup
if ! suits "$python"; then
    base=$(find_python) || fail "${PILOT_PYTHON:-no python3.11, python3.12 or fitting python3}" "Python 3.11 or 3.12" \
        "Install one (with its venv module), or name one in PILOT_PYTHON."
    echo "setup: new .venv with $("$base" --version)"
    "$base" -m venv --clear .venv ||
        fail "$base cannot make a virtual environment" "a Python with its venv module" "Install the package python3-venv."
fi
wanted=$({
    cat pyproject.toml requirements.lock scripts/setup.sh
    echo "$PWD $build ${PILOT_TORCH_INDEX:-}"
    "$python" --version
} | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')

# --- install ----------------------------------------------------------------------------------------------------------
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "setup: torch as $build build ($why)"
    install=("$python" -m pip install --disable-pip-version-check --constraint requirements.lock)
    [ -t 1 ] || install+=(--quiet --quiet) # a person sees the progress, a log only errors
    if [ -n "${PILOT_TORCH_INDEX:-}" ]; then
        "${install[@]}" --extra-index-url "$PILOT_TORCH_INDEX" "$torch_pin"
    elif [ "$build" = cuda ]; then
        # "===" takes the build without a local version, which is the CUDA one, even where a +cpu file lies at hand.
        "${install[@]}" "torch===${torch_pin#torch==}"
    else
        echo "setup: where pip's sources have no CPU build this takes the CUDA build, several GB that also run on a CPU;"
        echo "setup: PILOT_TORCH_INDEX=<address of PyTorch's index of CPU builds> avoids that"
        "${install[@]}" "$torch_pin"
    fi
    "${install[@]}" --editable ".[train,panel,caption,evaluate,dev]"
    echo "$wanted" >"$stamp"
fi

# --- the panel's pages ------------------------------------------------------------------------------------------------
PILOT_FRONT_END=${PILOT_FRONT_END:-dev} bash scripts/front_end.sh

# --- what was found ---------------------------------------------------------------------------------------------------
DRIVER="$driver" WHY="$why" "$python" - <<'PYTHON'
import os, platform, shutil
import psutil, torch

if torch.cuda.is_available():
    device = f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, driver {os.environ['DRIVER']}"
else:
    device = f"CPU with {os.cpu_count()} cores ({os.environ['WHY']})"
gib = 2**30
memory, disk = psutil.virtual_memory().total / gib, shutil.disk_usage(".").free / gib
print(
    f"setup: ready: Python {platform.python_version()}, torch {torch.__version__}, {device}, "
    f"{memory:.0f} GiB memory, {disk:.0f} GiB disk free"
)
PYTHON
