#!/usr/bin/env bash
# A kind cluster of our own, with our images on its node:
#   hack/kind.sh up     create it if it is not there, bring it the images that are here
#   hack/kind.sh load   bring it the images again, after another make image
#   hack/kind.sh down   delete it
# kind makes its context `kind-taskflow` the current one of your kubeconfig, or of KUBECONFIG. KIND_IMAGE names a node.
set -euo pipefail
NAME=taskflow
TAG=${TAG:-dev}

fail() {
    echo "hack/kind.sh: $*" >&2
    exit 2
}

exists() { kind get clusters 2>/dev/null | grep -qx "$NAME"; }

images() { docker image ls --filter "reference=taskflow/*:$TAG" --format '{{.Repository}}:{{.Tag}}'; }

load() {
    # shellcheck disable=SC2046 # names of images hold no spaces
    kind load docker-image --name "$NAME" $(images)
}

[ $# = 1 ] || fail "which command? hack/kind.sh up|load|down"
command -v kind >/dev/null || fail "kind is missing; install it: https://kind.sigs.k8s.io"
command -v docker >/dev/null || fail "docker is missing; kind runs its nodes as containers: install Docker"
docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it"
case $1 in
up)
    if exists; then
        kind export kubeconfig --name "$NAME"
    else
        kind create cluster --name "$NAME" --wait 180s ${KIND_IMAGE:+--image "$KIND_IMAGE"}
    fi
    if [ -n "$(images)" ]; then load; fi
    ;;
load)
    exists || fail "there is no cluster $NAME; run: hack/kind.sh up"
    [ -n "$(images)" ] || fail "there is no image taskflow/*:$TAG; run: make image"
    load
    ;;
down) kind delete cluster --name "$NAME" ;;
*) fail "no command $1; there are up, load and down" ;;
esac
