/* A loop in SQL on PostgreSQL: COPY to submit, SKIP LOCKED to claim, LISTEN to wait. A raw table: no leases, retries or lanes.
   `--option 1tx` completes one batch and claims the next in one transaction. */

#include "driver.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct connection {
    PGconn *pg;
    /* Claimed and not completed, as an array of SQL. */
    char ids[8192];
    size_t n;
};

static PGresult *check(struct connection *c, PGresult *result, const char *what) {
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_COPY_IN) die("%s: %s", what, PQerrorMessage(c->pg));
    return result;
}

/* Like a client of PostgreSQL is to: a transaction that was the victim of a deadlock is begun anew. A claim that meets rows which
   others have just claimed waits for their transactions, SKIP LOCKED or not, so two of them can wait for each other. */
static PGresult *execute(struct connection *c, const char *statement, int n, const char *const *args) {
    for (;;) {
        PGresult *result = PQexecPrepared(c->pg, statement, n, args, NULL, NULL, 1);
        const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (!code || strcmp(code, "40P01")) return check(c, result, statement);
        PQclear(result);
    }
}

static void run(struct connection *c, const char *sql) { PQclear(check(c, PQexec(c->pg, sql), sql)); }

static void prepare(struct connection *c, const char *name, const char *sql) { PQclear(check(c, PQprepare(c->pg, name, sql, 0, NULL), sql)); }

static void *open_connection(int is_worker) {
    struct connection *c = calloc(1, sizeof *c);
    char info[256];
    snprintf(info, sizeof info, "host=%s port=%d dbname=postgres user=postgres", server_host, server_port);
    c->pg = PQconnectdb(info);
    if (PQstatus(c->pg) != CONNECTION_OK) die("connect: %s", PQerrorMessage(c->pg));
    if (!is_worker) {
        run(c, "SET client_min_messages = warning");
        run(c, "CREATE TABLE IF NOT EXISTS tasks (id bigserial PRIMARY KEY, state smallint NOT NULL DEFAULT 0, payload bytea NOT NULL) "
               "WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01)");
        run(c, "CREATE INDEX IF NOT EXISTS tasks_queue ON tasks (id) WHERE state = 0");
        prepare(c, "insert", "INSERT INTO tasks (payload) VALUES ($1)");
        prepare(c, "insert and wake", "WITH i AS (INSERT INTO tasks (payload) VALUES ($1) RETURNING id) SELECT pg_notify('tasks', '') FROM i");
    } else {
        run(c, "LISTEN tasks");
#define CLAIM "claimed AS MATERIALIZED (SELECT id FROM tasks WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) " \
              "UPDATE tasks SET state = 1 FROM claimed WHERE tasks.id = claimed.id RETURNING tasks.id, payload"
        prepare(c, "claim", "WITH " CLAIM);
        prepare(c, "complete", "UPDATE tasks SET state = 2 WHERE id = ANY ($1::bigint[])");
        prepare(c, "both", "WITH done AS (UPDATE tasks SET state = 2 WHERE id = ANY ($2::bigint[])), " CLAIM);
    }
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    (void)urgent;
    struct connection *c = connection;
    if (n == 1) {
        int length = PAYLOAD, binary = 1;
        PQclear(check(c, PQexecPrepared(c->pg, somebody_waits ? "insert and wake" : "insert", 1, &payloads, &length, &binary, 1), "insert"));
        return;
    }
    PQclear(check(c, PQexec(c->pg, "COPY tasks (payload) FROM STDIN"), "copy"));
    for (size_t i = 0; i < n; i++) {
        char line[2 * PAYLOAD + 8] = "\\\\x", *at = line + 3;
        for (int b = 0; b < PAYLOAD; b++) at += sprintf(at, "%02x", (unsigned char)payloads[i * PAYLOAD + (size_t)b]);
        *at++ = '\n';
        if (PQputCopyData(c->pg, line, (int)(at - line)) != 1) die("copy: %s", PQerrorMessage(c->pg));
    }
    if (PQputCopyEnd(c->pg, NULL) != 1) die("copy: %s", PQerrorMessage(c->pg));
    for (PGresult *result; (result = PQgetResult(c->pg));) PQclear(check(c, result, "copy"));
    if (somebody_waits) run(c, "NOTIFY tasks");
}

/* Takes in what was claimed. */
static void take(struct connection *c, PGresult *claimed) {
    char *at = c->ids;
    c->n = (size_t)PQntuples(claimed);
    *at++ = '{';
    for (int i = 0; i < (int)c->n; i++) {
        uint64_t id = 0;
        for (int b = 0; b < 8; b++) id = id << 8 | (unsigned char)PQgetvalue(claimed, i, 0)[b];
        at += sprintf(at, i ? ",%lu" : "%lu", (unsigned long)id);
        started(PQgetvalue(claimed, i, 1));
    }
    strcpy(at, "}");
    PQclear(claimed);
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    char limit[24];
    snprintf(limit, sizeof limit, "%zu", max);
    const char *args[] = {limit, c->n ? c->ids : "{}"};
    size_t done = c->n;
    if (!strcmp(server_option, "1tx")) {
        take(c, execute(c, "both", 2, args));
    } else {
        if (done) PQclear(execute(c, "complete", 1, args + 1));
        take(c, execute(c, "claim", 1, args));
    }
    if (!c->n && !done) {
        struct pollfd fd = {.fd = PQsocket(c->pg), .events = POLLIN};
        poll(&fd, 1, 50);
        PQconsumeInput(c->pg);
        for (PGnotify *notify; (notify = PQnotifies(c->pg));) PQfreemem(notify);
    }
    return done;
}

static void *open_app(void) {
    /* The apps wake nobody, for the workers have enough to do: a NOTIFY in each commit would let only one commit at a time. */
    somebody_waits = 0;
    return open_connection(0);
}

static void commit(void *app, const char *payload) { submit(app, payload, 1, 0); }

const struct peer peer = {open_connection, submit, work, 0, 1, open_app, commit};
