#!/usr/bin/env bash
# Prints a folder that has prometheus and promtool. Where they are not installed, Debian's package is unpacked into the
# cache: installing it would start a server.
set -euo pipefail
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    dirname "$(command -v prometheus)"
    exit
fi
folder=${XDG_CACHE_HOME:-$HOME/.cache}/taskflow-prometheus
if [ ! -x "$folder/usr/bin/prometheus" ]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        echo "hack/prometheus.sh: install Prometheus 2.42 or later; prometheus and promtool must be in PATH" >&2
        exit 1
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } >&2
    mkdir -p "$folder"
    dpkg -x prometheus_*.deb "$folder"
fi
echo "$folder/usr/bin"
