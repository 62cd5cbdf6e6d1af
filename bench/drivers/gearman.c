/* gearmand, over its binary protocol. Background jobs; a worker completes one in the same write with which it asks for the next. */

#include "driver.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { CAN_DO = 1, PRE_SLEEP = 4, NOOP = 6, JOB_CREATED = 8, GRAB_JOB = 9, NO_JOB = 10, JOB_ASSIGN = 11, WORK_COMPLETE = 13,
       SUBMIT_JOB_BG = 18, SUBMIT_JOB_HIGH_BG = 32 };

struct connection {
    struct io *io;
    /* Replies to GRAB_JOB that are still to come, and jobs completed since the last word of the server. */
    size_t grabs, completed;
    int asleep;
};

static void head(struct io *io, uint32_t type, size_t bytes) {
    uint32_t rest[2] = {htonl(type), htonl((uint32_t)bytes)};
    io_put(io, "\0REQ", 4);
    io_put(io, rest, 8);
}

static uint32_t receive(struct io *io, char **body, size_t *bytes) {
    uint32_t rest[2];
    memcpy(rest, io_take(io, 12) + 4, 8);
    *bytes = ntohl(rest[1]);
    *body = io_take(io, *bytes);
    return ntohl(rest[0]);
}

static void *open_connection(int is_worker) {
    struct connection *c = calloc(1, sizeof *c);
    c->io = io_open();
    if (is_worker) {
        head(c->io, CAN_DO, 1);
        io_put(c->io, "t", 1);
    }
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    struct connection *c = connection;
    for (size_t i = 0; i < n; i++) {
        head(c->io, urgent ? SUBMIT_JOB_HIGH_BG : SUBMIT_JOB_BG, 3 + PAYLOAD);
        io_put(c->io, "t\0", 3);
        io_put(c->io, payloads + i * PAYLOAD, PAYLOAD);
    }
    io_flush(c->io);
    for (size_t i = 0; i < n; i++) {
        char *body;
        size_t bytes;
        uint32_t type = receive(c->io, &body, &bytes);
        if (type != JOB_CREATED) die("submit: answer %u", type);
    }
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    if (!c->asleep)
        for (; c->grabs < max; c->grabs++) head(c->io, GRAB_JOB, 0);
    io_flush(c->io);
    if (!io_wait(c->io, 50)) return 0;
    size_t done = c->completed;
    c->completed = 0;
    while (c->grabs || c->asleep) {
        char *body;
        size_t bytes;
        uint32_t type = receive(c->io, &body, &bytes);
        if (type == NOOP) {
            c->asleep = 0;
            break;
        }
        if (type == JOB_ASSIGN) {
            c->grabs--;
            size_t handle = strlen(body) + 1, function = strlen(body + handle) + 1;
            started(body + handle + function);
            head(c->io, WORK_COMPLETE, handle);
            io_put(c->io, body, handle);
            c->completed++;
        } else if (type == NO_JOB) {
            if (!--c->grabs && !c->completed && !c->asleep) {
                head(c->io, PRE_SLEEP, 0);
                c->asleep = 1;
                break;
            }
        } else {
            die("grab: answer %u", type);
        }
    }
    return done;
}

const struct peer peer = {open_connection, submit, work, 1, 1, NULL, NULL};
