/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay: a TCP relay that makes a slow, narrow or breaking link out of the loopback interface.
 *
 * Kernels without netem cannot delay or shape loopback traffic, so this does it in user space, for
 * clients that cannot be told (qemu-img) as well as for ours: they connect to the relay's address
 * and reach the real server behind it.
 *
 * One process is one link. A link has two ways, "forward" (client to server) and "backward", and
 * each way has its own schedule, shared by all connections of all --listen/--to pairs:
 *
 *     start = max(now, when the way is free)      bytes queue behind the bytes before them
 *     free  = start + bytes / rate                the way is busy for as long as they take
 *     due   = free + delay                        and only then can the other end see the last one
 *
 * What is read waits in memory until it is due. Reading stops while a way is more than
 * WAY_QUEUE_NS behind: what does not fit waits in the kernel's socket buffers, a connection each,
 * so that a greedy connection does not put its whole window in front of everybody else's bytes.
 *
 * What it does not do: it acknowledges locally, so TCP itself never sees the delay (no slow start,
 * no window to fill), a connect() succeeds at once, and nothing is lost or reordered.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S      UINT64_C(1000000000)
#define BLOCK_SIZE    (256u << 10)     /* unit of memory, and the most that one read takes */
#define READ_MIN      (4u << 10)       /* the least that one read takes on a slow link */
#define WAY_HELD_MAX  (64u << 20)      /* bytes in memory per way: 640 MiB/s at 100 ms one way */
#define WAY_QUEUE_NS  (NS_PER_S / 250) /* 4 ms: stop reading when a way is so far behind */
#define CATCH_UP_NS   (NS_PER_S / 200) /* 5 ms: how late a wake-up may be made good */
#define SLOP_NS       UINT64_C(20000)  /* what is due so soon is sent now: fewer wake-ups */
#define READ_ROUNDS   8
#define WRITE_IOV_MAX 8
#define PAIRS_MAX     16

enum way_id { FORWARD, BACKWARD, WAYS };
enum side { CLIENT, SERVER, SIDES };

/* Bytes on their way: a list of blocks holds them, a ring of marks says when they are due. */
struct block {
    struct block *next;
    size_t fill;
    unsigned char data[BLOCK_SIZE];
};

struct mark {
    uint64_t due;
    size_t len;
};

struct queue {
    struct block *head, *tail;
    size_t head_off; /* bytes of the head block that are sent */
    struct mark *marks;
    size_t mark_head, mark_count, mark_room; /* room is a power of two */
    size_t held;                             /* bytes in the blocks */
    bool eof;                                /* no more will come; */
    uint64_t eof_due;                        /* tell the other side then, */
    bool eof_sent;                           /* which was done */
};

/* A connection. The queue of a way is filled from socket[way] and emptied into socket[!way]. */
struct conn {
    struct conn *next;
    int fd[SIDES];
    bool connecting;
    bool blocked[SIDES]; /* the last write filled the socket */
    bool dead;           /* to be freed at the end of the turn */
    struct queue queue[WAYS];
    struct pollfd *poll[SIDES]; /* this turn's entry, NULL when there is nothing to wait for */
};

struct way {
    uint64_t free_at;
    size_t held;    /* bytes of all connections in memory */
    bool saturated; /* reading stopped at WAY_QUEUE_NS: there was more to read */
    uint64_t bytes; /* delivered */
};

struct pair {
    struct sockaddr_in listen, to;
    int fd;
};

struct relay {
    /* what was asked for */
    struct pair pairs[PAIRS_MAX];
    int pair_count;
    uint64_t delay_ns;
    uint64_t rate;  /* bytes per second each way, 0: no limit */
    uint64_t cut;   /* cut when so many bytes have passed, 0: never */
    uint64_t stall; /* move nothing more when so many bytes have passed, 0: never */
    bool cut_every;
    const char *count_file, *port_file;
    /* state */
    struct way way[WAYS];
    struct conn *conns;
    size_t conn_count;
    struct block *spare; /* last in, first out: the block in use is the one in the cache */
    struct pollfd *polls;
    size_t poll_room;
    uint64_t next_cut;
    uint64_t connections, cuts;
};

