// A stand-in for a Node task API: a token check, validation, one INSERT, one queue.add a request; lists by OFFSET and
// count(*). ORIGIN_STORE says how it reaches the database: `prisma`, as such services do, or `pg`, without an ORM.
import express from "express";
import jwt from "jsonwebtoken";
import pg from "pg";
import { Queue } from "bullmq";
import { z } from "zod";

const store = z.enum(["prisma", "pg"]).parse(process.env.ORIGIN_STORE);
const secret = process.env.ORIGIN_SECRET;
const database = process.env.BENCH_DATABASE_URL;
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

// By SQL, not by Prisma's migrations: those need its schema engine, a download.
const setUp = new pg.Client(database);
await setUp.connect();
await setUp.query(`
  CREATE TABLE IF NOT EXISTS origin_tasks (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner_id uuid NOT NULL, type text NOT NULL, title text NOT NULL,
    status text NOT NULL DEFAULT 'PENDING', priority integer NOT NULL, payload jsonb NOT NULL, result jsonb, error text,
    attempts integer NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now());
  CREATE INDEX IF NOT EXISTS origin_tasks_owner ON origin_tasks (owner_id, created_at DESC);
  CREATE INDEX IF NOT EXISTS origin_tasks_status ON origin_tasks (status, created_at)`);
await setUp.end();

const { open } = await import(`./stores/${store}.js`);
const tasks = open(database);

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
  const task = await tasks.create(request.user.sub, parsed.data);
  await queue.add(task.type, { taskId: task.id }, { attempts: 3, backoff: { type: "exponential", delay: 1000 } });
  response.status(201).json(task);
});

app.get("/tasks", async (request, response) => {
  const { page, limit } = Page.parse(request.query);
  const [items, total] = await tasks.list(request.user.sub, page, limit);
  response.json({ items, total, page, limit });
});

app.get("/tasks/:id", async (request, response) => {
  const task = await tasks.find(request.user.sub, request.params.id);
  task ? response.json(task) : response.status(404).json({ error: "not found" });
});

app.listen(Number(process.env.ORIGIN_PORT), "127.0.0.1");
