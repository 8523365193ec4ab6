/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When an acknowledged write is durable, and when an epoch ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/iscsi/private.h"

static struct cache make(bool on)
{
    struct cache cache;

    assert_int_equal(cache_init(&cache, NULL), 0);
    cache_told(&cache, on);
    return cache;
}

static void flush(struct cache *cache)
{
    cache_flush_ended(cache, cache_flush_begins(cache));
}

static void test_start(void **state)
{
    struct cache a, b;

    (void)state;
    cache_init(&a, NULL);
    cache_init(&b, NULL);
    assert_true(a.epoch != BLK_NO_EPOCH);
    assert_true(a.epoch != b.epoch);      /* 64 random bits */
    assert_false(cache_wrote(&a, false)); /* not told: volatile */
    assert_true(cache_needs_flush(&b));
}

static void test_durable(void **state)
{
    struct cache on = make(true), off = make(false);

    (void)state;
    assert_false(cache_wrote(&on, false));
    assert_true(cache_wrote(&on, true));
    assert_true(cache_wrote(&off, false));
    assert_true(cache_needs_flush(&on));
    assert_false(cache_needs_flush(&off));
}

static void test_end_of_epoch(void **state)
{
    static const struct {
        bool on;
        unsigned effects;
        bool ends;
    } rows[] = {
        {true, SENSE_CACHE_LOST, true},    {false, SENSE_CACHE_LOST, false},
        {true, SENSE_MODE_CHANGED, false}, {true, SENSE_FENCED, false},
        {true, SENSE_POOL_LOW, false},     {true, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cache cache = make(rows[i].on);
        uint64_t epoch = cache.epoch;

        cache_wrote(&cache, false);
        cache_attention(&cache, rows[i].effects);
        assert_int_equal(cache.epoch != epoch, rows[i].ends);
    }
}

static void test_new_session(void **state)
{
    struct cache on = make(true), off = make(false);
    uint64_t epochs[3] = {on.epoch};

    (void)state;
    cache_wrote(&on, false);
    cache_new_session(&on);
    epochs[1] = on.epoch;
    cache_told(&on, true);
    cache_new_session(&on);
    epochs[2] = on.epoch;
    assert_true(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2]);

    epochs[0] = off.epoch;
    cache_wrote(&off, false);
    cache_new_session(&off);
    assert_int_equal(off.epoch, epochs[0]);
    assert_false(cache_wrote(&off, false)); /* until it is told again */
}

static void test_never_no_epoch(void **state)
{
    struct cache cache = make(true);

    (void)state;
    cache.epoch = UINT64_MAX;
    cache_attention(&cache, SENSE_CACHE_LOST);
    assert_true(cache.epoch != BLK_NO_EPOCH);
}

/* After 2A/01, and after a reset, which brings back saved mode parameters, nothing is durable by
 * itself until the caching page has been read. */
static void test_mode_changed(void **state)
{
    static const unsigned effects[] = {SENSE_MODE_CHANGED, SENSE_CACHE_LOST};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct cache cache = make(false);

        assert_true(cache_wrote(&cache, false));
        cache_attention(&cache, effects[i]);
        assert_false(cache_wrote(&cache, false));
        assert_true(cache_needs_flush(&cache));
        cache_told(&cache, false);
        assert_true(cache_wrote(&cache, false));
    }
}

/* What was acknowledged while there was a cache needs a flush when there is none any more. */
static void test_cache_turned_off(void **state)
{
    struct cache cache = make(true);
    uint64_t begun;

    (void)state;
    cache_wrote(&cache, false);
    cache_told(&cache, false);
    assert_true(cache_needs_flush(&cache));
    begun = cache_flush_begins(&cache);
    cache_told(&cache, true);
    cache_wrote(&cache, false); /* while the flush is on its way */
    cache_told(&cache, false);
    cache_flush_ended(&cache, begun);
    assert_true(cache_needs_flush(&cache));
    flush(&cache);
    assert_false(cache_needs_flush(&cache));
    /* an older flush that ends later takes nothing back */
    cache_flush_ended(&cache, begun);
    assert_false(cache_needs_flush(&cache));
}

/* SYNCHRONIZE CACHE is answered with a reset attention: the one that repeats it tells a new epoch. */
static void test_reset_during_flush(void **state)
{
    struct cache cache = make(true);
    uint64_t epoch = cache.epoch, begun;

    (void)state;
    cache_wrote(&cache, false);
    begun = cache_flush_begins(&cache);
    (void)begun; /* which never ends well */
    cache_attention(&cache, SENSE_CACHE_LOST);
    assert_true(cache_needs_flush(&cache));
    flush(&cache);
    assert_true(cache.epoch != epoch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_durable),
        cmocka_unit_test(test_end_of_epoch),
        cmocka_unit_test(test_new_session),
        cmocka_unit_test(test_never_no_epoch),
        cmocka_unit_test(test_mode_changed),
        cmocka_unit_test(test_cache_turned_off),
        cmocka_unit_test(test_reset_during_flush),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