static volatile sig_atomic_t want_stop, want_counts, want_cut;

static void on_signal(int number)
{
    if (number == SIGUSR1)
        want_counts = 1;
    else if (number == SIGUSR2)
        want_cut = 1;
    else
        want_stop = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t passed(const struct relay *relay)
{
    return relay->way[FORWARD].bytes + relay->way[BACKWARD].bytes;
}

static bool stalled(const struct relay *relay)
{
    return relay->stall && passed(relay) >= relay->stall;
}

/* ---- queues ---------------------------------------------------------------------------------- */

/* A block with room at the end of the queue. */
static struct block *queue_tail(struct relay *relay, struct queue *queue)
{
    struct block *block = queue->tail;

    if (block && block->fill < BLOCK_SIZE)
        return block;
    block = relay->spare;
    if (block)
        relay->spare = block->next;
    else
        block = malloc(sizeof(*block));
    if (!block)
        fail("memory");
    block->next = NULL;
    block->fill = 0;
    if (queue->tail)
        queue->tail->next = block;
    else
        queue->head = block;
    queue->tail = block;
    return block;
}

static void queue_pop_block(struct relay *relay, struct queue *queue)
{
    struct block *block = queue->head;

    queue->head = block->next;
    if (!queue->head)
        queue->tail = NULL;
    queue->head_off = 0;
    block->next = relay->spare;
    relay->spare = block;
}

static void queue_grow_marks(struct queue *queue)
{
    size_t room = queue->mark_room ? 2 * queue->mark_room : 64;
    struct mark *marks = malloc(room * sizeof(*marks));

    if (!marks)
        fail("memory");
    for (size_t i = 0; i < queue->mark_count; i++)
        marks[i] = queue->marks[(queue->mark_head + i) & (queue->mark_room - 1)];
    free(queue->marks);
    queue->marks = marks;
    queue->mark_head = 0;
    queue->mark_room = room;
}

static void queue_push_mark(struct queue *queue, uint64_t due, size_t len)
{
    if (queue->mark_count == queue->mark_room)
        queue_grow_marks(queue);
    queue->marks[(queue->mark_head + queue->mark_count++) & (queue->mark_room - 1)] =
        (struct mark){.due = due, .len = len};
    queue->held += len;
}

/* How many bytes at the head of the queue are due. */
static size_t queue_due(const struct queue *queue, uint64_t now)
{
    size_t len = 0;

    for (size_t i = 0; i < queue->mark_count; i++) {
        const struct mark *mark = &queue->marks[(queue->mark_head + i) & (queue->mark_room - 1)];

        if (mark->due > now + SLOP_NS)
            break;
        len += mark->len;
    }
    return len;
}

/* When the queue next has something to do; UINT64_MAX: not before something arrives. */
static uint64_t queue_wake(const struct queue *queue)
{
    if (queue->mark_count)
        return queue->marks[queue->mark_head].due;
    if (queue->eof && !queue->eof_sent)
        return queue->eof_due;
    return UINT64_MAX;
}

static int queue_iov(const struct queue *queue, size_t len, struct iovec *iov)
{
    size_t off = queue->head_off;
    int count = 0;

    for (struct block *block = queue->head; block && len && count < WRITE_IOV_MAX;
         block = block->next, off = 0) {
        size_t part = block->fill - off < len ? block->fill - off : len;

        iov[count++] = (struct iovec){.iov_base = block->data + off, .iov_len = part};
        len -= part;
    }
    return count;
}

static void queue_consume(struct relay *relay, struct queue *queue, size_t len)
{
    queue->held -= len;
    for (size_t left = len; left;) {
        struct mark *mark = &queue->marks[queue->mark_head];
        size_t part = mark->len < left ? mark->len : left;

        mark->len -= part;
        left -= part;
        if (!mark->len) {
            queue->mark_head = (queue->mark_head + 1) & (queue->mark_room - 1);
            queue->mark_count--;
        }
    }
    for (size_t left = len; left;) {
        size_t part = queue->head->fill - queue->head_off;

        if (part > left) {
            queue->head_off += left;
            break;
        }
        left -= part;
        queue_pop_block(relay, queue);
    }
}

static void queue_release(struct relay *relay, struct queue *queue)
{
    while (queue->head)
        queue_pop_block(relay, queue);
    free(queue->marks);
}

/* ---- the schedule of a way ------------------------------------------------------------------- */

static bool way_open(const struct relay *relay, enum way_id id, uint64_t now)
{
    const struct way *way = &relay->way[id];

    return way->held < WAY_HELD_MAX && (!relay->rate || way->free_at <= now + WAY_QUEUE_NS);
}

/*
 * The most that one read takes: half a millisecond's worth, so that the bytes of many connections
 * interleave and the first of them need not wait long for the last. Less costs more CPU.
 */
static size_t read_quantum(const struct relay *relay)
{
    uint64_t quantum = relay->rate / 2000;

    if (!relay->rate || quantum > BLOCK_SIZE)
        return BLOCK_SIZE;
    return quantum < READ_MIN ? READ_MIN : (size_t)quantum;
}

/* Puts len bytes on the way and says when they are due at its end. */
static uint64_t way_charge(const struct relay *relay, struct way *way, uint64_t now, size_t len)
{
    /*
     * A wake-up that comes late on a busy way must not cost capacity: the bytes were there, in
     * the socket, and a real link would have carried them meanwhile.
     */
    uint64_t earliest = way->saturated ? now - CATCH_UP_NS : now;

    if (!relay->rate)
        return now + relay->delay_ns;
    if (way->free_at < earliest)
        way->free_at = earliest;
    way->free_at += (uint64_t)len * NS_PER_S / relay->rate;
    return (way->free_at > now ? way->free_at : now) + relay->delay_ns;
}

/* The queue of a way is emptied into the socket of this side, */
static enum side way_end(enum way_id id)
{
    return id == FORWARD ? SERVER : CLIENT;
}

/*
 * and filled from the other one: unless the receiver is behind. Then its sender has to feel that,
 * or a slow receiver would find all our memory between them.
 */
static bool conn_may_read(const struct relay *relay, const struct conn *conn, enum way_id id,
                          uint64_t now)
{
    return !conn->queue[id].eof && !conn->blocked[way_end(id)] && way_open(relay, id, now);
}

/* ---- connections ----------------------------------------------------------------------------- */

/* Both ends get a reset, not an orderly close, also when the kernel still holds unsent bytes. */
static void conn_reset(struct conn *conn)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    for (int side = 0; side < SIDES; side++)
        setsockopt(conn->fd[side], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    conn->dead = true;
}

static void conn_free(struct relay *relay, struct conn *conn)
{
    for (int way = 0; way < WAYS; way++) {
        relay->way[way].held -= conn->queue[way].held;
        queue_release(relay, &conn->queue[way]);
    }
    for (int side = 0; side < SIDES; side++)
        close(conn->fd[side]);
    relay->conn_count--;
    free(conn);
}

static void reap(struct relay *relay)
{
    struct conn **link = &relay->conns;

    while (*link) {
        struct conn *conn = *link;

        if (conn->dead) {
            *link = conn->next;
            conn_free(relay, conn);
        } else {
            link = &conn->next;
        }
    }
}

static void cut_all(struct relay *relay)
{
    for (struct conn *conn = relay->conns; conn; conn = conn->next)
        conn_reset(conn);
    relay->cuts++;
}

static void accept_one(struct relay *relay, const struct pair *pair)
{
    const int one = 1;
    struct conn *conn;
    int client = accept4(pair->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int server;

    if (client < 0)
        return; /* it went away again, or we are out of descriptors: the next turn tries */
    server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    conn = calloc(1, sizeof(*conn));
    if (server < 0 || !conn)
        fail("connection");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    conn->fd[CLIENT] = client;
    conn->fd[SERVER] = server;
    conn->connecting = true;
    conn->next = relay->conns;
    relay->conns = conn;
    relay->conn_count++;
    relay->connections++;
    if (connect(server, (const struct sockaddr *)&pair->to, sizeof(pair->to)) &&
        errno != EINPROGRESS)
        conn_reset(conn);
}

static void conn_connected(struct conn *conn)
{
    int error = 0;
    socklen_t len = sizeof(error);

    getsockopt(conn->fd[SERVER], SOL_SOCKET, SO_ERROR, &error, &len);
    if (error)
        conn_reset(conn);
    conn->connecting = false;
}

/* One read of one connection. Returns whether it took something. */
static bool conn_read(struct relay *relay, struct conn *conn, enum way_id id, uint64_t now)
{
    struct queue *queue = &conn->queue[id];
    struct block *block = queue_tail(relay, queue);
    size_t room = BLOCK_SIZE - block->fill;
    size_t quantum = read_quantum(relay);
    ssize_t got = read(conn->fd[id], block->data + block->fill, room < quantum ? room : quantum);

    if (got > 0) {
        block->fill += (size_t)got;
        relay->way[id].held += (size_t)got;
        queue_push_mark(queue, way_charge(relay, &relay->way[id], now, (size_t)got), (size_t)got);
        return true;
    }
    if (got == 0) {
        queue->eof = true;
        queue->eof_due = now + relay->delay_ns;
    } else if (errno != EAGAIN && errno != EINTR) {
        conn_reset(conn);
    }
    /* A block that got nothing may be the head: then it is empty, and nothing may point at it. */
    if (!queue->held && queue->head)
        queue_pop_block(relay, queue);
    return false;
}

/* How much may pass before the next cut or stall, so that both come at the exact byte. */
static size_t allowance(const struct relay *relay, size_t want)
{
    uint64_t left = UINT64_MAX;

    if (relay->next_cut)
        left = relay->next_cut - passed(relay);
    if (relay->stall) {
        uint64_t until_stall = stalled(relay) ? 0 : relay->stall - passed(relay);

        left = until_stall < left ? until_stall : left;
    }
    return want < left ? want : (size_t)left;
}

static void conn_send_eof(struct conn *conn, struct queue *queue, int fd, uint64_t now)
{
    if (!queue->eof || queue->eof_sent || queue->held || queue->eof_due > now + SLOP_NS)
        return;
    shutdown(fd, SHUT_WR);
    queue->eof_sent = true;
    if (conn->queue[FORWARD].eof_sent && conn->queue[BACKWARD].eof_sent)
        conn->dead = true;
}

/* Sends what is due. */
static void conn_write(struct relay *relay, struct conn *conn, enum way_id id, uint64_t now)
{
    struct queue *queue = &conn->queue[id];
    enum side to = way_end(id);
    struct iovec iov[WRITE_IOV_MAX];

    while (!conn->dead && !conn->blocked[to]) {
        size_t want = allowance(relay, queue_due(queue, now));
        struct msghdr message = {.msg_iov = iov};
        ssize_t sent;

        if (!want)
            break;
        message.msg_iovlen = (size_t)queue_iov(queue, want, iov);
        sent = sendmsg(conn->fd[to], &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN)
                conn->blocked[to] = true;
            else if (errno != EINTR)
                conn_reset(conn);
            break;
        }
        queue_consume(relay, queue, (size_t)sent);
        relay->way[id].held -= (size_t)sent;
        relay->way[id].bytes += (size_t)sent;
        if (relay->next_cut && passed(relay) >= relay->next_cut) {
            cut_all(relay);
            relay->next_cut = relay->cut_every ? relay->next_cut + relay->cut : 0;
        }
    }
    if (!conn->dead && !stalled(relay))
        conn_send_eof(conn, queue, conn->fd[to], now);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static short conn_events(const struct relay *relay, const struct conn *conn, enum side side,
                         uint64_t now)
{
    short events = 0;

    if (conn->connecting)
        return side == SERVER ? POLLOUT : 0;
    /* the way that starts at a side has the side's number */
    if (conn_may_read(relay, conn, (enum way_id)side, now))
        events |= POLLIN;
    if (conn->blocked[side])
        events |= POLLOUT;
    return events;
}

/* Entries without events are left out: poll would report a hang-up on them again and again. */
static size_t fill_polls(struct relay *relay, uint64_t now)
{
    size_t room = (size_t)relay->pair_count + SIDES * relay->conn_count;
    size_t count = 0;

    if (room > relay->poll_room) {
        relay->polls = realloc(relay->polls, 2 * room * sizeof(*relay->polls));
        relay->poll_room = 2 * room;
        if (!relay->polls)
            fail("memory");
    }
    for (int i = 0; i < relay->pair_count; i++)
        relay->polls[count++] = (struct pollfd){.fd = relay->pairs[i].fd, .events = POLLIN};
    for (struct conn *conn = relay->conns; conn; conn = conn->next) {
        for (int side = 0; side < SIDES; side++) {
            short events = stalled(relay) ? 0 : conn_events(relay, conn, (enum side)side, now);

            conn->poll[side] = NULL;
            if (!events)
                continue;
            conn->poll[side] = &relay->polls[count];
            relay->polls[count++] = (struct pollfd){.fd = conn->fd[side], .events = events};
        }
    }
    return count;
}

static uint64_t next_wake(const struct relay *relay, uint64_t now)
{
    uint64_t wake = UINT64_MAX;

    if (stalled(relay))
        return wake;
    for (int id = 0; id < WAYS; id++) {
        /* half the queue later: a few reads at a time rather than a wake-up for each */
        if (!way_open(relay, (enum way_id)id, now) && relay->way[id].held < WAY_HELD_MAX) {
            uint64_t half = relay->way[id].free_at - WAY_QUEUE_NS / 2;

            wake = half < wake ? half : wake;
        }
    }
    for (const struct conn *conn = relay->conns; conn; conn = conn->next) {
        for (int id = 0; id < WAYS; id++) {
            uint64_t due = queue_wake(&conn->queue[id]);

            if (!conn->blocked[way_end((enum way_id)id)] && due < wake)
                wake = due;
        }
    }
    return wake;
}

static void wait_for_work(struct relay *relay, const sigset_t *open_signals)
{
    uint64_t now = now_ns();
    size_t count = fill_polls(relay, now);
    uint64_t wake = next_wake(relay, now);
    uint64_t left = wake > now ? wake - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / NS_PER_S),
                               .tv_nsec = (long)(left % NS_PER_S)};

    if (ppoll(relay->polls, (nfds_t)count, wake == UINT64_MAX ? NULL : &timeout, open_signals) <
        0) {
        if (errno != EINTR)
            fail("ppoll");
        for (size_t i = 0; i < count; i++)
            relay->polls[i].revents = 0;
    }
}

