/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing, zeroing, punching and reading side by side, at all kinds of offsets: past the page cache,
 * through it, and by calls that do both. Whatever the order, the bytes are those that a simple model
 * has. The seeds are fixed; LUNFERRY_TEST_SEED=N is another one.
 */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/units.h>

enum { SIZE = MIB + 4321, ROUNDS = 40, BATCH = 12 };

static const char *const places[] = {"/tmp/lunferry-mixed-XXXXXX",
                                     "/dev/shm/lunferry-mixed-XXXXXX"};

struct mix {
    const struct ground *ground;
    struct blk_dev *dev;
    int fd;
    uint32_t seed;
    unsigned char *model; /* what the file holds */
    unsigned char
        *memory; /* what is written, and read into: at the offset that it has in the file */
    struct ground_request requests[BATCH];
    unsigned left;
};

static uint32_t next(struct mix *mix, uint32_t below)
{
    mix->seed = mix->seed * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)mix->seed * below) >> 32);
}

/* On a page, on a sector, or anywhere. */
static uint64_t edge(struct mix *mix, uint64_t offset)
{
    switch (next(mix, 4)) {
    case 0:
        return offset;
    case 1:
        return offset & ~UINT64_C(511);
    default:
        return offset & ~UINT64_C(4095);
    }
}

static void begin(struct mix *mix, struct ground_request *request, uint64_t from, uint64_t end)
{
    static const enum blk_op ops[] = {BLK_WRITE, BLK_WRITE,   BLK_ZERO,
                                      BLK_ZERO,  BLK_DISCARD, BLK_READ};
    enum blk_op op = ops[next(mix, 6)];
    unsigned flags = 0;

    if (op == BLK_DISCARD && !(mix->dev->caps & BLK_CAN_DISCARD))
        op = BLK_ZERO;
    if (op == BLK_WRITE) {
        ground_fill(mix->memory + from, end - from, mix->seed);
        memcpy(mix->model + from, mix->memory + from, end - from);
    } else if (op != BLK_READ) {
        /* Of a file, what is discarded reads as zeros. */
        memset(mix->model + from, 0, end - from);
    }
    if (op == BLK_ZERO)
        flags = next(mix, 3) ? BLK_MAY_UNMAP : 0;
    else if (op == BLK_WRITE)
        flags = next(mix, 8) ? 0 : BLK_FUA;
    ground_submit(mix->dev, request, op, flags, from, mix->memory + from, end - from, &mix->left);
}

/* Neighbours that share pages, but no bytes. */
static void batch(struct mix *mix)
{
    uint64_t at = 0, span = SIZE / BATCH;

    for (int i = 0; i < BATCH; i++) {
        uint64_t from = at + edge(mix, next(mix, 3) ? 0 : next(mix, (uint32_t)span / 4));
        uint64_t end = edge(mix, (uint64_t)(i + 1) * span + next(mix, (uint32_t)span / 4));

        end = i + 1 == BATCH ? SIZE : end;
        assert_true(from < end);
        begin(mix, &mix->requests[i], from, end);
        at = end;
    }
    ground_wait_all(mix->ground, &mix->left);
    for (int i = 0; i < BATCH; i++) {
        const struct blk_req *req = &mix->requests[i].req;

        if (req->status != 0)
            fail_msg("op %d at %ju: %s", (int)req->op, (uintmax_t)req->offset, req->error.text);
        if (req->op == BLK_READ)
            assert_memory_equal(mix->memory + req->offset, mix->model + req->offset, req->len);
    }
}

/* All of it, as the driver reads it, and as anybody does; and no data is called zeros. */
static void check(struct mix *mix)
{
    static const unsigned char zeros[SIZE];
    struct blk_extent list[64];
    struct blk_extents extents = {.list = list, .capacity = 64};
    struct ground_request request = {.left = &mix->left};

    assert_int_equal(ground_do(mix->ground, mix->dev, BLK_READ, 0, 0, mix->memory, SIZE).status, 0);
    assert_memory_equal(mix->memory, mix->model, SIZE);
    assert_int_equal(pread(mix->fd, mix->memory, SIZE, 0), SIZE);
    assert_memory_equal(mix->memory, mix->model, SIZE);
    for (uint64_t at = 0; at < SIZE;
         at = list[extents.count - 1].offset + list[extents.count - 1].len) {
        request.req = (struct blk_req){
            .op = BLK_EXTENTS,
            .offset = at,
            .len = SIZE - at,
            .extents = &extents,
            .done = ground_request_done,
            .opaque = &request,
        };
        mix->left = 1;
        blk_submit(mix->dev, &request.req);
        ground_wait_all(mix->ground, &mix->left);
        assert_int_equal(request.req.status, 0);
        for (size_t i = 0; i < extents.count; i++) {
            if (list[i].kind == BLK_ZEROS)
                assert_memory_equal(mix->model + list[i].offset, zeros, list[i].len);
        }
    }
}

static void run(const struct ground *ground, const char *place, uint32_t seed)
{
    struct mix mix = {.ground = ground, .seed = seed};
    struct blk_error error;
    char path[64];

    strcpy(path, place);
    mix.fd = mkostemp(path, O_CLOEXEC);
    if (mix.fd < 0) {
        print_message("no files in %s: left out\n", place);
        return;
    }
    print_message("seed %u\n", seed);
    assert_int_equal(ftruncate(mix.fd, SIZE), 0);
    assert_int_equal(ground_try_open(ground, path, true, &mix.dev, &error), 0);
    unlink(path);
    mix.model = calloc(1, SIZE);
    mix.memory = aligned_alloc(4096, round_up(SIZE, 4096));
    for (int round = 0; round < ROUNDS; round++) {
        batch(&mix);
        if (round % 4 == 3)
            assert_int_equal(ground_do(ground, mix.dev, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
        check(&mix);
    }
    ground_close(ground, mix.dev);
    close(mix.fd);
    free(mix.model);
    free(mix.memory);
}

static void test_mixed(void **state)
{
    const char *given = getenv("LUNFERRY_TEST_SEED");

    for (uint32_t seed = 1; seed <= 3; seed++) {
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
            run(*state, places[i], given ? (uint32_t)strtoul(given, NULL, 10) : seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mixed, ground_setup, ground_teardown),
    };

    return cmocka_run_group_tests_name("file, all kinds of requests mixed", tests, NULL, NULL);
}
