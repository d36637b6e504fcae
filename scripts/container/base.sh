#!/usr/bin/env bash
# Makes the base image of the container tests from Debian's packages, because no image can be pulled where they run.
# It stands in for debian:bookworm-slim, and carries what this machine needs to reach package indexes: its certificates.
#
#   bash scripts/container/base.sh [cpu]    prints the image's name
#
#   cpu   also the folder of wheels that pip is told of here (a CPU build of torch), for a quicker, smaller image
#
# An image whose recipe has not changed is used again. Needs root, debootstrap and an engine (engine.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

docker=/usr/bin/docker
kind=${1:-plain}
wheels=""
if [ "$kind" = cpu ]; then
    wheels=$(python3 -m pip config get global.find-links 2>/dev/null || true)
    wheels=${wheels:-${PIP_FIND_LINKS:-}}
    [ -d "$wheels" ] || {
        echo "base.sh cpu: pip is told of no folder of wheels here (find-links)" >&2
        exit 2
    }
fi
recipe=$({
    cat scripts/container/base.sh /etc/ssl/certs/ca-certificates.crt
    echo "$kind"
    [ -z "$wheels" ] || ls -l "$wheels"
} | sha256sum | cut -c 1-12)
name=lora-pilot-base:$kind-$recipe
if "$docker" image inspect "$name" >/dev/null 2>&1; then
    echo "$name"
    exit 0
fi

root=$(mktemp -d /var/tmp/pilot-base.XXXXXX)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$root.log" 2>&1 || {
    tail -n 5 "$root.log" >&2
    exit 1
}
rm -f "$root.log"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
mirror=$(awk '$1 == "deb" { sub("/$", "", $2); print $2; exit }' "$root/etc/apt/sources.list") # debootstrap's own
printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s-security bookworm-security main\n' \
    "$mirror" "$mirror" "$mirror" >"$root/etc/apt/sources.list"
# As Debian's own image: no sync after each file, no translations.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
echo 'Acquire::Languages "none";' >"$root/etc/apt/apt.conf.d/docker-no-languages"
# As certificates of this machine's own: an update of ca-certificates then keeps them.
csplit --quiet --elide-empty-files --prefix="$root/usr/local/share/ca-certificates/machine-" --suffix-format=%03d.crt \
    /etc/ssl/certs/ca-certificates.crt '/-----BEGIN CERTIFICATE-----/' '{*}'
chroot "$root" update-ca-certificates >/dev/null 2>&1
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
if [ -n "$wheels" ]; then
    mkdir -p "$root/opt/wheels"
    cp "$wheels"/*.whl "$root/opt/wheels/"
    echo 'find-links = /opt/wheels' >>"$root/etc/pip.conf"
fi
tar -C "$root" -c . | "$docker" import --change 'ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt' - "$name" >/dev/null
echo "$name"