static short conn_revents(const struct conn *conn, enum side side)
{
    return conn->poll[side] ? conn->poll[side]->revents : 0;
}

static void conn_polled(struct conn *conn)
{
    for (int side = 0; side < SIDES; side++) {
        short revents = conn_revents(conn, (enum side)side);

        if (conn->connecting && side == SERVER && revents)
            conn_connected(conn);
        else if (revents & POLLERR)
            conn_reset(conn);
        else if (revents & POLLOUT)
            conn->blocked[side] = false;
    }
}

/* One quantum of each connection in turn, until a way is full or nobody has more. */
static void read_all(struct relay *relay, enum way_id id)
{
    bool more = true;
    uint64_t now = now_ns();

    /* a sender that is as fast as we are must not keep us from the other way and from signals */
    for (int round = 0; more && round < READ_ROUNDS && way_open(relay, id, now); round++) {
        more = false;
        for (struct conn *conn = relay->conns; conn; conn = conn->next) {
            struct pollfd *entry = conn->poll[id];

            if (conn->dead || conn->connecting || !entry || !(entry->revents & (POLLIN | POLLHUP)))
                continue;
            if (!conn_may_read(relay, conn, id, now))
                continue;
            if (conn_read(relay, conn, id, now))
                more = true;
            else
                entry->revents = 0;
            conn_write(relay, conn, id, now); /* without delay it is due at once */
        }
        now = now_ns();
    }
    relay->way[id].saturated = relay->rate && !way_open(relay, id, now);
}

