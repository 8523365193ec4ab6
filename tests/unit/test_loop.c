/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/loop.h>

/* What was called back, as letters. */
static char trace[256];

static void note(char letter)
{
    size_t at = strlen(trace);

    assert_true(at + 1 < sizeof(trace));
    trace[at] = letter;
    trace[at + 1] = '\0';
}

static void check_trace(const char *expected)
{
    assert_string_equal(trace, expected);
    trace[0] = '\0';
}

static void settle(struct loop *loop)
{
    for (int i = 0; loop_turn(loop, 0); i++)
        assert_true(i < 1000);
}

/* ---- Deferred calls --------------------------------------------------------------------------- */

struct named_call {
    struct loop_call call;
    struct loop *loop;
    char letter;
    struct loop_call *defer, *cancel; /* what it does when it runs */
    unsigned again;                   /* and how often it defers itself */
};

static void run_named(struct loop_call *call)
{
    struct named_call *named = container_of(call, struct named_call, call);

    assert_false(call->pending);
    note(named->letter);
    if (named->defer)
        loop_defer(named->loop, named->defer);
    if (named->cancel)
        loop_defer_cancel(named->loop, named->cancel);
    if (named->again > 0) {
        named->again--;
        loop_defer(named->loop, call);
    }
}

static void name_calls(struct loop *loop, struct named_call *calls, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        calls[i] = (struct named_call){
            .call = {.run = run_named}, .loop = loop, .letter = (char)('a' + i)};
}

static void test_calls_in_order(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_call calls[3];

    (void)state;
    name_calls(loop, calls, 3);
    loop_defer(loop, &calls[1].call);
    loop_defer(loop, &calls[0].call);
    loop_defer(loop, &calls[1].call); /* is pending already */
    loop_defer(loop, &calls[2].call);
    check_trace(""); /* never from inside */
    assert_true(loop_turn(loop, 0));
    check_trace("bac");
    assert_false(loop_turn(loop, 0));
    loop_free(loop);
}

static void test_calls_that_defer(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_call calls[2];

    (void)state;
    name_calls(loop, calls, 2);
    calls[0].defer = &calls[1].call;
    calls[0].again = 5;
    loop_defer(loop, &calls[0].call);
    settle(loop);
    check_trace("abababababab");
    loop_free(loop);
}

/* A turn ends, however often a call defers itself. */
static void test_turns_end(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_call calls[1];

    (void)state;
    name_calls(loop, calls, 1);
    calls[0].again = 100;
    loop_defer(loop, &calls[0].call);
    assert_true(loop_turn(loop, LOOP_NEVER));
    assert_true(strlen(trace) <= 2);
    loop_defer_cancel(loop, &calls[0].call);
    assert_false(loop_turn(loop, 0));
    trace[0] = '\0';
    loop_free(loop);
}

static void test_cancel_calls(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_call calls[4];

    (void)state;
    /* From outside: first, in the middle, last, and one that is not pending. */
    for (unsigned which = 0; which < 4; which++) {
        static const char *const left[] = {"bc", "ac", "ab", "abc"};

        name_calls(loop, calls, 4);
        for (unsigned i = 0; i < 3; i++)
            loop_defer(loop, &calls[i].call);
        loop_defer_cancel(loop, &calls[which].call);
        settle(loop);
        check_trace(left[which]);
    }
    /* The last, and one more after it. */
    loop_defer(loop, &calls[0].call);
    loop_defer(loop, &calls[1].call);
    loop_defer_cancel(loop, &calls[1].call);
    loop_defer(loop, &calls[2].call);
    settle(loop);
    check_trace("ac");
    loop_free(loop);
}

/* From inside one of them: one that this very run would come to, next or later, or last. */
static void test_cancel_calls_from_calls(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_call calls[4];

    (void)state;
    for (unsigned which = 1; which < 4; which++) {
        static const char *const left[] = {"", "acd", "abd", "abc"};

        name_calls(loop, calls, 4);
        calls[0].cancel = &calls[which].call;
        for (unsigned i = 0; i < 4; i++)
            loop_defer(loop, &calls[i].call);
        settle(loop);
        check_trace(left[which]);
    }
    /* One that has run already, and one that was only deferred from inside. */
    name_calls(loop, calls, 4);
    calls[1].cancel = &calls[0].call;
    calls[2].defer = &calls[3].call;
    calls[2].cancel = &calls[3].call;
    for (unsigned i = 0; i < 3; i++)
        loop_defer(loop, &calls[i].call);
    settle(loop);
    check_trace("abc");
    loop_free(loop);
}

