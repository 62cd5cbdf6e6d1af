/* beanstalkd, over its text protocol. A worker deletes a job in the same write with which it reserves the next. */

#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct connection {
    struct io *io;
    /* Replies that are still to come. */
    size_t reserves, deletes;
};

static void *open_connection(int is_worker) {
    (void)is_worker;
    struct connection *c = calloc(1, sizeof *c);
    c->io = io_open();
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    struct connection *c = connection;
    for (size_t i = 0; i < n; i++) {
        io_print(c->io, "put %d 0 120 %d\r\n", urgent ? 0 : 1024, PAYLOAD);
        io_put(c->io, payloads + i * PAYLOAD, PAYLOAD);
        io_put(c->io, "\r\n", 2);
    }
    io_flush(c->io);
    for (size_t i = 0; i < n; i++) {
        char *line = io_line(c->io);
        if (strncmp(line, "INSERTED", 8)) die("put: %s", line);
    }
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    for (; c->reserves < max; c->reserves++)
        /* One waits at the server; of several only the first may, for the deletes come behind them. */
        io_print(c->io, "reserve-with-timeout %d\r\n", max == 1 || c->reserves == 0);
    io_flush(c->io);
    size_t done = 0;
    while (c->reserves + c->deletes) {
        if (!io_wait(c->io, 50)) break;
        char *line = io_line(c->io);
        unsigned long id, bytes;
        if (sscanf(line, "RESERVED %lu %lu", &id, &bytes) == 2) {
            c->reserves--;
            started(io_take(c->io, bytes + 2));
            io_print(c->io, "delete %lu\r\n", id);
            c->deletes++;
            if (max == 1) {
                io_print(c->io, "reserve-with-timeout 1\r\n");
                c->reserves++;
                io_flush(c->io);
            }
        } else if (!strcmp(line, "DELETED")) {
            c->deletes--;
            done++;
            if (max == 1) break;
        } else if (!strcmp(line, "TIMED_OUT") || !strcmp(line, "DEADLINE_SOON")) {
            c->reserves--;
        } else {
            die("reserve: %s", line);
        }
        if (!c->reserves && max > 1) {
            /* The deletes of this batch together with the reserves of the next. */
            if (c->deletes) {
                for (; c->reserves < max; c->reserves++) io_print(c->io, "reserve-with-timeout 0\r\n");
            }
            io_flush(c->io);
            if (done) break;
        }
    }
    return done;
}

const struct peer peer = {open_connection, submit, work, 1, 1, NULL, NULL};
