"""API keys, the record of security events, and what webhooks need.

Revision: 0002. Only adds, so that processes of the version before go on working beside it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
CREATE TABLE api_keys (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  hint text NOT NULL,
  key_hash bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  last_used_at timestamptz,
  revoked_at timestamptz
)
""",
    "CREATE INDEX ix_api_keys_owner_id ON api_keys (owner_id)",
    """
CREATE TABLE security_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL,
  actor_id uuid,
  user_id uuid,
  address text NOT NULL DEFAULT '',
  user_agent text NOT NULL DEFAULT '',
  request_id text NOT NULL DEFAULT '',
  data jsonb,
  created_at timestamptz NOT NULL DEFAULT now()
)
""",
    "CREATE INDEX security_events_user ON security_events (user_id, id DESC)",
    "CREATE INDEX security_events_kind ON security_events (kind, id DESC)",
    "CREATE INDEX security_events_created ON security_events USING brin (created_at)",
    "ALTER TABLE task_logs ADD COLUMN fence bigint, ADD COLUMN line integer",
    "CREATE UNIQUE INDEX task_logs_line ON task_logs (task_id, fence, line) WHERE line IS NOT NULL",
    # The newest events are read often: without a summary of its own, the end of the table is read whole each time.
    "ALTER INDEX task_events_id SET (autosummarize = on)",
    "CREATE INDEX refresh_tokens_unused ON refresh_tokens (user_id) WHERE used_at IS NULL AND revoked_at IS NULL",
    """
ALTER TABLE webhook_endpoints
  ADD COLUMN types text[] NOT NULL DEFAULT '{}',
  ADD COLUMN queues text[] NOT NULL DEFAULT '{}',
  ADD COLUMN previous_secret bytea,
  ADD COLUMN previous_secret_expires_at timestamptz,
  ADD COLUMN first_failure_at timestamptz,
  ADD COLUMN enabled_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN disabled_reason text,
  ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now()
""",
    """
ALTER TABLE webhook_deliveries
  ALTER COLUMN task_id DROP NOT NULL,
  ADD COLUMN event_id bigint,
  ADD COLUMN gives_up_at timestamptz
""",
    """
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, next_attempt_at)
  WHERE next_attempt_at IS NOT NULL
""",
    """
CREATE UNIQUE INDEX webhook_deliveries_event ON webhook_deliveries (endpoint_id, event_id)
  WHERE event_id IS NOT NULL
""",
    "CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (endpoint_id, id DESC)",
    """
INSERT INTO platform_state (key, value)
  SELECT 'webhooks_cursor', (CASE WHEN is_called THEN last_value ELSE 0 END)::text FROM task_events_id_seq
""",
)
UNDO = (
    "DROP INDEX task_logs_line",
    "ALTER TABLE task_logs DROP COLUMN fence, DROP COLUMN line",
    "ALTER INDEX task_events_id RESET (autosummarize)",
    "DELETE FROM platform_state WHERE key = 'webhooks_cursor'",
    "DELETE FROM webhook_deliveries WHERE task_id IS NULL",
    "DROP INDEX webhook_deliveries_waiting, webhook_deliveries_event, webhook_deliveries_newest",
    """
ALTER TABLE webhook_deliveries ALTER COLUMN task_id SET NOT NULL, DROP COLUMN event_id, DROP COLUMN gives_up_at
""",
    """
ALTER TABLE webhook_endpoints DROP COLUMN types, DROP COLUMN queues, DROP COLUMN previous_secret,
  DROP COLUMN previous_secret_expires_at, DROP COLUMN first_failure_at, DROP COLUMN enabled_at,
  DROP COLUMN disabled_reason, DROP COLUMN updated_at
""",
    "DROP INDEX refresh_tokens_unused",
    "DROP TABLE security_events, api_keys",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for statement in UNDO:
        op.execute(statement)
