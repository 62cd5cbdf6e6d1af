/* Measures one system: `driver HOST:PORT [--option TEXT] WORKLOAD [N] [WORKERS] [BATCH]`. Prints one line of JSON. */

#include "driver.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *server_host, *server_option = "";
int server_port, somebody_waits;

void die(const char *what, ...) {
    va_list list;
    va_start(list, what);
    vfprintf(stderr, what, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---------------------------------------------------------------------------------------------------------- sockets */

enum { BUFFER = 1 << 20 };

struct io {
    int fd;
    size_t from, to, out_n;
    char in[BUFFER], out[BUFFER];
};

struct io *io_open(void) {
    struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    char port[16];
    snprintf(port, sizeof port, "%d", server_port);
    if (getaddrinfo(server_host, port, &want, &found)) die("no address %s", server_host);
    struct io *io = calloc(1, sizeof *io);
    io->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(io->fd, found->ai_addr, found->ai_addrlen)) die("connect to %s:%d: %s", server_host, server_port, strerror(errno));
    int one = 1;
    setsockopt(io->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    freeaddrinfo(found);
    return io;
}

void io_flush(struct io *io) {
    for (size_t done = 0; done < io->out_n;) {
        ssize_t n = write(io->fd, io->out + done, io->out_n - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("write: %s", strerror(errno));
        done += (size_t)n;
    }
    io->out_n = 0;
}

void io_put(struct io *io, const void *bytes, size_t n) {
    if (io->out_n + n > BUFFER) io_flush(io);
    memcpy(io->out + io->out_n, bytes, n);
    io->out_n += n;
}

void io_print(struct io *io, const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    io_put(io, text, (size_t)n);
}

static void fill(struct io *io) {
    if (io->from) {
        memmove(io->in, io->in + io->from, io->to - io->from);
        io->to -= io->from;
        io->from = 0;
    }
    ssize_t n;
    do n = read(io->fd, io->in + io->to, BUFFER - io->to);
    while (n < 0 && errno == EINTR);
    if (n <= 0) die("read: %s", n ? strerror(errno) : "the server has closed the connection");
    io->to += (size_t)n;
}

char *io_take(struct io *io, size_t n) {
    while (io->to - io->from < n) fill(io);
    io->from += n;
    return io->in + io->from - n;
}

char *io_line(struct io *io) {
    size_t seen = 0;
    for (;;) {
        char *start = io->in + io->from, *end = memchr(start + seen, '\n', io->to - io->from - seen);
        if (end) {
            io->from = (size_t)(end + 1 - io->in);
            if (end > start && end[-1] == '\r') end--;
            *end = 0;
            return start;
        }
        seen = io->to - io->from;
        fill(io);
    }
}

int io_wait(struct io *io, int ms) {
    if (io->from < io->to) return 1;
    struct pollfd fd = {.fd = io->fd, .events = POLLIN};
    return poll(&fd, 1, ms) > 0;
}

/* -------------------------------------------------------------------------------------------------------- workloads */

enum { SAMPLES = 200000 };

/* What the worker processes tell. */
static struct {
    uint64_t done, go, over, commits, n_samples, samples[SAMPLES];
} *shared;

/* A payload: when it was submitted, how long it takes, both in nanoseconds; whether its wait is of interest. */
struct head {
    uint64_t at, takes, sample;
};

static void make(char *payload, uint64_t takes_ns, int sample) {
    struct head head = {now_ns(), takes_ns, (uint64_t)sample};
    memset(payload, 'x', PAYLOAD);
    memcpy(payload, &head, sizeof head);
}

static void add_sample(uint64_t ns) {
    uint64_t at = __atomic_fetch_add(&shared->n_samples, 1, __ATOMIC_RELAXED);
    if (at < SAMPLES) shared->samples[at] = ns;
}

void started(const char *payload) {
    struct head head;
    memcpy(&head, payload, sizeof head);
    if (head.sample) add_sample(now_ns() - head.at);
    if (head.takes) {
        struct timespec t = {(time_t)(head.takes / 1000000000u), (long)(head.takes % 1000000000u)};
        nanosleep(&t, NULL);
    }
}

static void work_for_ever(size_t batch) {
    void *connection = peer.open(1);
    __atomic_fetch_add(&shared->go, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        __atomic_fetch_add(&shared->done, peer.work(connection, batch), __ATOMIC_SEQ_CST);
    }
}

/* A process that goes with this one. */
static pid_t start_process(void) {
    pid_t pid = fork();
    if (pid < 0) die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGTERM, SIG_DFL);
    }
    return pid;
}

static void start_workers(size_t workers, size_t batch) {
    shared->go = shared->done = shared->n_samples = 0;
    somebody_waits = 1;
    for (size_t i = 0; i < workers; i++)
        if (start_process() == 0) work_for_ever(batch);
}

static void stop_workers(void) {
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0) {}
}

