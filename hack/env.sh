#!/bin/sh
# `make env`: writes .env with new secrets for docker compose; never touches one that is there.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo ".env is there already; remove it to make new secrets (an existing database keeps its old password)"
    exit 0
fi
secret() { head -c 36 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
umask 077
cat > .env <<END
POSTGRES_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
TASKFLOW_JWT_SECRET=$(secret)
TASKFLOW_WEBHOOK_KEY=$(secret)
END
echo "wrote .env (readable by you alone); next: docker compose up --build --wait"
