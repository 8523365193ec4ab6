/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- The owner -------------------------------------------------------------------------------- */

static void note(struct bench *bench, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct bench *bench, const char *format, ...)
{
    size_t at = strlen(bench->log);
    va_list args;

    va_start(args, format);
    vsnprintf(bench->log + at, sizeof(bench->log) - at, format, args);
    va_end(args);
}

static struct bench *bench_of(struct retry *retry)
{
    return container_of(retry, struct bench, retry);
}

static int number_of(const struct bench *bench, const struct retry_item *item)
{
    return (int)(item - bench->items);
}

static void recover(struct retry *retry)
{
    note(bench_of(retry), "recover\n");
}

static void again(struct retry *retry, struct retry_item *item)
{
    note(bench_of(retry), "again %d\n", number_of(bench_of(retry), item));
    retry_sent(retry);
}

static void drop(struct retry *retry, struct retry_item *item, const struct blk_error *error)
{
    note(bench_of(retry), "drop %d%s%s\n", number_of(bench_of(retry), item), error ? ": " : "",
         error ? error->text : "");
    retry_end(retry);
}

static void settled(struct retry *retry)
{
    note(bench_of(retry), "settled\n");
}

static const struct retry_owner owner = {recover, again, drop, settled};

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    static const char *const names[] = {"AWAY", "BACK", "WAITING", "REPEATED", "WARNING"};

    assert_string_equal(name, "it");
    note(container_of(watcher, struct bench, watcher), "%s %s\n", names[event], text);
}

/* ---- The bench -------------------------------------------------------------------------------- */

void bench_init(struct bench *bench, uint64_t give_up)
{
    memset(bench, 0, sizeof(*bench));
    bench->loop = loop_new_manual();
    assert_non_null(bench->loop);
    bench->settings = (struct blk_settings){.timeout = TIMEOUT / 2, .give_up = give_up};
    bench->watcher.event = on_event;
    retry_init(&bench->retry, &owner, bench->loop, "it");
    bench->retry.settings = &bench->settings;
    bench->retry.watcher = &bench->watcher;
}

void bench_release(struct bench *bench)
{
    retry_release(&bench->retry);
    loop_free(bench->loop);
}

void bench_pass(struct bench *bench, uint64_t ns)
{
    loop_advance(bench->loop, ns);
    while (loop_turn(bench->loop, 0))
        ;
}

void bench_check_log(struct bench *bench, const char *expected)
{
    bench_pass(bench, 0);
    assert_string_equal(bench->log, expected);
    bench->log[0] = '\0';
}

void bench_begin(struct bench *bench)
{
    retry_begin(&bench->retry);
    retry_sent(&bench->retry);
}

bool bench_answer(struct bench *bench, unsigned item, enum blk_retry kind)
{
    struct blk_error error;

    blk_error_set_retry(&error, EIO, kind, "no");
    retry_answered(&bench->retry, false);
    return retry_keep(&bench->retry, &bench->items[item], &error);
}

void bench_succeed(struct bench *bench)
{
    retry_answered(&bench->retry, true);
    retry_end(&bench->retry);
}

void bench_recovered(struct bench *bench, enum blk_retry kind)
{
    struct blk_error error;

    blk_error_set_retry(&error, ESTALE, kind, "not it");
    retry_recovered(&bench->retry, -ESTALE, &error);
}

uint64_t bench_wait(struct bench *bench)
{
    uint64_t ms = 0;

    bench->log[0] = '\0';
    while (bench_pass(bench, 0), bench->log[0] == '\0') {
        assert_true(ms < 3600 * 1000);
        bench_pass(bench, MS);
        ms++;
    }
    return ms;
}