/* The connection that was served first is served last in the next turn. */
static void rotate(struct relay *relay)
{
    struct conn *first = relay->conns;
    struct conn **last = &relay->conns;

    if (!first || !first->next)
        return;
    relay->conns = first->next;
    while (*last)
        last = &(*last)->next;
    *last = first;
    first->next = NULL;
}

static void turn(struct relay *relay)
{
    uint64_t now = now_ns();

    for (struct conn *conn = relay->conns; conn; conn = conn->next)
        conn_polled(conn);
    if (!stalled(relay)) {
        for (struct conn *conn = relay->conns; conn; conn = conn->next) {
            for (int id = 0; id < WAYS && !conn->connecting; id++)
                conn_write(relay, conn, (enum way_id)id, now);
        }
        read_all(relay, FORWARD);
        read_all(relay, BACKWARD);
    }
    for (int i = 0; i < relay->pair_count; i++) {
        if (relay->polls[i].revents)
            accept_one(relay, &relay->pairs[i]);
    }
    reap(relay);
    rotate(relay);
}

/* ---- start, counts and options --------------------------------------------------------------- */

/* Written beside and renamed, so that a script never reads half of it. */
static FILE *file_begin(const char *path, char *temp, size_t size)
{
    FILE *file;

    snprintf(temp, size, "%s.new", path);
    file = fopen(temp, "w");
    if (!file)
        fail(temp);
    return file;
}

