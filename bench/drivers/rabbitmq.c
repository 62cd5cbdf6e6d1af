/* RabbitMQ by its C library: publisher confirms, persistent messages, a prefetch of the batch, one acknowledgement for it.
   `--option` is the type of the queue: classic, classic-prio or quorum. */

#include "driver.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

struct connection {
    amqp_connection_state_t amqp;
    int consuming;
    uint64_t published;
};

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) die("%s: %s", what, amqp_error_string2(reply.library_error));
}

static void *open_connection(int is_worker) {
    struct connection *c = calloc(1, sizeof *c);
    c->amqp = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c->amqp);
    if (amqp_socket_open(socket, server_host, server_port)) die("connect to %s:%d", server_host, server_port);
    check(amqp_login(c->amqp, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
    amqp_channel_open(c->amqp, 1);
    check(amqp_get_rpc_reply(c->amqp), "channel");
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("x-max-priority"), .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 10}};
    if (!strcmp(server_option, "quorum")) {
        entry.key = amqp_cstring_bytes("x-queue-type");
        entry.value.kind = AMQP_FIELD_KIND_UTF8;
        entry.value.value.bytes = amqp_cstring_bytes("quorum");
    }
    amqp_table_t table = {strcmp(server_option, "classic") ? 1 : 0, &entry};
    amqp_queue_declare(c->amqp, 1, amqp_cstring_bytes("tasks"), 0, 1, 0, 0, table);
    check(amqp_get_rpc_reply(c->amqp), "queue");
    if (!is_worker) {
        amqp_confirm_select(c->amqp, 1);
        check(amqp_get_rpc_reply(c->amqp), "confirm");
    }
    return c;
}

static void submit(void *connection, const char *payloads, size_t n, int urgent) {
    struct connection *c = connection;
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG, .delivery_mode = 2,
                                          .priority = urgent ? 9 : 1};
    for (size_t i = 0; i < n; i++) {
        amqp_bytes_t body = {PAYLOAD, (void *)(payloads + i * PAYLOAD)};
        if (amqp_basic_publish(c->amqp, 1, amqp_empty_bytes, amqp_cstring_bytes("tasks"), 0, 0, &properties, body)) die("publish");
    }
    uint64_t first = c->published, confirmed = 0;
    c->published += n;
    while (confirmed < n) {
        amqp_frame_t frame;
        if (amqp_simple_wait_frame(c->amqp, &frame) != AMQP_STATUS_OK) die("no confirmation");
        if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) die("not confirmed");
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        confirmed = ack->multiple ? ack->delivery_tag - first : confirmed + 1;
        amqp_maybe_release_buffers(c->amqp);
    }
}

static size_t work(void *connection, size_t max) {
    struct connection *c = connection;
    if (!c->consuming) {
        amqp_basic_qos(c->amqp, 1, 0, (uint16_t)(max == 1 ? 1 : 2 * max), 0);
        check(amqp_get_rpc_reply(c->amqp), "qos");
        amqp_basic_consume(c->amqp, 1, amqp_cstring_bytes("tasks"), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
        check(amqp_get_rpc_reply(c->amqp), "consume");
        c->consuming = 1;
    }
    size_t done = 0;
    uint64_t last = 0;
    while (done < max) {
        amqp_envelope_t envelope;
        struct timeval patience = {0, done ? 1000 : 50000};
        amqp_maybe_release_buffers(c->amqp);
        amqp_rpc_reply_t reply = amqp_consume_message(c->amqp, &envelope, &patience, 0);
        if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT) break;
        check(reply, "consume");
        started(envelope.message.body.bytes);
        last = envelope.delivery_tag;
        amqp_destroy_envelope(&envelope);
        done++;
    }
    if (done && amqp_basic_ack(c->amqp, 1, last, 1)) die("ack");
    return done;
}

const struct peer peer = {open_connection, submit, work, 1, 1, NULL, NULL};
