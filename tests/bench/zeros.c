/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How fast zeros are found in what was read, on one core: in chunks of 512 KiB and units of 4 KiB, as a
 * copy does it. A line for each figure: its name, the median of the runs, the least and the greatest of
 * them, and the unit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lunferry/units.h>

#include "src/copy/runs.h"

#define CHUNK (512 * KIB)
#define UNIT  (4 * KIB)
#define LARGE (512 * MIB) /* no cache holds it */
#define RUNS  7

static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* CPU seconds for a GiB, chunk after chunk of the buffer, as often as it takes. */
static double search_one_gib(const unsigned char *buf, uint64_t size, bool zeros)
{
    struct chunk_run runs[RUNS_MAX];
    double begun = cpu_seconds();

    for (uint64_t done = 0; done < GIB; done += CHUNK) {
        if (runs_find(buf + done % size, NULL, CHUNK, UNIT, UNIT, runs) != 1 ||
            (runs[0].kind == RUN_ZEROS) != zeros) {
            fprintf(stderr, "the answer is wrong\n");
            exit(EXIT_FAILURE);
        }
    }
    return cpu_seconds() - begun;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, const unsigned char *buf, uint64_t size, bool zeros)
{
    double figures[RUNS];

    search_one_gib(buf, size, zeros); /* the warm-up */
    for (unsigned i = 0; i < RUNS; i++) {
        double seconds = search_one_gib(buf, size, zeros);

        figures[i] = zeros ? 1 / seconds : seconds;
    }
    qsort(figures, RUNS, sizeof(figures[0]), compare);
    printf("%-16s %9.4f %9.4f %9.4f %s\n", name, figures[RUNS / 2], figures[0], figures[RUNS - 1],
           zeros ? "GiB/s" : "s/GiB");
}

/* Bytes that are never zero. */
static void fill(unsigned char *buf, uint64_t size)
{
    uint32_t state = 1;

    for (uint64_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        buf[i] = (unsigned char)(state >> 24 | 1);
    }
}

int main(void)
{
    unsigned char *buf = aligned_alloc(UNIT, LARGE);

    if (!buf) {
        fprintf(stderr, "out of memory\n");
        return EXIT_FAILURE;
    }
    fill(buf, LARGE);
    measure("data-in-cache", buf, CHUNK, false);
    measure("data-in-memory", buf, LARGE, false);
    memset(buf, 0, LARGE); /* pages of its own: those never written are one page in the cache */
    measure("zeros-in-cache", buf, CHUNK, true);
    measure("zeros-in-memory", buf, LARGE, true);
    free(buf);
    return EXIT_SUCCESS;
}
