/* Redis lists: RPUSH and BLMPOP. A raw data structure: no lease, nothing to confirm after the pop. */

#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct connection {
    struct io *io;
    size_t asked;
};

static void *open_connection(int is_worker) {
    (void)is_worker;
    struct connection *c = calloc(1, sizeof *c);
    c->io = io_open();
    return c;
}

static void word(struct io *io, const char *text) { io_print(io, "$%zu\r\n%s\r\n", strlen(text), text); }

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    struct connection *c = connection;
    io_print(c->io, "*%zu\r\n$5\r\nRPUSH\r\n", n + 2);
    word(c->io, urgent ? "urgent" : "tasks");
    for (size_t i = 0; i < n; i++) {
        io_print(c->io, "$%d\r\n", PAYLOAD);
        io_put(c->io, payloads + i * PAYLOAD, PAYLOAD);
        io_put(c->io, "\r\n", 2);
    }
    io_flush(c->io);
    char *line = io_line(c->io);
    if (*line != ':') die("RPUSH: %s", line);
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    if (!c->asked) {
        char count[24];
        snprintf(count, sizeof count, "%zu", max);
        io_print(c->io, "*8\r\n");
        const char *words[] = {"BLMPOP", "1", "2", "urgent", "tasks", "LEFT", "COUNT", count};
        for (int i = 0; i < 8; i++) word(c->io, words[i]);
        io_flush(c->io);
        c->asked = 1;
    }
    if (!io_wait(c->io, 50)) return 0;
    c->asked = 0;
    char *line = io_line(c->io);
    if (!strcmp(line, "*-1")) return 0;
    if (strcmp(line, "*2")) die("BLMPOP: %s", line);
    io_line(c->io);
    io_line(c->io);
    size_t n = strtoul(io_line(c->io) + 1, NULL, 10);
    for (size_t i = 0; i < n; i++) {
        io_line(c->io);
        started(io_take(c->io, PAYLOAD + 2));
    }
    return n;
}

const struct peer peer = {open_connection, submit, work, 1, 1, NULL, NULL};
