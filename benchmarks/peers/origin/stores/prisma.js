import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "@prisma/client";

export function open(connectionString) {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString, max: 10 }) });
  return {
    create: (ownerId, task) => prisma.task.create({ data: { ownerId, ...task } }),
    find: (ownerId, id) => prisma.task.findFirst({ where: { id, ownerId } }),
    list: (ownerId, page, limit) =>
      Promise.all([
        prisma.task.findMany({
          where: { ownerId },
          orderBy: { createdAt: "desc" },
          skip: (page - 1) * limit,
          take: limit,
        }),
        prisma.task.count({ where: { ownerId } }),
      ]),
  };
}
