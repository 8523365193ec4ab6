/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/copy/zeros.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Zero or not ------------------------------------------------------------------------------ */

/* With a single byte at `at`; and with just what lies before it, and just what lies behind. */
static void check_byte(unsigned char *bytes, size_t len, size_t at)
{
    bytes[at] = at % 2 ? 1 : 0x80;
    assert_false(zeros_only(bytes, len));
    if (at > 0)
        assert_true(zeros_only(bytes, at));
    if (at + 1 < len)
        assert_true(zeros_only(bytes + at + 1, len - at - 1));
    bytes[at] = 0;
}

/* At every place of short ranges, and about the ends and the 16-byte borders of long ones; at several
 * alignments, in memory that ends where it ends, for the sanitizer. */
static void test_one_byte_anywhere(void **state)
{
    static const size_t lens[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 511, 512, 513, 1024, 1100};

    (void)state;
    for (size_t i = 0; i < COUNT(lens); i++) {
        for (size_t shift = 0; shift < 9; shift += 3) {
            size_t len = lens[i];
            unsigned char *memory = malloc(shift + len), *bytes = memory + shift;

            assert_non_null(memory);
            memset(memory, 0xff, shift);
            memset(bytes, 0, len);
            assert_true(zeros_only(bytes, len));
            for (size_t at = 0; at < len; at += at < 20 || at + 20 > len ? 1 : 5)
                check_byte(bytes, len, at);
            free(memory);
        }
    }
}

/* ---- A chunk, from letters -------------------------------------------------------------------- */

#define LONGEST 4096

static unsigned find(const char *letters, uint32_t unit, uint32_t least, struct zeros_run *runs)
{
    unsigned char bytes[LONGEST];
    uint32_t len = (uint32_t)strlen(letters);

    for (uint32_t i = 0; i < len; i++)
        bytes[i] = letters[i] == '#' ? 0x42 : 0;
    return zeros_find(bytes, len, unit, least, runs);
}

static void describe(char *text, size_t len, const struct zeros_run *runs, unsigned count)
{
    text[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        size_t at = strlen(text);

        snprintf(text + at, len - at, "%s%c%u", i ? " " : "", runs[i].zeros ? 'z' : 'd',
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
        struct zeros_run runs[ZEROS_MAX_RUNS];
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

static unsigned split(const char *kinds, uint32_t len, struct zeros_run *runs)
{
    unsigned count = 0;

    for (uint32_t at = 0, end; at < len; at = end) {
        for (end = at; end < len && kinds[end] == kinds[at]; end++)
            ;
        runs[count++] = (struct zeros_run){at, end - at, kinds[at] == '.'};
    }
    return count;
}

static unsigned find_plainly(const unsigned char *bytes, uint32_t len, uint32_t unit,
                             uint32_t least, struct zeros_run *runs)
{
    char kinds[LONGEST];
    unsigned count;

    classify(bytes, len, unit, least, kinds);
    while ((count = split(kinds, len, runs)) > ZEROS_MAX_RUNS) {
        const struct zeros_run *shortest = NULL;

        for (unsigned i = 0; i < count; i++) {
            if (runs[i].zeros && (!shortest || runs[i].len < shortest->len))
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
    static struct zeros_run expected[LONGEST];
    struct zeros_run runs[ZEROS_MAX_RUNS];
    uint32_t random = seed * 2654435761u | 1, unit = units[next_random(&random) % COUNT(units)];
    uint32_t least = next_random(&random) % 3 ? unit * (next_random(&random) % 5) : 0;
    uint32_t len = 1 + next_random(&random) % (100 * unit);
    unsigned char bytes[LONGEST];
    unsigned count, expected_count;

    len = len < LONGEST ? len : LONGEST;
    scatter(bytes, len, unit, &random);
    expected_count = find_plainly(bytes, len, unit, least, expected);
    count = zeros_find(bytes, len, unit, least, runs);
    for (unsigned i = 0; i < count || i < expected_count; i++) {
        if (i >= count || i >= expected_count || runs[i].offset != expected[i].offset ||
            runs[i].len != expected[i].len || runs[i].zeros != expected[i].zeros)
            fail_msg("seed %u: run %u of %u is not as expected", (unsigned)seed, i, count);
    }
}

static void test_against_the_plain_way(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 5000; seed++)
        check_one(seed);
}

/* Sums of these would not fit 32 bits. */
static void test_unit_beyond_everything(void **state)
{
    struct zeros_run runs[ZEROS_MAX_RUNS];
    unsigned char bytes[100] = {0};

    (void)state;
    assert_int_equal(zeros_find(bytes, sizeof(bytes), UINT32_MAX, 100, runs), 1);
    assert_true(runs[0].zeros);
    assert_int_equal(zeros_find(bytes, sizeof(bytes), UINT32_MAX, UINT32_MAX, runs), 1);
    assert_false(runs[0].zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte_anywhere),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_against_the_plain_way),
        cmocka_unit_test(test_unit_beyond_everything),
    };

    return cmocka_run_group_tests_name("zeros", tests, NULL, NULL);
}
