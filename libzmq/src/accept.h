// Read by the compiler before each source of libzmq: what accept4 does when the process is out of descriptors. libzmq's
// listener on ipc ends the whole process then, the one on tcp asks again without a pause for as long as somebody waits
// to be let in. Here one descriptor is kept in reserve: it is given up, the new peer taken in with it and closed at once, so
// that it hears so and comes again later, and the peers that are there notice nothing.
#ifdef __cplusplus
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline int laneway_accept4 (int listener, struct sockaddr *address, socklen_t *size, int flags)
{
    static int reserve = open ("/dev/null", O_RDONLY | O_CLOEXEC);
    const int accepted = accept4 (listener, address, size, flags);
    if (accepted != -1 || (errno != EMFILE && errno != ENFILE))
        return accepted;
    // Taken out while it is used: listeners of two contexts run in two threads.
    const int spare = __atomic_exchange_n (&reserve, -1, __ATOMIC_SEQ_CST);
    if (spare != -1)
        close (spare);
    const int refused = accept4 (listener, address, size, flags);
    if (refused != -1)
        close (refused);
    const int next = open ("/dev/null", O_RDONLY | O_CLOEXEC);
    if (next != -1) {
        __atomic_store_n (&reserve, next, __ATOMIC_SEQ_CST);
    } else {
        // Somebody else was faster, and nobody can be turned away: a pause is better than a busy loop.
        const struct timespec pause = {0, 1000000};
        nanosleep (&pause, NULL);
    }
    // The one error of its kind that every listener takes, and tells to the socket's monitor.
    errno = ENFILE;
    return -1;
}

#define accept4 laneway_accept4
#endif
