/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/copy/runs.h"
#include "src/copy/zeros.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- A chunk, from letters -------------------------------------------------------------------- */

#define LONGEST 4096

static unsigned find(const char *letters, uint32_t unit, uint32_t least, struct chunk_run *runs)
{
    unsigned char bytes[LONGEST], reference[LONGEST];
    uint32_t len = (uint32_t)strlen(letters);
    bool compared = strpbrk(letters, "=:") != NULL;

    for (uint32_t i = 0; i < len; i++) {
        bytes[i] = letters[i] == '#' || letters[i] == '=' ? 0x42 : 0;
        reference[i] = letters[i] == '=' || letters[i] == ':' ? bytes[i] : 0x24;
    }
    return runs_find(bytes, compared ? reference : NULL, len, unit, least, runs);
}

static void describe(char *text, size_t len, const struct chunk_run *runs, unsigned count)
{
    text[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        size_t at = strlen(text);

        snprintf(text + at, len - at, "%s%c%u", i ? " " : "", "dzs"[runs[i].kind],
                 (unsigned)runs[i].len);
    }
}

static const struct {
    const char *letters;
    uint32_t unit, least;
    const char *runs;
} chunks[] = {
    {"....", 1, 1, "z4"},
    {"####", 1, 1, "d4"},
    {".", 1, 1, "z1"},
    {"#", 1, 1, "d1"},
    {"##....##", 1, 1, "d2 z4 d2"},
    {"..####..", 1, 1, "z2 d4 z2"},
    /* Whole units only, counted from the start. */
    {"##....##", 4, 1, "d8"},
    {"##....##", 2, 1, "d2 z4 d2"},
    {"#......#", 2, 1, "d2 z4 d2"},
    {"#......#", 3, 1, "d3 z3 d2"},
    {"...#...#...", 3, 1, "z3 d6 z2"},
    /* The last one may be short. */
    {"####.", 4, 1, "d4 z1"},
    {"####.#", 4, 1, "d6"},
    {"....#", 4, 1, "z4 d1"},
    {"###", 4, 1, "d3"},
    {"...", 4, 1, "z3"},
    {"..", 4096, 1, "z2"},
    {".#", UINT32_MAX, 1, "d2"},
    /* So many or more, at the ends too. */
    {"#...#....#", 1, 4, "d5 z4 d1"},
    {"...#...", 1, 4, "d7"},
    {"....#....", 1, 4, "z4 d1 z4"},
    {"...", 1, 4, "d3"},
    {"...", 1, 3, "z3"},
    {"....", 1, 0, "z4"},
    {"#...##", 2, 2, "d2 z2 d2"},
    {"#...##", 2, 3, "d6"},
    /* '=' is data that the reference has, ':' zeros that it has; how few does not matter. */
    {"====", 1, 1, "s4"},
    {"::::", 1, 1, "s4"},
    {"##==..", 1, 1, "d2 s2 z2"},
    {"=#:=..::", 1, 3, "s1 d1 s2 d2 s2"},
    {"=#.:=.", 1, 1, "s1 d1 z1 s2 z1"},
    {"=##=", 2, 1, "d4"},
    {"==##:", 2, 1, "s2 d2 s1"},
    {"=.=.=.=.=.=.=.=.", 1, 1, "s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1"},
    {"=.=.=.=.=.=.=.=.=", 1, 1, "d2 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1 z1 s1"},
    /* Sixteen runs, in every way to have them. */
    {"#.#.#.#.#.#.#.#.", 1, 1, "d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1"},
    {".#.#.#.#.#.#.#.#", 1, 1, "z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1"},
    {".#.#.#.#.#.#.#.", 1, 1, "z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1"},
    {"#.#.#.#.#.#.#.#", 1, 1, "d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1"},
    /* Seventeen: the first of the shortest goes. */
    {"#.#.#.#.#.#.#.#.#", 1, 1, "d3 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1"},
    {"#..#..#..#.#..#..#..#..#", 1, 1, "d1 z2 d1 z2 d1 z2 d3 z2 d1 z2 d1 z2 d1 z2 d1"},
    {".#.#.#.#.#.#.#.#.", 1, 1, "d2 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1"},
    {"..#..#..#..#..#..#..#..#.", 1, 1, "z2 d1 z2 d1 z2 d1 z2 d1 z2 d1 z2 d1 z2 d1 z2 d2"},
    /* Eighteen: with one at an edge gone there is still one too many, or not. */
    {".#.#.#.#.#.#.#.#.#", 1, 1, "d4 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1"},
    {"..#.#.#.#.#.#.#.#.#", 1, 1, "z2 d3 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1 z1 d1"},
};