static void file_end(FILE *file, const char *temp, const char *path)
{
    if (fclose(file) || rename(temp, path))
        fail(path);
}

static void write_counts(const struct relay *relay)
{
    char temp[4096];
    FILE *file;

    if (!relay->count_file)
        return;
    file = file_begin(relay->count_file, temp, sizeof(temp));
    fprintf(file,
            "connections=%" PRIu64 "\nopen=%zu\nforward_bytes=%" PRIu64 "\nbackward_bytes=%" PRIu64
            "\ncuts=%" PRIu64 "\n",
            relay->connections, relay->conn_count, relay->way[FORWARD].bytes,
            relay->way[BACKWARD].bytes, relay->cuts);
    file_end(file, temp, relay->count_file);
}

static void write_ports(const struct relay *relay)
{
    char temp[4096];
    FILE *file;

    if (!relay->port_file)
        return;
    file = file_begin(relay->port_file, temp, sizeof(temp));
    for (int i = 0; i < relay->pair_count; i++) {
        const struct sockaddr_in *address = &relay->pairs[i].listen;

        fprintf(file, "%s:%u\n", inet_ntoa(address->sin_addr), ntohs(address->sin_port));
    }
    file_end(file, temp, relay->port_file);
}

static void start_listening(struct pair *pair)
{
    const int one = 1;
    socklen_t len = sizeof(pair->listen);

    pair->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (pair->fd < 0)
        fail("socket");
    setsockopt(pair->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(pair->fd, (const struct sockaddr *)&pair->listen, len) || listen(pair->fd, 128)) {
        fprintf(stderr, "relay: cannot listen on %s:%u: %s\n", inet_ntoa(pair->listen.sin_addr),
                ntohs(pair->listen.sin_port), strerror(errno));
        exit(1);
    }
    getsockname(pair->fd, (struct sockaddr *)&pair->listen, &len);
}

