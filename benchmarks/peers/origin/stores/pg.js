import pg from "pg";

export function open(connectionString) {
  const pool = new pg.Pool({ connectionString, max: 10 });
  return {
    async create(ownerId, { type, title, payload, priority }) {
      const { rows } = await pool.query(
        "INSERT INTO origin_tasks (owner_id, type, title, payload, priority) VALUES ($1, $2, $3, $4, $5) RETURNING *",
        [ownerId, type, title, payload, priority],
      );
      return rows[0];
    },
    async find(ownerId, id) {
      const { rows } = await pool.query("SELECT * FROM origin_tasks WHERE id = $1 AND owner_id = $2", [id, ownerId]);
      return rows[0];
    },
    async list(ownerId, page, limit) {
      const [found, counted] = await Promise.all([
        pool.query("SELECT * FROM origin_tasks WHERE owner_id = $1 ORDER BY created_at DESC LIMIT $2 OFFSET $3", [
          ownerId,
          limit,
          (page - 1) * limit,
        ]),
        pool.query("SELECT count(*) FROM origin_tasks WHERE owner_id = $1", [ownerId]),
      ]);
      return [found.rows, Number(counted.rows[0].count)];
    },
  };
}