static void pause_us(long us) {
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

static void wait_for(const uint64_t *count, uint64_t n) {
    uint64_t since = now_ns(), before = 0, is;
    for (; (is = __atomic_load_n(count, __ATOMIC_SEQ_CST)) < n; pause_us(200)) {
        if (is != before) since = now_ns();
        before = is;
        if (now_ns() - since > 60000000000u) die("nothing more is done: %lu of %lu", (unsigned long)is, (unsigned long)n);
    }
}

static void submit_many(void *connection, size_t n) {
    static char payloads[BULK * PAYLOAD];
    for (size_t i = 0; i < BULK; i++) make(payloads + i * PAYLOAD, 0, 0);
    for (; n; n -= n < BULK ? n : BULK) peer.submit(connection, payloads, n < BULK ? n : BULK, 0);
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_rate(size_t n, uint64_t ns) { printf("{\"per_s\": %.0f}\n", (double)n * 1e9 / (double)ns); }

static void print_samples(void) {
    uint64_t n = shared->n_samples < SAMPLES ? shared->n_samples : SAMPLES;
    if (!n) die("no task started");
    qsort(shared->samples, n, sizeof *shared->samples, ascending);
    printf("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"n\": %lu}\n", (double)shared->samples[n / 2] / 1e3,
           (double)shared->samples[n * 99 / 100] / 1e3, (unsigned long)n);
}

/* One connection, each task confirmed before the next. */
static void submit_one(size_t n) {
    void *connection = peer.open(0);
    char payload[PAYLOAD];
    uint64_t from = now_ns();
    size_t done = 0;
    for (; done < n && now_ns() - from < 3000000000u; done++) {
        make(payload, 0, 0);
        peer.submit(connection, payload, 1, 0);
    }
    print_rate(done, now_ns() - from);
}

/* So many connections, each with one task at a time. */
static void submit_from(size_t n, size_t clients) {
    shared->go = shared->done = 0;
    for (size_t i = 0; i < clients; i++)
        if (start_process() == 0) {
            void *connection = peer.open(0);
            char payload[PAYLOAD];
            __atomic_fetch_add(&shared->go, 1, __ATOMIC_SEQ_CST);
            while (__atomic_load_n(&shared->go, __ATOMIC_SEQ_CST) <= clients) pause_us(100);
            uint64_t until = now_ns() + 3000000000u;
            size_t done = 0;
            for (; done < n && now_ns() < until; done++) {
                make(payload, 0, 0);
                peer.submit(connection, payload, 1, 0);
            }
            __atomic_fetch_add(&shared->done, done, __ATOMIC_SEQ_CST);
            exit(0);
        }
    wait_for(&shared->go, clients);
    uint64_t from = now_ns();
    __atomic_fetch_add(&shared->go, 1, __ATOMIC_SEQ_CST);
    while (wait(NULL) > 0) {}
    print_rate(shared->done, now_ns() - from);
}

static void submit_bulk(size_t n) {
    void *connection = peer.open(0);
    uint64_t from = now_ns();
    submit_many(connection, n);
    print_rate(n, now_ns() - from);
}

/* Tasks that are queued already. */
static void drain(size_t n, size_t workers, size_t batch) {
    submit_many(peer.open(0), n);
    uint64_t from = now_ns();
    start_workers(workers, batch);
    wait_for(&shared->done, n);
    print_rate(n, now_ns() - from);
    stop_workers();
}

static void both(size_t n, size_t workers, size_t batch) {
    void *connection = peer.open(0);
    start_workers(workers, batch);
    wait_for(&shared->go, workers);
    uint64_t from = now_ns();
    submit_many(connection, n);
    wait_for(&shared->done, n);
    print_rate(n, now_ns() - from);
    stop_workers();
}

/* An app that commits one task after the other, and notes how long each commit took. */
static void commit_until_over(void) {
    void *app = peer.open_app();
    char payload[PAYLOAD];
    __atomic_fetch_add(&shared->go, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&shared->over, __ATOMIC_SEQ_CST)) {
        uint64_t before = now_ns();
        make(payload, 0, 0);
        peer.commit(app, payload);
        add_sample(now_ns() - before);
        __atomic_fetch_add(&shared->commits, 1, __ATOMIC_SEQ_CST);
    }
    exit(0);
}

/* Tasks that are queued already, while four apps commit tasks by SQL. */
static void beside(size_t n, size_t workers, size_t batch) {
    enum { APPS = 4 };
    if (!peer.open_app) die("this system has no SQL");
    submit_many(peer.open(0), n);
    start_workers(0, batch);
    pid_t apps[APPS];
    for (int i = 0; i < APPS; i++)
        if (!(apps[i] = start_process())) commit_until_over();
    wait_for(&shared->go, APPS);
    uint64_t commits = __atomic_load_n(&shared->commits, __ATOMIC_SEQ_CST), from = now_ns();
    for (size_t i = 0; i < workers; i++)
        if (start_process() == 0) work_for_ever(batch);
    wait_for(&shared->done, n);
    double seconds = (double)(now_ns() - from) / 1e9;
    commits = __atomic_load_n(&shared->commits, __ATOMIC_SEQ_CST) - commits;
    __atomic_store_n(&shared->over, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < APPS; i++) waitpid(apps[i], NULL, 0);
    if (!shared->n_samples) die("the apps have committed nothing");
    uint64_t n_samples = shared->n_samples < SAMPLES ? shared->n_samples : SAMPLES;
    qsort(shared->samples, n_samples, sizeof *shared->samples, ascending);
    printf("{\"per_s\": %.0f, \"commits_per_s\": %.0f, \"commit_p99_us\": %.1f}\n", (double)n / seconds, (double)commits / seconds,
           (double)shared->samples[n_samples * 99 / 100] / 1e3);
    stop_workers();
}

/* An idle system: one worker waits, a task comes every 5 ms. */
static void latency(size_t n) {
    void *connection = peer.open(0);
    start_workers(1, 1);
    wait_for(&shared->go, 1);
    pause_us(200000);
    char payload[PAYLOAD];
    for (size_t i = 0; i < n; i++) {
        make(payload, 0, 1);
        peer.submit(connection, payload, 1, 0);
        pause_us(5000);
    }
    wait_for(&shared->done, n);
    print_samples();
    stop_workers();
}

/* Nine tasks of ten take 1 ms, one takes 50; over the ideal. */
static void makespan(size_t n, size_t workers) {
    void *connection = peer.open(0);
    static char payloads[BULK * PAYLOAD];
    uint64_t sum = 0;
    start_workers(workers, 1);
    wait_for(&shared->go, workers);
    uint64_t from = now_ns();
    for (size_t sent = 0; sent < n;) {
        size_t part = n - sent < BULK ? n - sent : BULK;
        for (size_t i = 0; i < part; i++) {
            uint64_t takes = (sent + i) % 10 == 9 ? 50000000 : 1000000;
            sum += takes;
            make(payloads + i * PAYLOAD, takes, 0);
        }
        peer.submit(connection, payloads, part, 0);
        sent += part;
    }
    wait_for(&shared->done, n);
    printf("{\"over_ideal\": %.3f}\n", (double)(now_ns() - from) * (double)workers / (double)sum);
    stop_workers();
}

/* Urgent tasks, fifty a second, while every worker is kept busy. */
static void urgent(size_t n, size_t workers) {
    void *connection = peer.open(0);
    submit_many(connection, n);
    start_workers(workers, 1);
    wait_for(&shared->go, workers);
    char payload[PAYLOAD];
    size_t sent = 0;
    for (; __atomic_load_n(&shared->done, __ATOMIC_SEQ_CST) + n / 10 < n; sent++) {
        make(payload, 0, 1);
        peer.submit(connection, payload, 1, 1);
        pause_us(20000);
    }
    wait_for(&shared->done, n + sent);
    print_samples();
    stop_workers();
}

/* Workers that wait, for whoever looks at the server meanwhile. */
static void idle(size_t workers) {
    start_workers(workers, 1);
    wait_for(&shared->go, workers);
    puts("{}");
    fflush(stdout);
    getchar();
    stop_workers();
}

int main(int argc, char **argv) {
    char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    if (!colon) die("usage: driver HOST:PORT [--option TEXT] WORKLOAD [N] [WORKERS] [BATCH]");
    *colon = 0;
    server_host = argv[1];
    server_port = atoi(colon + 1);
    argv += 2;
    if (argv[0] && !strcmp(argv[0], "--option")) {
        server_option = argv[1];
        argv += 2;
    }
    const char *name = argv[0] ? argv[0] : "";
    size_t args[3] = {0, 0, 1};
    for (int i = 0; i < 3 && argv[0] && argv[i + 1]; i++) args[i] = strtoul(argv[i + 1], NULL, 10);
    size_t n = args[0], workers = args[1], batch = args[2];
    signal(SIGPIPE, SIG_IGN);
    setpgid(0, 0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!strcmp(name, "submit-one")) submit_one(n);
    else if (!strcmp(name, "submit-from")) submit_from(n, workers);
    else if (!strcmp(name, "submit-bulk")) submit_bulk(n);
    else if (!strcmp(name, "drain")) drain(n, workers, batch);
    else if (!strcmp(name, "both")) both(n, workers, batch);
    else if (!strcmp(name, "beside")) beside(n, workers, batch);
    else if (!strcmp(name, "latency")) latency(n);
    else if (!strcmp(name, "makespan")) makespan(n, workers);
    else if (!strcmp(name, "urgent")) urgent(n, workers);
    else if (!strcmp(name, "idle")) idle(n);
    else die("no workload %s", name);
    return 0;
}
