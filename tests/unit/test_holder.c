/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holders: of this process, of one that is made to end, and of made-up ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/copy/holder.h"

/* This process, on a machine that has an id, whatever the one of the test has. */
static struct holder self(void)
{
    struct holder holder;

    holder_self(&holder);
    strcpy(holder.machine, "0123456789abcdef0123456789abcdef");
    return holder;
}

static void test_lines(void **state)
{
    struct holder holder = self(), again;
    char text[HOLDER_TEXT], other[HOLDER_TEXT];

    (void)state;
    assert_int_equal(holder.pid, getpid());
    assert_true(holder.started > 0 && holder.pid_namespace > 0);
    assert_int_equal(strlen(holder.boot), 36);
    assert_true(holder_decode(&again, holder_encode(&holder, text)));
    assert_string_equal(holder_encode(&again, other), text);
    assert_true(holder_equal(&holder, &again));
    again.started++;
    assert_false(holder_equal(&holder, &again));

    memset(holder.host, 'x', sizeof(holder.host) - 1);
    holder.pid = holder.started = holder.pid_namespace = holder.time_namespace = UINT64_MAX;
    holder.since = INT64_MAX;
    assert_true(strlen(holder_encode(&holder, text)) < HOLDER_TEXT - 1);
    assert_true(holder_decode(&again, text));
    assert_true(holder_equal(&holder, &again));

    memset(&holder, 0, sizeof(holder));
    assert_true(holder_decode(&again, holder_encode(&holder, text)));
    assert_true(holder_equal(&holder, &again));
}

static void test_no_lines(void **state)
{
    struct holder holder = self();
    char text[HOLDER_TEXT], *at;

    (void)state;
    holder_encode(&holder, text);
    /* Cut anywhere but inside the last number, which may have any length. */
    at = strstr(text, " since=") + 7;
    while (at-- > text) {
        *at = '\0';
        assert_false(holder_decode(&holder, text));
    }
    holder = self();
    strcat((char *)(uintptr_t)holder_encode(&holder, text), " ");
    assert_true(holder_decode(&holder, text)); /* harmless */
    strcat(text, "x");
    assert_false(holder_decode(&holder, text));
    assert_false(holder_decode(&holder, "host=a\nb machine= boot= pid-namespace=1 time-namespace=1 "
                                        "pid=1 started=1 since=1"));
    assert_false(holder_decode(&holder, "host=a machine= boot= pid-namespace=1 time-namespace=1 "
                                        "pid=-1 started=1 since=1"));
}

static void test_words(void **state)
{
    struct holder holder = {.host = "db1", .pid = 4711, .since = 1795249800};
    char text[HOLDER_WORDS];

    (void)state;
    assert_string_equal(holder_describe(&holder, text),
                        "process 4711 on host db1 since 2026-11-21 08:30:00 UTC");
    holder.since = INT64_MAX;
    assert_string_equal(holder_describe(&holder, text),
                        "process 4711 on host db1 since an unknown time");
}

static void test_gone(void **state)
{
    struct holder here = self(), holder = here;

    (void)state;
    assert_false(holder_is_gone(&holder, &here));
    holder.started++;
    assert_true(holder_is_gone(&holder, &here));
    holder = here;
    holder.boot[0] = holder.boot[0] == 'a' ? 'b' : 'a';
    assert_true(holder_is_gone(&holder, &here));
    holder = here;
    holder.pid = 1; /* there, and not this one */
    assert_true(holder_is_gone(&holder, &here));
    holder.started = 0;
    assert_false(holder_is_gone(&holder, &here));
}

/* Whatever makes it doubtful, in a holder that would be gone otherwise. */
static void test_cannot_tell(void **state)
{
    struct holder here = self(), gone = here, holder, elsewhere;

    (void)state;
    gone.started++;
    assert_true(holder_is_gone(&gone, &here));
    holder = gone;
    holder.machine[3] = 'x';
    assert_false(holder_is_gone(&holder, &here));
    holder.boot[0] = 'x';
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    holder.host[0] ^= 1;
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    holder.pid_namespace++;
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    holder.time_namespace++;
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    holder.pid = 0;
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    holder.boot[0] = '\0';
    assert_false(holder_is_gone(&holder, &here));
    holder = gone;
    elsewhere = here;
    holder.machine[0] = elsewhere.machine[0] = '\0';
    assert_false(holder_is_gone(&holder, &elsewhere));
    holder = gone;
    elsewhere = here;
    holder.pid_namespace = elsewhere.pid_namespace = 0;
    assert_false(holder_is_gone(&holder, &elsewhere));
}

/* A process that lives, is killed, is waited for. */
static void test_killed(void **state)
{
    struct holder here = self(), holder = {0};
    int fds[2];
    siginfo_t info;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct holder mine = self();

        if (write(fds[1], &mine, sizeof(mine)) == sizeof(mine))
            pause();
        _exit(1);
    }
    assert_int_equal(read(fds[0], &holder, sizeof(holder)), sizeof(holder));
    assert_int_equal(holder.pid, child);
    assert_false(holder_equal(&holder, &here));
    assert_false(holder_is_gone(&holder, &here));
    kill(child, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_true(holder_is_gone(&holder, &here));
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(holder_is_gone(&holder, &here));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),       cmocka_unit_test(test_no_lines),
        cmocka_unit_test(test_words),       cmocka_unit_test(test_gone),
        cmocka_unit_test(test_cannot_tell), cmocka_unit_test(test_killed),
    };

    return cmocka_run_group_tests_name("holder", tests, NULL, NULL);
}
