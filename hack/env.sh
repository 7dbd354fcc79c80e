#!/bin/sh
# `make env`: writes new secrets for docker compose into .env; a variable that is there already keeps its value.
set -eu
cd "$(dirname "$0")/.."
umask 077
secret() { head -c 36 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; } # fits into a URL as it is
added=
for name in POSTGRES_PASSWORD REDIS_PASSWORD TASKFLOW_JWT_SECRET TASKFLOW_WEBHOOK_KEY GRAFANA_PASSWORD; do
    if ! grep -qs "^$name=." .env; then
        # a file edited by hand may lack the end of its last line
        if [ -s .env ] && [ -n "$(tail -c 1 .env)" ]; then echo >> .env; fi
        echo "$name=$(secret)" >> .env
        added="$added $name"
    fi
done
if [ -z "$added" ]; then
    echo ".env holds every secret; remove it to make new ones (an existing database keeps its old password)"
else
    echo "wrote to .env:$added; next: docker compose up --build --wait"
fi
