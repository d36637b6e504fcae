#!/usr/bin/env bash
# Builds the image's variants and pushes them to a registry of yours. Nothing is pushed without --push.
#
#   bash scripts/publish.sh REGISTRY/NAME [--push] [VARIANT...]
#
#   core         torch 2.13, CUDA 13, drivers 580 and newer; TensorBoard and JupyterLab
#   core-cu128   torch 2.10, CUDA 12.8, drivers 570 and newer
#   full         core with Kohya SS, AI Toolkit and ComfyUI in the image
#
# Without a variant: core, core-cu128, full. The tree has to be committed: the commit becomes the image's label and goes
# into every run's reproducibility file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'error in scripts/publish.sh\n  given    %s\n  allowed  %s\n  remedy   %s\n' "$1" "$2" "$3" >&2
    exit 2
}

push=no
variants=()
name=""
for word in "$@"; do
    case $word in
    --push) push=yes ;;
    core | core-cu128 | full) variants+=("$word") ;;
    -*) fail "$word" "--push" "See the top of the script." ;;
    *) [ -z "$name" ] || fail "$word" "core, core-cu128, full" "Name a variant."; name=$word ;;
    esac
done
[ -n "$name" ] || fail "no image name" "REGISTRY/NAME" "For example ghcr.io/you/lora-pilot."
[ ${#variants[@]} -gt 0 ] || variants=(core core-cu128 full)
[ -z "$(git status --porcelain --untracked-files=no)" ] || fail "changes that are not committed" "a clean tree" "Commit them first."

revision=$(git rev-parse HEAD)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' trainpilot/__init__.py)
for variant in "${variants[@]}"; do
    arguments=(--build-arg "REVISION=$revision" --build-arg "VERSION=$version")
    case $variant in
    core-cu128) arguments+=(--build-arg "TORCH=torch===2.10.0") ;;
    full) arguments+=(--build-arg "SERVICES=kohya ai-toolkit comfyui") ;;
    esac
    DOCKER_BUILDKIT=1 docker build "${arguments[@]}" --tag "$name:$variant" --tag "$name:$version-$variant" .
    docker image inspect --format "$name:$variant  {{.Size}} bytes" "$name:$variant"
    if [ "$push" = yes ]; then
        docker push "$name:$variant"
        docker push "$name:$version-$variant"
    fi
done
