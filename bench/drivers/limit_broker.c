/* What the parts can do at most: a ROUTER that hands tasks from memory to workers that say ready, and nothing else; with a
   database, each task is a row, and all answers of a turn follow one commit. No leases, retries, kinds or limits.
   usage: limit_broker ENDPOINT [DATABASE full|normal [shared]]; without `shared` no other process may open the database */

#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum { PAYLOAD = 100, BATCH_MAX = 1024, TURN = 512, IDENTITY = 32 };

static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

struct task {
    uint64_t id;
    char payload[PAYLOAD];
};

/* First in, first out; grows by doubling. */
struct line {
    struct task *tasks;
    size_t from, n, size;
};

static struct line lines[2];

static void push(struct line *line, uint64_t id, const char *payload) {
    if (line->n == line->size) {
        size_t size = line->size ? 2 * line->size : 1024;
        struct task *tasks = malloc(size * sizeof *tasks);
        for (size_t i = 0; i < line->n; i++) tasks[i] = line->tasks[(line->from + i) % line->size];
        free(line->tasks);
        *line = (struct line){tasks, 0, line->n, size};
    }
    struct task *task = &line->tasks[(line->from + line->n++) % line->size];
    task->id = id;
    memcpy(task->payload, payload, PAYLOAD);
}

static struct task *pop(void) {
    for (int i = 0; i < 2; i++)
        if (lines[i].n) {
            struct task *task = &lines[i].tasks[lines[i].from];
            lines[i].from = (lines[i].from + 1) % lines[i].size;
            lines[i].n--;
            return task;
        }
    return NULL;
}

/* A peer that waits for its answer. */
struct peer {
    char identity[IDENTITY];
    int length;
    uint32_t wanted;
};

static struct peer confirmed[TURN], ready[65536];
static size_t n_confirmed, ready_from, n_ready;

static sqlite3 *db;
static sqlite3_stmt *insert, *complete, *begin, *commit;

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL)) die(sqlite3_errmsg(db));
    return statement;
}

static void step(sqlite3_stmt *statement) {
    if (sqlite3_step(statement) != SQLITE_DONE) die(sqlite3_errmsg(db));
    sqlite3_reset(statement);
}

/* SQLite's own handler sleeps up to 100 ms, and apps that commit without pause leave it nothing. */
static int try_again(void *unused, int n_tries) {
    (void)unused, (void)n_tries;
    struct timespec t = {0, 200000};
    nanosleep(&t, NULL);
    return 1;
}

static void open_database(const char *path, const char *durability, int is_shared) {
    char sql[256];
    if (sqlite3_open(path, &db)) die("cannot open the database");
    snprintf(sql, sizeof sql, "PRAGMA journal_mode = WAL; PRAGMA synchronous = %s; PRAGMA locking_mode = %s; "
             "CREATE TABLE tasks (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, payload BLOB NOT NULL); "
             "CREATE INDEX tasks_queue ON tasks (id) WHERE state = 0", durability, is_shared ? "NORMAL" : "EXCLUSIVE");
    sqlite3_busy_handler(db, try_again, NULL);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL)) die(sqlite3_errmsg(db));
    begin = prepare("BEGIN IMMEDIATE");
    commit = prepare("COMMIT");
    insert = prepare("INSERT INTO tasks VALUES (?1, 0, ?2)");
    complete = prepare("UPDATE tasks SET state = 2 WHERE id = ?1");
}

static uint64_t newest;

static void store(struct line *line, const char *payloads, size_t n) {
    for (size_t i = 0; i < n; i++) {
        push(line, ++newest, payloads + i * PAYLOAD);
        if (db) {
            sqlite3_bind_int64(insert, 1, (sqlite3_int64)newest);
            sqlite3_bind_blob(insert, 2, payloads + i * PAYLOAD, PAYLOAD, SQLITE_STATIC);
            step(insert);
        }
    }
}

static void done(const char *ids, size_t n) {
    for (size_t i = 0; db && i < n; i++) {
        uint64_t id;
        memcpy(&id, ids + i * sizeof id, sizeof id);
        sqlite3_bind_int64(complete, 1, (sqlite3_int64)id);
        step(complete);
    }
}

/* One message, if there is one. */
static int receive(void *socket, int flags) {
    static char body[BATCH_MAX * PAYLOAD];
    struct peer peer = {.length = zmq_recv(socket, peer.identity, IDENTITY, flags)};
    if (peer.length < 0) return 0;
    char word[8];
    zmq_recv(socket, word, sizeof word, 0);
    zmq_recv(socket, word, sizeof word, 0);
    if (*word == 'W') zmq_recv(socket, &peer.wanted, sizeof peer.wanted, 0);
    int bytes = zmq_recv(socket, body, sizeof body, 0);
    if (bytes < 0 || bytes > (int)sizeof body) die("a message is too long");
    if (*word == 'W') {
        done(body, (size_t)bytes / sizeof(uint64_t));
        ready[(ready_from + n_ready++) % 65536] = peer;
    } else {
        store(&lines[*word != 'U'], body, (size_t)bytes / PAYLOAD);
        confirmed[n_confirmed++] = peer;
    }
    return 1;
}

static void answer(void *socket) {
    for (size_t i = 0; i < n_confirmed; i++) {
        zmq_send(socket, confirmed[i].identity, (size_t)confirmed[i].length, ZMQ_SNDMORE);
        zmq_send(socket, "", 0, ZMQ_SNDMORE);
        zmq_send(socket, "ok", 2, 0);
    }
    n_confirmed = 0;
    while (n_ready && (lines[0].n || lines[1].n)) {
        static uint64_t ids[BATCH_MAX];
        static char payloads[BATCH_MAX * PAYLOAD];
        struct peer *peer = &ready[ready_from];
        size_t n = 0;
        for (struct task *task; n < peer->wanted && (task = pop()); n++) {
            ids[n] = task->id;
            memcpy(payloads + n * PAYLOAD, task->payload, PAYLOAD);
        }
        zmq_send(socket, peer->identity, (size_t)peer->length, ZMQ_SNDMORE);
        zmq_send(socket, "", 0, ZMQ_SNDMORE);
        zmq_send(socket, ids, n * sizeof *ids, ZMQ_SNDMORE);
        zmq_send(socket, payloads, n * PAYLOAD, 0);
        ready_from = (ready_from + 1) % 65536;
        n_ready--;
    }
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 4 && argc != 5) die("usage: limit_broker ENDPOINT [DATABASE full|normal [shared]]");
    if (argc > 2) open_database(argv[2], argv[3], argc == 5);
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER);
    if (zmq_bind(socket, argv[1])) die("cannot bind");
    for (;;) {
        zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, -1) < 0) continue;
        if (db) step(begin);
        for (int n = 0; n < TURN && receive(socket, ZMQ_DONTWAIT); n++) {}
        if (db) step(commit);
        answer(socket);
    }
}
