"""API keys and the record of security events.

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
  expires_at timestamptz,
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
    "CREATE INDEX security_events_created ON security_events USING brin (created_at)",
    "ALTER TABLE task_logs ADD COLUMN fence bigint, ADD COLUMN line integer",
    "CREATE UNIQUE INDEX task_logs_line ON task_logs (task_id, fence, line) WHERE line IS NOT NULL",
    # The newest events are read often: without a summary of its own, the end of the table is read whole each time.
    "ALTER INDEX task_events_id SET (autosummarize = on)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX task_logs_line")
    op.execute("ALTER TABLE task_logs DROP COLUMN fence, DROP COLUMN line")
    op.execute("ALTER INDEX task_events_id RESET (autosummarize)")
    op.execute("DROP TABLE security_events, api_keys")
