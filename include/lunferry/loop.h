/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop. One loop per lane, one thread per loop.
 *
 * It is poll(2) on purpose: libiscsi and libnfs dup2() over their descriptors and change the events
 * that they want at every turn, which epoll registrations do not survive. A loop serves a handful
 * of descriptors.
 *
 * Invariants:
 * - Every function here is called from the loop's own thread, except loop_wake().
 * - Nothing sleeps except loop_turn(), inside poll(2).
 * - Time is the loop's: whatever needs a delay asks loop_now() and sets a timer, so that a test can
 *   drive a whole job by hand with loop_new_manual().
 * - Callbacks run from loop_turn() only, never from inside the call that registered them.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC (or of the manual clock) in a uint64_t.
 */
#ifndef LUNFERRY_LOOP_H
#define LUNFERRY_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lunferry/error.h>

#define LOOP_NEVER   UINT64_MAX
#define LOOP_SECOND  UINT64_C(1000000000)
#define LOOP_MSECOND UINT64_C(1000000)

struct loop;

/* From what the loop calls back with to the struct that it is a member of. */
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Returns NULL when out of memory or descriptors. */
struct loop *loop_new(void);
/* A loop whose clock stands still until loop_advance() moves it, and whose turns never sleep. */
struct loop *loop_new_manual(void);
/* Nothing may be registered any more: no watch, timer, call or offloaded work. */
void loop_free(struct loop *loop);

/* Serves everything that is due; sleeps until something is, at most until `deadline`
 * (LOOP_NEVER: no limit). Returns true when it called anything back. */
bool loop_turn(struct loop *loop, uint64_t deadline);
uint64_t loop_now(const struct loop *loop);
/* Manual loops only: moves the clock forward by ns. */
void loop_advance(struct loop *loop, uint64_t ns);

/* From any thread: makes a sleeping loop_turn() return and ask its watches anew. */
void loop_wake(struct loop *loop);

/*
 * A watch: something with a descriptor. Before every poll the loop asks prepare() what it wants now;
 * afterwards it calls service() when one of the events happened (revents != 0) or when the deadline
 * has passed (revents == 0). service() may be called spuriously.
 * Owned by the caller, registered until loop_unwatch().
 */
struct loop_interest {
    int fd;            /* -1: no descriptor now */
    short events;      /* POLLIN, POLLOUT */
    uint64_t deadline; /* LOOP_NEVER: none; in the past: serve at once, do not sleep */
};

struct loop_watch {
    void (*prepare)(struct loop_watch *watch, struct loop_interest *interest);
    void (*service)(struct loop_watch *watch, short revents);
    /* private to the loop */
    struct loop_watch *next;
    int slot;
    bool registered;
    uint64_t deadline;
};

/* `interest` is { -1, 0, LOOP_NEVER } when prepare() is called. */
void loop_watch(struct loop *loop, struct loop_watch *watch);
/* May be called from any callback, the watch's own included. Does nothing when not registered. */
void loop_unwatch(struct loop *loop, struct loop_watch *watch);

/* A timer, owned by the caller, fires once. Setting a pending one moves it. */
struct loop_timer {
    void (*fire)(struct loop_timer *timer);
    /* private to the loop */
    struct loop_timer *next;
    uint64_t at;
    bool pending;
};

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

/* A deferred call, owned by the caller: runs once, in this turn of the loop or the next.
 * Deferring one that is pending already changes nothing. Calls run in the order of deferral. */
struct loop_call {
    void (*run)(struct loop_call *call);
    /* private to the loop */
    struct loop_call *next;
    bool pending;
};

void loop_defer(struct loop *loop, struct loop_call *call);
void loop_defer_cancel(struct loop *loop, struct loop_call *call);

/*
 * Work for a helper thread: what can only block (pread, fsync, getaddrinfo). run() is called in a
 * thread of the loop's pool and touches nothing but what hangs on *work; done() follows on the loop.
 * At most LOOP_THREADS run at once; more wait in order. The pool's threads are made when first
 * needed. There is no cancelling: `work` stays valid until done().
 */
#define LOOP_THREADS 16

struct loop_work {
    void (*run)(struct loop_work *work);
    void (*done)(struct loop_work *work);
    /* private to the loop */
    struct loop_work *next;
};

/* Returns 0 or -errno (no thread could be made). */
int loop_offload(struct loop *loop, struct loop_work *work);

#endif
