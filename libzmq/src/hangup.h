// Read by the compiler before each source of libzmq: what epoll tells of a connection whose peer is gone while libzmq does not
// read from it, for more than the high-water mark of messages waits already. libzmq takes such a connection out of its poller,
// but not out of its timers: the next heartbeat finds it where it must not be and ends the whole process (libzmq 4.3.5,
// `zmq_assert (!_io_error)`; issues 3937, 4767 and 4841 of libzmq). Here the end is not told while nothing is read. It is
// found by whoever reads on, by the next write, or by the heartbeat's timeout, which all close the connection in order.
#ifdef __cplusplus
#include <sys/epoll.h>

static inline int laneway_epoll_ctl (int epoll, int what, int fd, struct epoll_event *interest)
{
    if (interest && !(interest->events & (EPOLLIN | EPOLLOUT))) {
        // Nothing is asked for, and an end is told without being asked for: once is enough, or the loop would not rest.
        struct epoll_event once = *interest;
        once.events |= EPOLLET;
        return epoll_ctl (epoll, what, fd, &once);
    }
    return epoll_ctl (epoll, what, fd, interest);
}

static inline int laneway_epoll_wait (int epoll, struct epoll_event *events, int size, int timeout_ms)
{
    const int n = epoll_wait (epoll, events, size, timeout_ms);
    for (int i = 0; i < n; i++) {
        // Where it is read from, an end is always readable too. One that is written to hears of it by writing.
        if (!(events[i].events & EPOLLIN))
            events[i].events &= EPOLLOUT;
    }
    return n;
}

#define epoll_ctl laneway_epoll_ctl
#define epoll_wait laneway_epoll_wait
#endif
