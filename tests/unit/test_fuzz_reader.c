/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The images of tests/fuzz/corpus, each of them through tests/fuzz/fuzz_reader.c: as they are, with every request
 * failing in its turn, cut off, and changed by chance, the same way every time. FUZZ_RUNS=N: so many changes of
 * each; FUZZ_SEED=N: other ones. FUZZ_SEEDS: the directory, where that is not below the one that this is run in.
 */
#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <lunferry/units.h>

#include "tests/fuzz/fuzz_change.h"
#include "tests/fuzz/fuzz_reader.h"

#define MAX_SEEDS 64
#define RUNS      100

struct seed {
    char name[256];
    unsigned char *bytes;
    size_t size;
};

struct seeds {
    struct seed list[MAX_SEEDS];
    size_t count;
};

static void load(struct seed *seed, const char *directory, const char *name)
{
    char path[4096];
    FILE *file;
    long size;

    snprintf(seed->name, sizeof(seed->name), "%s", name);
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    assert_true(size > FUZZ_CONTROL);
    rewind(file);
    seed->size = (size_t)size;
    seed->bytes = malloc(seed->size);
    assert_non_null(seed->bytes);
    assert_int_equal(fread(seed->bytes, 1, seed->size, file), seed->size);
    fclose(file);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct seed *)a)->name, ((const struct seed *)b)->name);
}

static int set_up(void **state)
{
    const char *directory = getenv("FUZZ_SEEDS") ? getenv("FUZZ_SEEDS") : "tests/fuzz/corpus";
    struct seeds *seeds = calloc(1, sizeof(*seeds));
    struct dirent *entry;
    DIR *dir = opendir(directory);

    if (!dir || !seeds)
        fail_msg("%s is not there", directory);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        assert_true(seeds->count < MAX_SEEDS);
        load(&seeds->list[seeds->count++], directory, entry->d_name);
    }
    closedir(dir);
    qsort(seeds->list, seeds->count, sizeof(seeds->list[0]), by_name);
    *state = seeds;
    return 0;
}

static int tear_down(void **state)
{
    struct seeds *seeds = *state;

    for (size_t i = 0; i < seeds->count; i++)
        free(seeds->list[i].bytes);
    free(seeds);
    return 0;
}

/* ---- As they are ------------------------------------------------------------------------------ */

/* Every one is opened, and all of it can be read; together they have all that there is. */
static void test_seeds(void **state)
{
    const struct seeds *seeds = *state;
    struct fuzz_reach all = {0};

    assert_true(seeds->count >= 15);
    for (size_t i = 0; i < seeds->count; i++) {
        const struct seed *seed = &seeds->list[i];
        struct fuzz_reach reach = {0};

        fuzz_reader(seed->bytes, seed->size, &reach);
        if (reach.opened != 1 || reach.cloned != 1 || reach.failed != 0 || reach.reads != 18 ||
            reach.data + reach.compressed == 0)
            fail_msg("%s: opened %u, cloned %u, failed %u, reads %u, data %u, compressed %u",
                     seed->name, reach.opened, reach.cloned, reach.failed, reach.reads, reach.data,
                     reach.compressed);
        fuzz_reader(seed->bytes, seed->size, &all);
    }
    assert_true(all.compressed >= 8);
    assert_true(all.zeros >= 8);
    assert_true(all.unallocated >= 8);
    assert_true(all.backing >= 8);
}

/* Whatever request fails, or comes short. */
static void test_faults(void **state)
{
    const struct seeds *seeds = *state;
    struct fuzz_reach all = {0};

    for (size_t i = 0; i < seeds->count; i++) {
        const struct seed *seed = &seeds->list[i];
        unsigned char *control = seed->bytes + seed->size - FUZZ_CONTROL;
        unsigned char before[2] = {control[1], control[2]};

        for (control[1] = 1; control[1] < 64; control[1]++) {
            for (control[2] = 0; control[2] < 2; control[2]++)
                fuzz_reader(seed->bytes, seed->size, &all);
        }
        memcpy(control + 1, before, sizeof(before));
    }
    assert_true(all.failed > 0);
    assert_true(all.cloned > 0);
}

/* Cancelled after so many turns of the loop, while it is opened and while it is read. */
static void test_cancelled(void **state)
{
    const struct seeds *seeds = *state;
    struct fuzz_reach all = {0};

    for (size_t i = 0; i < seeds->count; i++) {
        const struct seed *seed = &seeds->list[i];
        unsigned char *control = seed->bytes + seed->size - FUZZ_CONTROL, before = control[2];

        for (unsigned turns = 0xc0; turns <= 0xff; turns++) {
            control[2] = (unsigned char)turns;
            fuzz_reader(seed->bytes, seed->size, &all);
        }
        control[2] = before;
    }
    assert_true(all.failed > 0);
}

/* ---- Changed ---------------------------------------------------------------------------------- */

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t number = otherwise;

    if (text && units_parse_number(text, 1, INT64_MAX, &number, NULL) < 0)
        fail_msg("%s=%s is not a number", name, text);
    return number;
}

static void test_changed(void **state)
{
    uint64_t seed = from_environment("FUZZ_SEED", 1), runs = from_environment("FUZZ_RUNS", RUNS);
    const struct seeds *seeds = *state;
    struct fuzz_reach all = {0};

    /* To stderr, for it has to be there when the program is aborted. */
    fprintf(stderr, "FUZZ_SEED=%" PRIu64 " FUZZ_RUNS=%" PRIu64 "\n", seed, runs);
    for (size_t i = 0; i < seeds->count * runs; i++) {
        const struct seed *sound = &seeds->list[i % seeds->count];
        unsigned char *bytes = malloc(sound->size);
        size_t size = sound->size;

        assert_non_null(bytes);
        memcpy(bytes, sound->bytes, sound->size);
        for (uint64_t changes = 1 + fuzz_chance(&seed, 6); changes > 0; changes--)
            fuzz_change(&seed, bytes, sound->size, FUZZ_CONTROL);
        if (fuzz_chance(&seed, 8) == 0)
            size = fuzz_chance(&seed, size);
        fuzz_reader(bytes, size, &all);
        free(bytes);
    }
    assert_true(all.opened > 0);
    assert_true(all.failed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_changed),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
