/* The client of limit_broker.c: a DEALER submits, a REQ says what is done and asks for more in one word. An app opens the
   database that `--option` names, with SQLite's own settings and patience; the broker does not look for what it inserts. */

#include "driver.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { BATCH_MAX = 1024 };

struct connection {
    void *socket;
    int asked;
    size_t n;
    uint64_t ids[BATCH_MAX];
};

static void *open_connection(int is_worker) {
    struct connection *c = calloc(1, sizeof *c);
    void *context = zmq_ctx_new();
    c->socket = zmq_socket(context, is_worker ? ZMQ_REQ : ZMQ_DEALER);
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "tcp://%s:%d", server_host, server_port);
    if (zmq_connect(c->socket, endpoint)) die("connect to %s", endpoint);
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    struct connection *c = connection;
    char answer[8];
    zmq_send(c->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(c->socket, urgent ? "U" : "S", 1, ZMQ_SNDMORE);
    zmq_send(c->socket, payloads, n * PAYLOAD, 0);
    zmq_recv(c->socket, answer, sizeof answer, 0);
    if (zmq_recv(c->socket, answer, sizeof answer, 0) != 2) die("submit: no answer");
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    static char payloads[BATCH_MAX * PAYLOAD];
    size_t done = 0;
    if (!c->asked) {
        uint32_t wanted = (uint32_t)(max < BATCH_MAX ? max : BATCH_MAX);
        zmq_send(c->socket, "W", 1, ZMQ_SNDMORE);
        zmq_send(c->socket, &wanted, sizeof wanted, ZMQ_SNDMORE);
        zmq_send(c->socket, c->ids, c->n * sizeof *c->ids, 0);
        c->asked = 1;
        /* The answer to the last word of all would wait for a task that never comes. */
        done = c->n;
        c->n = 0;
    }
    zmq_pollitem_t item = {c->socket, 0, ZMQ_POLLIN, 0};
    if (zmq_poll(&item, 1, 50) <= 0) return done;
    c->asked = 0;
    int bytes = zmq_recv(c->socket, c->ids, sizeof c->ids, 0);
    if (bytes < 0) die("work: no answer");
    c->n = (size_t)bytes / sizeof *c->ids;
    zmq_recv(c->socket, payloads, sizeof payloads, 0);
    for (size_t i = 0; i < c->n; i++) started(payloads + i * PAYLOAD);
    return done;
}

struct app {
    sqlite3 *db;
    sqlite3_stmt *insert;
};

static void *open_app(void) {
    struct app *app = calloc(1, sizeof *app);
    if (sqlite3_open(server_option, &app->db)) die("cannot open %s", server_option);
    sqlite3_busy_timeout(app->db, 20000);
    if (sqlite3_prepare_v2(app->db, "INSERT INTO tasks (state, payload) VALUES (0, ?1)", -1, &app->insert, NULL)) die("%s", sqlite3_errmsg(app->db));
    return app;
}

static void commit(void *connection, const char *payload) {
    struct app *app = connection;
    sqlite3_bind_blob(app->insert, 1, payload, PAYLOAD, SQLITE_STATIC);
    /* Who gets no lock within the busy timeout tries again, and the wait goes on. */
    while (sqlite3_step(app->insert) != SQLITE_DONE)
        if (sqlite3_reset(app->insert) != SQLITE_BUSY) die("insert: %s", sqlite3_errmsg(app->db));
    sqlite3_reset(app->insert);
}

const struct peer peer = {open_connection, submit, work, 1, 1, open_app, commit};