/* The signals are open only inside ppoll, so none is missed between a look at a flag and a wait. */
static void catch_signals(sigset_t *open_signals)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t ours;

    sigemptyset(&ours);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        sigaddset(&ours, numbers[i]);
        sigaction(numbers[i], &action, NULL);
    }
    sigprocmask(SIG_BLOCK, &ours, open_signals);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigdelset(open_signals, numbers[i]);
}

static void run(struct relay *relay)
{
    sigset_t open_signals;

    catch_signals(&open_signals);
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default adds 50 us to every wake-up */
    for (int i = 0; i < relay->pair_count; i++)
        start_listening(&relay->pairs[i]);
    write_ports(relay);
    puts("ready");
    fflush(stdout);
    while (!want_stop) {
        wait_for_work(relay, &open_signals);
        turn(relay);
        if (want_cut) {
            want_cut = 0;
            cut_all(relay);
            reap(relay);
            if (stalled(relay))
                relay->stall = 0;
        }
        if (want_counts) {
            want_counts = 0;
            write_counts(relay);
        }
    }
    write_counts(relay);
}

static void usage(FILE *file)
{
    fputs(
        "Usage: relay --listen ADDR:PORT --to ADDR:PORT [--listen ... --to ...] [OPTION...]\n"
        "Relays TCP connections over one slow or breaking link. Listens on 127.0.0.0/8 only.\n"
        "\n"
        "  --delay-us N        delay each way; the round trip takes twice as long\n"
        "  --rate BYTES        bytes per second each way, all connections together\n"
        "  --cut-after BYTES   reset all connections when so many bytes have passed, once\n"
        "  --cut-every         ... and again after each further BYTES\n"
        "  --stall-after BYTES move nothing more when so many bytes have passed\n"
        "  --count-file FILE   write what was counted, at the end and on SIGUSR1\n"
        "  --port-file FILE    write the addresses once they listen (port 0 takes any)\n"
        "\n"
        "Bytes of both ways count together. BYTES takes k, M or G (powers of 1024). \"ready\" on\n"
        "stdout says that it listens. SIGUSR2 resets all connections now, and ends a stall.\n",
        file);
}

