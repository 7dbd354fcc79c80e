// A stand-in for a Node task API: a token check, validation, one INSERT, one queue.add a request; lists by OFFSET and
// count(*). It uses `pg` directly: with an ORM such as Prisma, as such services have it, it would be slower.
import express from "express";
import jwt from "jsonwebtoken";
import pg from "pg";
import { Queue } from "bullmq";
import { z } from "zod";

const secret = process.env.ORIGIN_SECRET;
const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE_URL, max: 10 });
const redis = new URL(process.env.BENCH_REDIS_URL);
const connection = { host: redis.hostname, port: Number(redis.port), password: decodeURIComponent(redis.password) };
const queue = new Queue("tasks", { connection });

const NewTask = z.object({
  type: z.enum(["EMAIL", "REPORT", "SYNC"]),
  title: z.string().max(200).default(""),
  payload: z.record(z.string(), z.unknown()),
  priority: z.number().int().min(-100).max(100).default(0),
});
const Page = z.object({
  page: z.coerce.number().int().min(1).default(1),
  limit: z.coerce.number().int().min(1).max(100).default(20),
});

await pool.query(`
  CREATE TABLE IF NOT EXISTS origin_tasks (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner_id uuid NOT NULL, type text NOT NULL, title text NOT NULL,
    status text NOT NULL DEFAULT 'PENDING', priority integer NOT NULL, payload jsonb NOT NULL, result jsonb, error text,
    attempts integer NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now());
  CREATE INDEX IF NOT EXISTS origin_tasks_owner ON origin_tasks (owner_id, created_at DESC);
  CREATE INDEX IF NOT EXISTS origin_tasks_status ON origin_tasks (status, created_at)`);

const app = express();
app.use(express.json({ limit: "256kb" }));

app.get("/health", (_request, response) => response.json({ status: "ok" }));

app.use((request, response, next) => {
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  try {
    if (scheme !== "Bearer") throw new Error("no token");
    request.user = jwt.verify(token, secret, { algorithms: ["HS256"] });
    next();
  } catch {
    response.status(401).json({ error: "unauthenticated" });
  }
});

app.post("/tasks", async (request, response) => {
  const parsed = NewTask.safeParse(request.body);
  if (!parsed.success) return response.status(422).json({ error: parsed.error.issues });
  const { type, title, payload, priority } = parsed.data;
  const { rows } = await pool.query(
    "INSERT INTO origin_tasks (owner_id, type, title, payload, priority) VALUES ($1, $2, $3, $4, $5) RETURNING *",
    [request.user.sub, type, title, payload, priority],
  );
  await queue.add(type, { taskId: rows[0].id }, { attempts: 3, backoff: { type: "exponential", delay: 1000 } });
  response.status(201).json(rows[0]);
});

app.get("/tasks", async (request, response) => {
  const { page, limit } = Page.parse(request.query);
  const [rows, count] = await Promise.all([
    pool.query(
      "SELECT * FROM origin_tasks WHERE owner_id = $1 ORDER BY created_at DESC LIMIT $2 OFFSET $3",
      [request.user.sub, limit, (page - 1) * limit],
    ),
    pool.query("SELECT count(*) FROM origin_tasks WHERE owner_id = $1", [request.user.sub]),
  ]);
  response.json({ items: rows.rows, total: Number(count.rows[0].count), page, limit });
});

app.get("/tasks/:id", async (request, response) => {
  const { rows } = await pool.query("SELECT * FROM origin_tasks WHERE id = $1 AND owner_id = $2", [
    request.params.id,
    request.user.sub,
  ]);
  rows.length ? response.json(rows[0]) : response.status(404).json({ error: "not found" });
});

app.listen(Number(process.env.ORIGIN_PORT), "127.0.0.1");
