#!/usr/bin/env bash
# `make image`: builds taskflow/platform, taskflow/operator and taskflow/probe (the platform with the tests' task types).
# With STAND_INS=1 also what compose and the tests run beside, from Debian's packages, for machines that reach no registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v docker >/dev/null || { echo "make image: docker is missing; install Docker, or run: eval \"\$(hack/kube/engine up)\"" >&2; exit 1; }
docker info >/dev/null 2>&1 || { echo "make image: no Docker engine answers; start it, or run: eval \"\$(hack/kube/engine up)\"" >&2; exit 1; }
export DOCKER_BUILDKIT=1
TAG=${TAG:-dev}
BASE=${PYTHON_IMAGE:-python:3.13-slim-trixie}
REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
for target in platform operator; do
    docker build --quiet --target "$target" --build-arg "BASE=$BASE" --build-arg "REVISION=$REVISION" \
        --tag "taskflow/$target:$TAG" .
done
docker build --quiet --build-arg "PLATFORM=taskflow/platform:$TAG" --file tests/images/probe.Dockerfile \
    --tag "taskflow/probe:$TAG" tests
if [ -n "${STAND_INS:-}" ]; then
    for target in postgres valkey mail prometheus; do
        docker build --quiet --target "$target" --build-arg "BASE=${DEBIAN_IMAGE:-debian:trixie-slim}" \
            --tag "taskflow/test-$target:$TAG" tests/images
    done
fi
docker image ls --filter "reference=taskflow/*" --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