static void test_chunks(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(chunks); i++) {
        struct chunk_run runs[RUNS_MAX];
        unsigned count = find(chunks[i].letters, chunks[i].unit, chunks[i].least, runs);
        char text[400];

        describe(text, sizeof(text), runs, count);
        if (strcmp(text, chunks[i].runs) != 0)
            fail_msg("%s in units of %u, %u or more: %s, not %s", chunks[i].letters,
                     (unsigned)chunks[i].unit, (unsigned)chunks[i].least, text, chunks[i].runs);
    }
}

/* ---- Against the plain way -------------------------------------------------------------------- */

/* A letter for each byte, by the words of the header. */
static void classify(const unsigned char *bytes, uint32_t len, uint32_t unit, uint32_t least,
                     char *kinds)
{
    for (uint32_t first = 0, part; first < len; first += part) {
        bool data = false;

        part = len - first < unit ? len - first : unit;
        for (uint32_t i = first; i < first + part; i++)
            data = data || bytes[i] != 0;
        memset(kinds + first, data ? '#' : '.', part);
    }
    for (uint32_t at = 0, end; at < len; at = end) {
        for (end = at; end < len && kinds[end] == kinds[at]; end++)
            ;
        if (kinds[at] == '.' && end - at < least)
            memset(kinds + at, '#', end - at);
    }
}

static unsigned split(const char *kinds, uint32_t len, struct chunk_run *runs)
{
    unsigned count = 0;

    for (uint32_t at = 0, end; at < len; at = end) {
        for (end = at; end < len && kinds[end] == kinds[at]; end++)
            ;
        runs[count++] = (struct chunk_run){at, end - at, kinds[at] == '.' ? RUN_ZEROS : RUN_DATA};
    }
    return count;
}

static unsigned find_plainly(const unsigned char *bytes, uint32_t len, uint32_t unit,
                             uint32_t least, struct chunk_run *runs)
{
    char kinds[LONGEST];
    unsigned count;

    classify(bytes, len, unit, least, kinds);
    while ((count = split(kinds, len, runs)) > RUNS_MAX) {
        const struct chunk_run *shortest = NULL;

        for (unsigned i = 0; i < count; i++) {
            if (runs[i].kind == RUN_ZEROS && (!shortest || runs[i].len < shortest->len))
                shortest = &runs[i];
        }
        memset(kinds + shortest->offset, '#', shortest->len);
    }
    return count;
}

static uint32_t next_random(uint32_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    return *random;
}

/* Stretches of either kind, of lengths about the unit's. */
static void scatter(unsigned char *bytes, uint32_t len, uint32_t unit, uint32_t *random)
{
    uint32_t at = 0, mean = unit * (1 + next_random(random) % 4);
    bool zeros = next_random(random) % 2;

    memset(bytes, 0, len);
    while (at < len) {
        uint32_t part = 1 + next_random(random) % (2 * mean);

        part = part < len - at ? part : len - at;
        if (!zeros)
            memset(bytes + at, 0x11, part);
        /* One byte is enough to make data of a unit. */
        else if (next_random(random) % 8 == 0)
            bytes[at + next_random(random) % part] = 1;
        zeros = !zeros;
        at += part;
    }
}

