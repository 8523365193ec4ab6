/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/loop.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "offload.h"

/* A session each for source and target, the helper threads, and room: poll(2)'s array. */
#define MAX_WATCHES 64

struct loop {
    bool manual;
    uint64_t manual_now;
    int wake_fd;
    struct loop_watch *watches;
    struct loop_timer *timers;            /* sorted by time; a handful */
    struct loop_call *calls, **calls_end; /* deferred until run_calls() comes by again */
    struct loop_call *running;            /* those that the present run_calls() still has to run */
    struct offload *offload;              /* NULL until first needed */
};

static struct loop *new_loop(bool manual)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return NULL;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        free(loop);
        return NULL;
    }
    loop->manual = manual;
    loop->manual_now = LOOP_SECOND;
    loop->calls_end = &loop->calls;
    return loop;
}

struct loop *loop_new(void)
{
    return new_loop(false);
}

struct loop *loop_new_manual(void)
{
    return new_loop(true);
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    if (loop->offload)
        offload_free(loop->offload);
    assert(!loop->watches && !loop->timers && !loop->calls);
    close(loop->wake_fd);
    free(loop);
}

uint64_t loop_now(const struct loop *loop)
{
    struct timespec ts;

    if (loop->manual)
        return loop->manual_now;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * LOOP_SECOND + (uint64_t)ts.tv_nsec;
}

void loop_advance(struct loop *loop, uint64_t ns)
{
    assert(loop->manual);
    loop->manual_now += ns;
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;

    /* It can only fail when the counter is full, and then the loop is being woken anyway. */
    while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void loop_watch(struct loop *loop, struct loop_watch *watch)
{
    assert(!watch->registered);
    watch->registered = true;
    watch->slot = -1;
    watch->deadline = LOOP_NEVER;
    watch->next = loop->watches;
    loop->watches = watch;
}

void loop_unwatch(struct loop *loop, struct loop_watch *watch)
{
    if (!watch->registered)
        return;
    for (struct loop_watch **at = &loop->watches; *at; at = &(*at)->next) {
        if (*at == watch) {
            *at = watch->next;
            break;
        }
    }
    watch->registered = false;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at)
{
    struct loop_timer **link = &loop->timers;

    loop_timer_cancel(loop, timer);
    while (*link && (*link)->at <= at)
        link = &(*link)->next;
    timer->at = at;
    timer->pending = true;
    timer->next = *link;
    *link = timer;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
    if (!timer->pending)
        return;
    for (struct loop_timer **at = &loop->timers; *at; at = &(*at)->next) {
        if (*at == timer) {
            *at = timer->next;
            break;
        }
    }
    timer->pending = false;
}

void loop_defer(struct loop *loop, struct loop_call *call)
{
    if (call->pending)
        return;
    call->pending = true;
    call->next = NULL;
    *loop->calls_end = call;
    loop->calls_end = &call->next;
}

void loop_defer_cancel(struct loop *loop, struct loop_call *call)
{
    struct loop_call **lists[] = {&loop->running, &loop->calls};

    if (!call->pending)
        return;
    for (int i = 0; i < 2; i++) {
        for (struct loop_call **at = lists[i]; *at; at = &(*at)->next) {
            if (*at == call) {
                *at = call->next;
                if (loop->calls_end == &call->next)
                    loop->calls_end = at;
                call->pending = false;
                return;
            }
        }
    }
}

int loop_offload(struct loop *loop, struct loop_work *work)
{
    if (!loop->offload) {
        loop->offload = offload_new(loop);
        if (!loop->offload)
            return -ENOMEM;
    }
    return offload_add(loop->offload, work);
}

/* Calls may defer themselves again; those wait for the next run, so that a turn always ends. */
static bool run_calls(struct loop *loop)
{
    bool ran = false;

    loop->running = loop->calls;
    loop->calls = NULL;
    loop->calls_end = &loop->calls;
    while (loop->running) {
        struct loop_call *call = loop->running;

        loop->running = call->next;
        call->pending = false;
        call->run(call);
        ran = true;
    }
    return ran;
}

static bool run_timers(struct loop *loop)
{
    bool ran = false;

    while (loop->timers && loop->timers->at <= loop_now(loop)) {
        struct loop_timer *timer = loop->timers;

        loop->timers = timer->next;
        timer->pending = false;
        timer->fire(timer);
        ran = true;
    }
    return ran;
}

/* Fills fds[1...], returns how many are used, and lowers *deadline to the nearest one. */
static nfds_t prepare_watches(struct loop *loop, struct pollfd *fds, uint64_t *deadline)
{
    nfds_t count = 1;

    for (struct loop_watch *watch = loop->watches; watch; watch = watch->next) {
        struct loop_interest interest = {-1, 0, LOOP_NEVER};

        watch->prepare(watch, &interest);
        watch->slot = -1;
        watch->deadline = interest.deadline;
        if (interest.deadline < *deadline)
            *deadline = interest.deadline;
        if (interest.fd >= 0) {
            assert(count < MAX_WATCHES);
            watch->slot = (int)count;
            fds[count++] = (struct pollfd){.fd = interest.fd, .events = interest.events};
        }
    }
    return count;
}

/* A service may unwatch any watch, so the list is searched anew after each; it is short. */
static bool serve_watches(struct loop *loop, const struct pollfd *fds, uint64_t now)
{
    bool ran = false;
    struct loop_watch *watch = loop->watches;

    while (watch) {
        short revents = watch->slot > 0 ? fds[watch->slot].revents : 0;

        if (!revents && watch->deadline > now) {
            watch = watch->next;
            continue;
        }
        watch->slot = -1;
        watch->deadline = LOOP_NEVER;
        watch->service(watch, revents);
        ran = true;
        watch = loop->watches;
    }
    return ran;
}

static void sleep_until(struct loop *loop, struct pollfd *fds, nfds_t count, uint64_t deadline)
{
    struct timespec timeout = {0, 0};
    uint64_t now = loop_now(loop);
    int ready;

    if (!loop->manual && deadline > now) {
        timeout.tv_sec = (time_t)((deadline - now) / LOOP_SECOND);
        timeout.tv_nsec = (long)((deadline - now) % LOOP_SECOND);
    }
    ready = ppoll(fds, count, deadline == LOOP_NEVER && !loop->manual ? NULL : &timeout, NULL);
    if (ready < 0) {
        for (nfds_t i = 0; i < count; i++)
            fds[i].revents = 0;
    }
    if (fds[0].revents) {
        uint64_t wakes;

        while (read(loop->wake_fd, &wakes, sizeof(wakes)) < 0 && errno == EINTR)
            ;
    }
}

bool loop_turn(struct loop *loop, uint64_t deadline)
{
    struct pollfd fds[MAX_WATCHES];
    bool ran = run_calls(loop);
    nfds_t count;

    if (loop->timers && loop->timers->at < deadline)
        deadline = loop->timers->at;
    if (ran || loop->calls)
        deadline = 0;
    fds[0] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
    count = prepare_watches(loop, fds, &deadline);
    sleep_until(loop, fds, count, deadline);
    ran |= serve_watches(loop, fds, loop_now(loop));
    ran |= run_timers(loop);
    ran |= run_calls(loop);
    return ran;
}
