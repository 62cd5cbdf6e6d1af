/* NATS JetStream: a work queue on files, a pull consumer. The next message is asked for with the acknowledgement of the last. */

#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct connection {
    struct io *io;
    char inbox[64];
    size_t asked;
};

/* Reads on to the next message; its reply subject is copied. NULL for a status without a payload. */
static char *message(struct connection *c, char *reply, size_t reply_size) {
    for (;;) {
        char *line = io_line(c->io), subject[256], sid[32], third[256], fourth[64], fifth[64];
        if (!strncmp(line, "PING", 4)) {
            io_print(c->io, "PONG\r\n");
            io_flush(c->io);
        } else if (!strncmp(line, "MSG ", 4)) {
            int words = sscanf(line + 4, "%255s %31s %255s %63s", subject, sid, third, fourth);
            snprintf(reply, reply_size, "%s", words == 4 ? third : "");
            size_t bytes = strtoul(words == 4 ? fourth : third, NULL, 10);
            char *body = io_take(c->io, bytes + 2);
            body[bytes] = 0;
            return bytes ? body : NULL;
        } else if (!strncmp(line, "HMSG ", 5)) {
            int words = sscanf(line + 5, "%255s %31s %255s %63s %63s", subject, sid, third, fourth, fifth);
            size_t headers = strtoul(words == 5 ? fourth : third, NULL, 10), bytes = strtoul(words == 5 ? fifth : fourth, NULL, 10);
            snprintf(reply, reply_size, "%s", words == 5 ? third : "");
            char *body = io_take(c->io, bytes + 2);
            return bytes > headers ? body + headers : NULL;
        } else if (!strncmp(line, "-ERR", 4)) {
            die("nats: %s", line);
        }
    }
}

static void request(struct connection *c, const char *subject, const char *body) {
    char reply[256];
    io_print(c->io, "PUB %s %s %zu\r\n%s\r\n", subject, c->inbox, strlen(body), body);
    io_flush(c->io);
    char *answer = message(c, reply, sizeof reply);
    if (!answer || strstr(answer, "\"error\"")) die("%s: %s", subject, answer ? answer : "no answer");
}

static void *open_connection(int is_worker) {
    struct connection *c = calloc(1, sizeof *c);
    c->io = io_open();
    io_line(c->io);
    snprintf(c->inbox, sizeof c->inbox, "_INBOX.%d.%lu", (int)getpid(), (unsigned long)now_ns());
    io_print(c->io, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB %s 1\r\n", c->inbox);
    if (!is_worker) {
        request(c, "$JS.API.STREAM.CREATE.tasks",
                "{\"name\":\"tasks\",\"subjects\":[\"tasks\"],\"retention\":\"workqueue\",\"storage\":\"file\",\"max_consumers\":-1,"
                "\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\"num_replicas\":1}");
        request(c, "$JS.API.CONSUMER.DURABLE.CREATE.tasks.w",
                "{\"stream_name\":\"tasks\",\"config\":{\"durable_name\":\"w\",\"ack_policy\":\"explicit\",\"deliver_policy\":\"all\","
                "\"max_ack_pending\":100000,\"ack_wait\":120000000000,\"max_waiting\":4096}}");
    }
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    (void)urgent;
    struct connection *c = connection;
    char reply[256];
    for (size_t i = 0; i < n; i++) {
        io_print(c->io, "PUB tasks %s %d\r\n", c->inbox, PAYLOAD);
        io_put(c->io, payloads + i * PAYLOAD, PAYLOAD);
        io_put(c->io, "\r\n", 2);
    }
    io_flush(c->io);
    for (size_t i = 0; i < n; i++) {
        char *answer = message(c, reply, sizeof reply);
        if (!answer || !strstr(answer, "\"seq\"")) die("publish: %s", answer ? answer : "no answer");
    }
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    char reply[256], ask[96];
    /* Without waiting, for what is there; else the request waits at the server. */
    snprintf(ask, sizeof ask, "{\"batch\":%zu,\"expires\":30000000000}", max);
    if (!c->asked) {
        io_print(c->io, "PUB $JS.API.CONSUMER.MSG.NEXT.tasks.w %s %zu\r\n%s\r\n", c->inbox, strlen(ask), ask);
        c->asked = max;
    }
    io_flush(c->io);
    size_t done = 0;
    while (c->asked && io_wait(c->io, 50)) {
        char *body = message(c, reply, sizeof reply);
        if (!body) {
            c->asked = 0;
            break;
        }
        started(body);
        done++;
        if (--c->asked) io_print(c->io, "PUB %s 4\r\n+ACK\r\n", reply);
        else {
            /* The last of a batch asks for the next in the same word. */
            io_print(c->io, "PUB %s %s %zu\r\n+NXT %s\r\n", reply, c->inbox, strlen(ask) + 5, ask);
            c->asked = max;
            io_flush(c->io);
            break;
        }
    }
    return done;
}

const struct peer peer = {open_connection, submit, work, 0, 1, NULL, NULL};
