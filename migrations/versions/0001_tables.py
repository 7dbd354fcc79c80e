"""All tables of the platform: users, tasks and their history, runtime, effects of the task types.

Revision: 0001, the first.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

USERS = """
CREATE TABLE users (
  id uuid PRIMARY KEY,
  email text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) <= 320),
  password_hash text NOT NULL,
  role text NOT NULL DEFAULT 'USER' CHECK (role IN ('USER', 'OPERATOR', 'ADMIN')),
  token_version integer NOT NULL DEFAULT 0,
  disabled_at timestamptz,
  last_login_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE refresh_tokens (
  id uuid PRIMARY KEY,
  family_id uuid NOT NULL,
  user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
  parent_id uuid,
  user_agent text NOT NULL DEFAULT '',
  address text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  family_expires_at timestamptz NOT NULL,
  used_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX ix_refresh_tokens_family_id ON refresh_tokens (family_id);
CREATE INDEX ix_refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX ix_refresh_tokens_family_expires_at ON refresh_tokens (family_expires_at);
"""

# fillfactor leaves room on the page for a claim of every row on it (heap-only tuples); the early vacuum keeps
# dead versions few, because a busy table would otherwise wait for a fifth of it to be dead.
TASKS = """
CREATE TABLE tasks (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL,
  type text NOT NULL CHECK (length(type) BETWEEN 1 AND 64),
  title text NOT NULL DEFAULT '' CHECK (length(title) <= 200),
  queue text NOT NULL DEFAULT 'default' CHECK (queue ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
  lane text NOT NULL,
  priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
  status text NOT NULL DEFAULT 'PENDING'
    CHECK (status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELED')),
  payload jsonb NOT NULL,
  result jsonb,
  error jsonb,
  progress jsonb,
  tags text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 20),
  attempt integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 100),
  fence bigint NOT NULL DEFAULT 0,
  timeout_s integer NOT NULL DEFAULT 300 CHECK (timeout_s BETWEEN 1 AND 86400),
  run_at timestamptz NOT NULL DEFAULT now(),
  enqueued_at timestamptz,
  claimed_at timestamptz,
  worker_id text,
  lease_expires_at timestamptz,
  cancel_requested_at timestamptz,
  dedup_key text CHECK (length(dedup_key) BETWEEN 1 AND 255),
  batch_id uuid,
  schedule_id uuid,
  fire_at timestamptz,
  traceparent text,
  row_version integer NOT NULL DEFAULT 1,
  unsuccessful text GENERATED ALWAYS AS (CASE WHEN status IN ('FAILED', 'CANCELED') THEN status END) STORED,
  created_at timestamptz NOT NULL,
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT tasks_running_has_lease CHECK ((status = 'RUNNING') = (lease_expires_at IS NOT NULL)),
  CONSTRAINT tasks_final_is_finished
    CHECK ((status IN ('COMPLETED', 'FAILED', 'CANCELED')) = (finished_at IS NOT NULL)),
  CONSTRAINT tasks_attempts_bounded CHECK (attempt BETWEEN 0 AND max_attempts),
  CONSTRAINT tasks_payload_bounded CHECK (pg_column_size(payload) <= 1048576)
) WITH (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX tasks_owner ON tasks (owner_id, id DESC);
CREATE INDEX tasks_owner_open ON tasks (owner_id, id DESC) WHERE finished_at IS NULL;
CREATE INDEX tasks_unsuccessful ON tasks (unsuccessful, id DESC) WHERE unsuccessful IS NOT NULL;
CREATE INDEX tasks_owner_unsuccessful ON tasks (owner_id, unsuccessful, id DESC) WHERE unsuccessful IS NOT NULL;
CREATE INDEX tasks_due ON tasks (run_at) WHERE finished_at IS NULL AND enqueued_at IS NULL;
CREATE INDEX tasks_enqueued ON tasks (lane, enqueued_at) WHERE finished_at IS NULL AND enqueued_at IS NOT NULL;
CREATE UNIQUE INDEX tasks_dedup ON tasks (owner_id, type, dedup_key)
  WHERE finished_at IS NULL AND dedup_key IS NOT NULL;
CREATE INDEX tasks_batch ON tasks (batch_id) WHERE batch_id IS NOT NULL;
CREATE UNIQUE INDEX tasks_fire ON tasks (schedule_id, fire_at) WHERE schedule_id IS NOT NULL;
"""

HISTORY = """
CREATE TABLE task_attempts (
  task_id uuid NOT NULL,
  fence bigint NOT NULL,
  attempt integer NOT NULL,
  worker_id text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN
    ('completed', 'failed', 'retried', 'timed_out', 'canceled', 'released', 'snoozed', 'lost')),
  error jsonb,
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, fence)
);
CREATE TABLE task_events (
  id bigint GENERATED ALWAYS AS IDENTITY,
  task_id uuid NOT NULL,
  owner_id uuid NOT NULL,
  kind text NOT NULL,
  attempt integer NOT NULL,
  data jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, id)
);
CREATE INDEX task_events_id ON task_events USING brin (id);
CREATE TABLE task_logs (
  id bigint GENERATED ALWAYS AS IDENTITY,
  task_id uuid NOT NULL,
  attempt integer NOT NULL,
  level text NOT NULL,
  message text NOT NULL,
  fields jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, id)
);
CREATE TABLE idempotency_keys (
  owner_id uuid NOT NULL,
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_hash bytea NOT NULL,
  task_id uuid,
  response jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (owner_id, key)
);
CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at);
"""

RUNTIME = """
CREATE TABLE workers (
  id text PRIMARY KEY,
  name text NOT NULL,
  hostname text NOT NULL,
  pid integer NOT NULL,
  queues text[] NOT NULL,
  slots integer NOT NULL CHECK (slots > 0),
  held uuid[] NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'draining')),
  version text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE TABLE queues (
  name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
  paused_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE schedules (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  cron text NOT NULL,
  timezone text NOT NULL DEFAULT 'UTC',
  misfire text NOT NULL DEFAULT 'skip' CHECK (misfire IN ('skip', 'fire_once')),
  template jsonb NOT NULL,
  next_fire_at timestamptz,
  last_fire_at timestamptz,
  paused_at timestamptz,
  paused_reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_schedules_owner_id ON schedules (owner_id);
CREATE INDEX schedules_next ON schedules (next_fire_at) WHERE paused_at IS NULL;
CREATE TABLE webhook_endpoints (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  url text NOT NULL CHECK (length(url) <= 2048),
  secret bytea NOT NULL,
  kinds text[] NOT NULL,
  disabled_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_webhook_endpoints_owner_id ON webhook_endpoints (owner_id);
CREATE TABLE webhook_deliveries (
  id uuid PRIMARY KEY,
  endpoint_id uuid NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
  task_id uuid NOT NULL,
  kind text NOT NULL,
  body jsonb NOT NULL,
  attempt integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz,
  delivered_at timestamptz,
  response jsonb,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_webhook_deliveries_endpoint_id ON webhook_deliveries (endpoint_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE TABLE platform_state (
  key text PRIMARY KEY,
  value text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);
"""

EFFECTS = """
CREATE TABLE email_sends (
  task_id uuid PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
  message_id text NOT NULL,
  recipients jsonb NOT NULL,
  sent_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE task_files (
  task_id uuid NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  seq integer NOT NULL CHECK (seq >= 0),
  media_type text NOT NULL,
  size bigint NOT NULL CHECK (size >= 0),
  content bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (task_id, name, seq)
);
CREATE TABLE synced_records (
  owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  collection text NOT NULL CHECK (length(collection) BETWEEN 1 AND 100),
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 500),
  data jsonb NOT NULL,
  digest bytea NOT NULL,
  task_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (owner_id, collection, key)
);
CREATE TABLE sync_sources (
  owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  collection text NOT NULL,
  url text NOT NULL,
  etag text,
  last_modified text,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (owner_id, collection, url)
);
"""

# lz4 is faster than pglz; a server built without it keeps its default.
COMPRESSION = """
DO $$ BEGIN
  ALTER TABLE tasks ALTER COLUMN payload SET COMPRESSION lz4, ALTER COLUMN result SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
  NULL;
END $$;
"""

TABLES = (
    "sync_sources, synced_records, task_files, email_sends, platform_state, webhook_deliveries, webhook_endpoints, "
    "schedules, queues, workers, idempotency_keys, task_logs, task_events, task_attempts, tasks, refresh_tokens, users"
)


def upgrade() -> None:
    for script in (USERS, TASKS, HISTORY, RUNTIME, EFFECTS):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)
    op.execute(COMPRESSION)


def downgrade() -> None:
    op.execute(f"DROP TABLE {TABLES}")
