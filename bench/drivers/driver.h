/* What the drivers of all systems share: a peer says how to store tasks and how to do them, the driver measures. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stddef.h>
#include <stdint.h>

enum { PAYLOAD = 100, BULK = 1000 };

/* A system as its clients see it. Every function ends the program with a message when something goes wrong. */
struct peer {
    /* A connection of its own, for a submitter or a worker. */
    void *(*open)(int is_worker);
    /* Stores `n` tasks of PAYLOAD bytes that begin at `payloads`; returns once the system has confirmed all of them. `urgent`
       ones go before the others, where the system knows such a thing. */
    void (*submit)(void *connection, const char *payloads, size_t n, int urgent);
    /* Takes up to `max` tasks, calls `started` with each payload, and tells the system that they are done, here or together with
       asking for the next. Returns how many are done since the last call; 0
       when none came within about 50 ms. Counted is a task that the system has confirmed as done, where it confirms that at all. */
    size_t (*work)(void *connection, size_t max);
    /* The system has urgent tasks; it can tell of several at once. */
    int has_urgent, has_batches;
    /* A connection of an app that writes into the system's tables itself, and one task that it commits there. NULL without SQL. */
    void *(*open_app)(void);
    void (*commit)(void *app, const char *payload);
};
extern const struct peer peer;

/* Workers wait for what is submitted: a system that must wake them for it has to do so. */
extern int somebody_waits;

/* A task has started: notes the time, and takes as long as its payload says. */
void started(const char *payload);

/* Where the server listens: the first argument of the program. */
extern const char *server_host;
extern int server_port;
/* What else the command line says to this peer, or "". */
extern const char *server_option;

void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
uint64_t now_ns(void);

/* A buffered socket. */
struct io;
struct io *io_open(void);
void io_put(struct io *io, const void *bytes, size_t n);
void io_print(struct io *io, const char *format, ...) __attribute__((format(printf, 2, 3)));
void io_flush(struct io *io);
/* The next `n` bytes; valid until the next call. */
char *io_take(struct io *io, size_t n);
/* The next line, without its end. */
char *io_line(struct io *io);
/* Whether something can be read within so many milliseconds. */
int io_wait(struct io *io, int ms);

#endif