static void check_one(uint32_t seed)
{
    static const uint32_t units[] = {1, 2, 3, 7, 16, 17, 64, 100, 512, 1000, LONGEST + 1};
    static struct chunk_run expected[LONGEST];
    struct chunk_run runs[RUNS_MAX];
    uint32_t random = seed * 2654435761u | 1, unit = units[next_random(&random) % COUNT(units)];
    uint32_t least = next_random(&random) % 3 ? unit * (next_random(&random) % 5) : 0;
    uint32_t len = 1 + next_random(&random) % (100 * unit);
    unsigned char bytes[LONGEST];
    unsigned count, expected_count;

    len = len < LONGEST ? len : LONGEST;
    scatter(bytes, len, unit, &random);
    expected_count = find_plainly(bytes, len, unit, least, expected);
    count = runs_find(bytes, NULL, len, unit, least, runs);
    for (unsigned i = 0; i < count || i < expected_count; i++) {
        if (i >= count || i >= expected_count || runs[i].offset != expected[i].offset ||
            runs[i].len != expected[i].len || runs[i].kind != expected[i].kind)
            fail_msg("seed %u: run %u of %u is not as expected", (unsigned)seed, i, count);
    }
}

static void test_against_the_plain_way(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 5000; seed++)
        check_one(seed);
}

/* ---- With a reference ------------------------------------------------------------------------- */

static void check_runs(const unsigned char *bytes, const unsigned char *reference, uint32_t len,
                       uint32_t least, const struct chunk_run *runs, unsigned count)
{
    uint32_t at = 0;

    assert_in_range(count, 1, RUNS_MAX);
    for (unsigned i = 0; i < count; i++) {
        const struct chunk_run *run = &runs[i];
        bool same = memcmp(bytes + run->offset, reference + run->offset, run->len) == 0;

        assert_int_equal(run->offset, at);
        assert_true(run->len > 0 && (i == 0 || run->kind != runs[i - 1].kind));
        assert_true(run->kind != RUN_SAME || same);
        if (run->kind == RUN_ZEROS) {
            assert_true(zeros_only(bytes + run->offset, run->len));
            assert_true(run->len >= least);
        }
        at += run->len;
    }
    assert_int_equal(at, len);
}

static void test_reference(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 2000; seed++) {
        uint32_t random = seed * 2654435761u | 1, unit = 1 + next_random(&random) % 40;
        uint32_t least = next_random(&random) % 80, len = 1 + next_random(&random) % LONGEST;
        unsigned char bytes[LONGEST], reference[LONGEST], mask[LONGEST];
        struct chunk_run runs[RUNS_MAX];
        unsigned count;

        scatter(bytes, len, unit, &random);
        scatter(mask, len, unit, &random);
        for (uint32_t i = 0; i < len; i++)
            reference[i] = bytes[i] ^ mask[i];
        count = runs_find(bytes, reference, len, unit, least, runs);
        check_runs(bytes, reference, len, least, runs, count);
        assert_int_equal(runs_find(bytes, bytes, len, unit, least, runs), 1);
        assert_int_equal(runs[0].kind, RUN_SAME);
    }
}

/* Sums of these would not fit 32 bits. */
static void test_unit_beyond_everything(void **state)
{
    struct chunk_run runs[RUNS_MAX];
    unsigned char bytes[100] = {0};

    (void)state;
    assert_int_equal(runs_find(bytes, NULL, sizeof(bytes), UINT32_MAX, 100, runs), 1);
    assert_int_equal(runs[0].kind, RUN_ZEROS);
    assert_int_equal(runs_find(bytes, NULL, sizeof(bytes), UINT32_MAX, UINT32_MAX, runs), 1);
    assert_int_equal(runs[0].kind, RUN_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_against_the_plain_way),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_unit_beyond_everything),
    };

    return cmocka_run_group_tests_name("runs", tests, NULL, NULL);
}