/* ---- Timers ----------------------------------------------------------------------------------- */

struct named_timer {
    struct loop_timer timer;
    struct loop *loop;
    char letter;
    struct loop_timer *cancel;
    uint64_t again; /* ns from then; 0: not */
};

static void fire_named(struct loop_timer *timer)
{
    struct named_timer *named = container_of(timer, struct named_timer, timer);

    assert_false(timer->pending);
    note(named->letter);
    if (named->cancel)
        loop_timer_cancel(named->loop, named->cancel);
    if (named->again)
        loop_timer_set(named->loop, timer, loop_now(named->loop) + named->again);
}

static void name_timers(struct loop *loop, struct named_timer *timers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        timers[i] = (struct named_timer){
            .timer = {.fire = fire_named}, .loop = loop, .letter = (char)('a' + i)};
}

static void test_timers_in_order(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_timer timers[4];
    uint64_t start = loop_now(loop);

    (void)state;
    name_timers(loop, timers, 4);
    loop_timer_set(loop, &timers[0].timer, start + 30);
    loop_timer_set(loop, &timers[1].timer, start + 10);
    loop_timer_set(loop, &timers[2].timer, start + 20);
    loop_timer_set(loop, &timers[3].timer, start + 10); /* at the same time: in this order */
    settle(loop);
    check_trace("");
    loop_advance(loop, 9);
    settle(loop);
    check_trace("");
    loop_advance(loop, 1);
    settle(loop);
    check_trace("bd");
    loop_advance(loop, 100);
    settle(loop);
    check_trace("ca");
    assert_int_equal(loop_now(loop), start + 110);
    loop_free(loop);
}

static void test_move_and_cancel_timers(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_timer timers[3];
    uint64_t start = loop_now(loop);

    (void)state;
    name_timers(loop, timers, 3);
    for (unsigned i = 0; i < 3; i++)
        loop_timer_set(loop, &timers[i].timer, start + 10 * (i + 1));
    loop_timer_set(loop, &timers[0].timer, start + 25); /* moved */
    loop_timer_cancel(loop, &timers[1].timer);
    loop_timer_cancel(loop, &timers[1].timer);
    loop_advance(loop, 100);
    settle(loop);
    check_trace("ac");
    /* From inside one: another that is due, too; and itself, again. */
    timers[0].cancel = &timers[1].timer;
    timers[0].again = 50;
    loop_timer_set(loop, &timers[0].timer, start);
    loop_timer_set(loop, &timers[1].timer, start);
    settle(loop);
    check_trace("a");
    loop_advance(loop, 49);
    settle(loop);
    check_trace("");
    timers[0].again = 0;
    loop_advance(loop, 1);
    settle(loop);
    check_trace("a");
    loop_free(loop);
}

/* With a real clock: not before the time, and without being asked in the meantime. */
static void test_real_time(void **state)
{
    struct loop *loop = loop_new();
    struct named_timer timers[1];
    uint64_t start = loop_now(loop);

    (void)state;
    name_timers(loop, timers, 1);
    loop_timer_set(loop, &timers[0].timer, start + 3 * LOOP_MSECOND);
    assert_true(loop_turn(loop, LOOP_NEVER));
    check_trace("a");
    assert_true(loop_now(loop) >= start + 3 * LOOP_MSECOND);
    start = loop_now(loop);
    assert_false(loop_turn(loop, start + 2 * LOOP_MSECOND));
    assert_true(loop_now(loop) >= start + 2 * LOOP_MSECOND);
    loop_free(loop);
}

/* ---- Watches ---------------------------------------------------------------------------------- */

struct named_watch {
    struct loop_watch watch;
    struct loop *loop;
    char letter;
    int fd;
    short events;
    uint64_t deadline;
    short revents;               /* the last ones */
    struct loop_watch *unwatch;  /* when served */
    struct named_watch *replace; /* when served: registers this one */
};

static void prepare_named(struct loop_watch *watch, struct loop_interest *interest)
{
    struct named_watch *named = container_of(watch, struct named_watch, watch);

    assert_int_equal(interest->fd, -1);
    assert_int_equal(interest->events, 0);
    assert_true(interest->deadline == LOOP_NEVER);
    interest->fd = named->fd;
    interest->events = named->events;
    interest->deadline = named->deadline;
}