static void refuse(const char *option, const char *value)
{
    fprintf(stderr, "relay: --%s %s: not understood (see relay --help)\n", option, value);
    exit(2);
}

static uint64_t parse_number(const char *option, const char *text)
{
    static const char units[] = "kMG";
    char *end;
    uint64_t number;
    const char *unit;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (errno || end == text || *text == '-')
        refuse(option, text);
    if (*end) {
        unit = strchr(units, *end);
        if (!unit || end[1])
            refuse(option, text);
        number <<= 10 * (unit - units + 1);
    }
    return number;
}

static struct sockaddr_in parse_address(const char *option, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (!colon || (size_t)(colon - text) >= sizeof(host))
        refuse(option, text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    port = parse_number(option, colon + 1);
    if (port > UINT16_MAX || inet_pton(AF_INET, host, &address.sin_addr) != 1)
        refuse(option, text);
    address.sin_port = htons((uint16_t)port);
    return address;
}

static void add_listen(struct relay *relay, const char *text)
{
    struct sockaddr_in address = parse_address("listen", text);

    if (ntohl(address.sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "relay: --listen %s: only 127.0.0.0/8, this is a test tool\n", text);
        exit(2);
    }
    if (relay->pair_count == PAIRS_MAX ||
        (relay->pair_count && !relay->pairs[relay->pair_count - 1].to.sin_port))
        refuse("listen", text);
    relay->pairs[relay->pair_count++].listen = address;
}

static void add_to(struct relay *relay, const char *text)
{
    if (!relay->pair_count || relay->pairs[relay->pair_count - 1].to.sin_port)
        refuse("to", text);
    relay->pairs[relay->pair_count - 1].to = parse_address("to", text);
    if (!relay->pairs[relay->pair_count - 1].to.sin_port)
        refuse("to", text);
}

static void parse_options(struct relay *relay, int argc, char **argv)
{
    static const struct option table[] = {
        {"listen", required_argument, NULL, 'l'},
        {"to", required_argument, NULL, 't'},
        {"delay-us", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},
        {"cut-after", required_argument, NULL, 'c'},
        {"cut-every", no_argument, NULL, 'e'},
        {"stall-after", required_argument, NULL, 's'},
        {"count-file", required_argument, NULL, 'f'},
        {"port-file", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", table, NULL)) >= 0) {
        switch (option) {
        case 'l':
            add_listen(relay, optarg);
            break;
        case 't':
            add_to(relay, optarg);
            break;
        case 'd':
            relay->delay_ns = parse_number("delay-us", optarg) * 1000;
            break;
        case 'r':
            relay->rate = parse_number("rate", optarg);
            break;
        case 'c':
            relay->cut = relay->next_cut = parse_number("cut-after", optarg);
            break;
        case 'e':
            relay->cut_every = true;
            break;
        case 's':
            relay->stall = parse_number("stall-after", optarg);
            break;
        case 'f':
            relay->count_file = optarg;
            break;
        case 'p':
            relay->port_file = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind < argc || !relay->pair_count || !relay->pairs[relay->pair_count - 1].to.sin_port) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct relay relay;

    parse_options(&relay, argc, argv);
    run(&relay);
    while (relay.conns) {
        struct conn *conn = relay.conns;

        relay.conns = conn->next;
        conn_free(&relay, conn);
    }
    while (relay.spare) {
        struct block *block = relay.spare;

        relay.spare = block->next;
        free(block);
    }
    free(relay.polls);
    return 0;
}