static void service_named(struct loop_watch *watch, short revents)
{
    struct named_watch *named = container_of(watch, struct named_watch, watch);
    char byte;

    note(named->letter);
    named->revents = revents;
    if (revents & POLLIN)
        assert_int_equal(read(named->fd, &byte, 1), 1);
    if (revents == 0)
        named->deadline = LOOP_NEVER;
    if (named->unwatch) {
        loop_unwatch(named->loop, named->unwatch);
        /* Its owner may free it now. */
        named->unwatch->next = (struct loop_watch *)(uintptr_t)8;
    }
    if (named->replace)
        loop_watch(named->loop, &named->replace->watch);
}

static void name_watches(struct loop *loop, struct named_watch *watches, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        watches[i] = (struct named_watch){
            .watch = {.prepare = prepare_named, .service = service_named},
            .loop = loop,
            .letter = (char)('a' + i),
            .fd = -1,
            .deadline = LOOP_NEVER,
        };
}

static void test_watch_events(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_watch watch;
    int fds[2], second[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pipe(second), 0);
    name_watches(loop, &watch, 1);
    loop_watch(loop, &watch.watch);
    watch.fd = fds[0];
    watch.events = POLLIN;
    settle(loop);
    check_trace("");
    assert_int_equal(write(fds[1], "x", 1), 1);
    settle(loop);
    check_trace("a");
    assert_int_equal(watch.revents, POLLIN);
    /* What it wants is asked anew every time, and so is where. */
    assert_int_equal(write(fds[1], "x", 1), 1);
    watch.fd = -1;
    settle(loop);
    check_trace("");
    watch.fd = second[1];
    watch.events = POLLOUT;
    assert_true(loop_turn(loop, 0));
    check_trace("a");
    assert_int_equal(watch.revents, POLLOUT);
    loop_unwatch(loop, &watch.watch);
    settle(loop);
    check_trace("");
    loop_unwatch(loop, &watch.watch); /* is not registered */
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(second[i]);
    }
    loop_free(loop);
}

static void test_watch_deadlines(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_watch watches[2];

    (void)state;
    name_watches(loop, watches, 2);
    loop_watch(loop, &watches[0].watch);
    loop_watch(loop, &watches[1].watch);
    watches[0].deadline = loop_now(loop) + 10;
    watches[1].deadline = loop_now(loop) + 20;
    settle(loop);
    check_trace("");
    loop_advance(loop, 10);
    settle(loop);
    check_trace("a");
    assert_int_equal(watches[0].revents, 0);
    loop_advance(loop, 10);
    settle(loop);
    check_trace("b");
    watches[0].deadline = 0; /* long ago */
    settle(loop);
    check_trace("a");
    loop_unwatch(loop, &watches[0].watch);
    loop_unwatch(loop, &watches[1].watch);
    loop_free(loop);
}

/* A watch that ends itself, or its neighbours, while all of them are due; every other one is served
 * just once. */
static void test_unwatch_from_service(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_watch watches[3];

    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        for (unsigned victim = 0; victim < 3; victim++) {
            name_watches(loop, watches, 3);
            for (unsigned i = 0; i < 3; i++) {
                watches[i].deadline = 0;
                loop_watch(loop, &watches[i].watch);
            }
            watches[which].unwatch = &watches[victim].watch;
            settle(loop);
            for (unsigned i = 0; i < 3; i++) {
                const char *first = strchr(trace, watches[i].letter);

                if (i != victim)
                    assert_non_null(first);
                assert_true(!first || !strchr(first + 1, watches[i].letter));
                loop_unwatch(loop, &watches[i].watch);
            }
            trace[0] = '\0';
        }
    }
    loop_free(loop);
}

static void test_watch_from_service(void **state)
{
    struct loop *loop = loop_new_manual();
    struct named_watch watches[2];

    (void)state;
    name_watches(loop, watches, 2);
    watches[0].deadline = watches[1].deadline = 0;
    watches[0].unwatch = &watches[0].watch;
    watches[0].replace = &watches[1];
    loop_watch(loop, &watches[0].watch);
    settle(loop);
    check_trace("ab");
    loop_unwatch(loop, &watches[1].watch);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_in_order),
        cmocka_unit_test(test_calls_that_defer),
        cmocka_unit_test(test_turns_end),
        cmocka_unit_test(test_cancel_calls),
        cmocka_unit_test(test_cancel_calls_from_calls),
        cmocka_unit_test(test_timers_in_order),
        cmocka_unit_test(test_move_and_cancel_timers),
        cmocka_unit_test(test_real_time),
        cmocka_unit_test(test_watch_events),
        cmocka_unit_test(test_watch_deadlines),
        cmocka_unit_test(test_unwatch_from_service),
        cmocka_unit_test(test_watch_from_service),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
