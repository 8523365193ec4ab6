/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images of every kind against the bytes of an array: random ones, chains of them, read in random pieces that
 * complete in random order. */
#include "pile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define MOST (1u << 19) /* bytes of a disk */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static bool chance(uint64_t *seed, unsigned of)
{
    return next_random(seed) % of == 0;
}

/* ---- Images ----------------------------------------------------------------------------------- */

/* What a guest sees, and of what kind each byte is. */
struct model {
    unsigned char bytes[MOST];
    uint64_t size;
};

static struct qcow2_make_options random_options(uint64_t *seed)
{
    static const unsigned versions[] = {1, 2, 3, 3, 3};
    struct qcow2_make_options options = {
        .version = versions[next_random(seed) % 5],
        .cluster_bits = (unsigned)(9 + next_random(seed) % 8),
        .size = 1 + next_random(seed) % (MOST - 1),
    };

    if (chance(seed, 3))
        options.size = round_up(options.size, 512);
    if (options.version == 1 && chance(seed, 2))
        options.l2_bits = (unsigned)(6 + next_random(seed) % 4);
    if (options.version < 3)
        return options;
    if (chance(seed, 2))
        options.compression = QCOW2_ZSTD;
    if (chance(seed, 2)) {
        options.incompatible |= QCOW2_EXTENDED_L2;
        options.cluster_bits = (unsigned)(14 + next_random(seed) % 3);
    }
    if (chance(seed, 4))
        options.incompatible |= QCOW2_DATA_FILE;
    return options;
}

struct maker {
    uint64_t *seed;
    struct qcow2_make make;
    struct model *model;
    struct fake_disk *data; /* NULL: none */
    unsigned char cluster[1 << 16];
};

static void set_model(struct maker *maker, uint64_t offset, const void *bytes, uint64_t len)
{
    if (offset >= maker->model->size)
        return;
    len = min_u64(len, maker->model->size - offset);
    if (bytes)
        memcpy(maker->model->bytes + offset, bytes, len);
    else
        memset(maker->model->bytes + offset, 0, len);
}

static void put_plain(struct maker *maker, uint64_t guest)
{
    size_t size = maker->make.cluster_size;

    qcow2_make_data(&maker->make, guest, maker->cluster);
    if (maker->data)
        memcpy(maker->data->written + guest, maker->cluster,
               min_u64(size, maker->data->size - guest));
    set_model(maker, guest, maker->cluster, size);
}

static void put_subclusters(struct maker *maker, uint64_t guest)
{
    size_t part = maker->make.cluster_size / 32;
    uint32_t allocated = (uint32_t)next_random(maker->seed),
             zero = (uint32_t)next_random(maker->seed);

    allocated &= chance(maker->seed, 2) ? UINT32_MAX : 0xffff0;
    zero &= ~allocated;
    qcow2_make_subclusters(&maker->make, guest, maker->cluster, allocated, zero);
    if (maker->data)
        memcpy(maker->data->written + guest, maker->cluster,
               min_u64(maker->make.cluster_size, maker->data->size - guest));
    for (unsigned i = 0; i < 32; i++) {
        if (allocated >> i & 1)
            set_model(maker, guest + i * part, maker->cluster + i * part, part);
        else if (zero >> i & 1)
            set_model(maker, guest + i * part, NULL, part);
    }
}

static void put_cluster(struct maker *maker, uint64_t guest, unsigned kind)
{
    size_t size = maker->make.cluster_size;

    qcow2_make_pattern(maker->cluster, size, (uint32_t)next_random(maker->seed));
    if (kind == 2 && (maker->data || size == 512))
        kind = 1; /* 512 bytes do not always become fewer */
    if (kind == 3 && maker->make.version < 3)
        kind = 0;
    if (kind == 4 && maker->make.entry_size < 16)
        kind = 1;
    switch (kind) {
    case 1:
        put_plain(maker, guest);
        break;
    case 2:
        qcow2_make_compressed(&maker->make, guest, maker->cluster);
        set_model(maker, guest, maker->cluster, size);
        break;
    case 3:
        qcow2_make_zero(&maker->make, guest, !maker->data && chance(maker->seed, 2));
        set_model(maker, guest, NULL, size);
        break;
    case 4:
        put_subclusters(maker, guest);
        break;
    default: /* nothing */
        break;
    }
}

/* In runs of one kind, in the guest's order or from behind, so that the file's order is another. */
static void put_clusters(struct maker *maker)
{
    uint64_t count = (maker->make.size + maker->make.cluster_size - 1) / maker->make.cluster_size;
    bool backwards = chance(maker->seed, 4);
    unsigned kind = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = backwards ? count - 1 - i : i;

        if (i == 0 || chance(maker->seed, 3))
            kind = (unsigned)(next_random(maker->seed) % 6);
        put_cluster(maker, at * maker->make.cluster_size, kind);
    }
}

/* What a stranger's file may look like at its end. */
static void cut_tail(struct maker *maker)
{
    struct qcow2_make *make = &maker->make;

    size_t least = (size_t)make->l1_offset + 8 * (size_t)make->l1_entries;

    while (make->len > least && make->bytes[make->len - 1] == 0 && make->len % 512 != 1)
        make->len--;
}

static void random_limits(uint64_t *seed, struct fake_disk *disk)
{
    struct blk_limits *limits = &disk->limits;

    limits->align = 1U << next_random(seed) % 13;
    limits->mem_align = 1U << next_random(seed) % 6;
    limits->max_read = limits->align * (uint32_t)(1 + next_random(seed) % 50);
    limits->max_depth = (uint32_t)(1 + next_random(seed) % 8);
    disk->logging = false;
    disk->extents_reach = next_random(seed) % 300000;
    disk->extents_cut = next_random(seed) % 70000;
}

static struct blk_dev *random_raw(struct pile *pile, uint64_t *seed, struct model *model)
{
    uint64_t size = 1 + next_random(seed) % (MOST - 1), hole = next_random(seed) % size;
    struct fake_disk *disk = pile_disk(pile, size);

    fake_disk_fill(disk, (uint32_t)next_random(seed));
    fake_disk_set(disk, hole, 1 + next_random(seed) % (size - hole), BLK_ZEROS);
    random_limits(seed, disk);
    model->size = size;
    memcpy(model->bytes, disk->written, size);
    return pile_open(pile);
}

/* Over what the model holds, which becomes what the image holds. */
static struct blk_dev *random_image(struct pile *pile, uint64_t *seed, struct model *model,
                                    struct blk_dev *backing)
{
    static struct maker maker; /* it is large */
    struct qcow2_make_options options = random_options(seed);
    struct blk_dev *data = NULL;

    memset(&maker, 0, sizeof(maker));
    maker.seed = seed;
    maker.model = model;
    if (options.size > model->size)
        memset(model->bytes + model->size, 0, options.size - model->size);
    model->size = options.size;
    qcow2_make_init(&maker.make, &options);
    if (options.incompatible & QCOW2_DATA_FILE) {
        maker.data = pile_disk(pile, options.size);
        random_limits(seed, maker.data);
        data = pile_open(pile);
    }
    put_clusters(&maker);
    if (chance(seed, 2))
        cut_tail(&maker);
    qcow2_make_to_disk(&maker.make, &pile->disks[pile->count], &pile->desk.fake);
    random_limits(seed, &pile->disks[pile->count]);
    pile->disks[pile->count].caps = BLK_CAN_EXTENTS;
    fake_end_disk(&pile->ends[pile->count], &pile->disks[pile->count], "full", "image");
    pile->count++;
    assert_int_equal(pile_image_on(pile, &maker.make, pile_open(pile), data, backing), 0);
    qcow2_make_release(&maker.make);
    return pile->desk.dev;
}

static void random_pile(struct pile *pile, uint64_t *seed, struct model *model)
{
    struct blk_dev *dev = NULL;
    unsigned images = (unsigned)(1 + next_random(seed) % 3);

    pile_init(pile);
    model->size = 0;
    if (chance(seed, 2))
        dev = random_raw(pile, seed, model);
    for (unsigned i = 0; i < images; i++)
        dev = random_image(pile, seed, model, dev);
}

/* ---- Requests --------------------------------------------------------------------------------- */

/* What is no data reads as zeros; what has a place is there. */
static void check_extents(const struct pile *pile, const struct blk_req *req,
                          const struct model *model)
{
    static const unsigned char zeros[MOST];
    const struct blk_extents *extents = req->extents;
    uint64_t at = req->offset;

    assert_true(extents->count > 0 && extents->count <= extents->capacity);
    for (size_t i = 0; i < extents->count; i++) {
        const struct blk_extent *extent = &extents->list[i];

        assert_int_equal(extent->offset, at);
        at += extent->len;
        if (extent->kind != BLK_DATA)
            assert_memory_equal(model->bytes + extent->offset, zeros, extent->len);
        if (extent->kind == BLK_DATA && extent->depth == 0 && !extent->compressed) {
            const struct fake_disk *disk = &pile->disks[pile->count - 1];

            /* The data file is made before the image. */
            if (pile->count > 1 && extent->host_offset == extent->offset)
                continue;
            assert_true(extent->host_offset < disk->size);
            assert_memory_equal(disk->written + extent->host_offset, model->bytes + extent->offset,
                                min_u64(extent->len, disk->size - extent->host_offset));
        }
    }
    assert_true(at > req->offset && at <= req->offset + req->len);
}

#define ROUND 8

struct round {
    struct desk_req reqs[ROUND];
    struct iovec iov[ROUND][4];
    struct blk_extent lists[ROUND][40];
    struct blk_extents extents[ROUND];
};

/* The buffer in up to four parts. */
static void split(uint64_t *seed, struct blk_req *req, struct iovec *iov, unsigned char *buf)
{
    uint64_t left = req->len;
    int count = 0;

    while (left > 0) {
        uint64_t part = count == 3 ? left : 1 + next_random(seed) % left;

        iov[count++] = (struct iovec){buf, part};
        buf += part;
        left -= part;
    }
    req->iov = iov;
    req->iovcnt = count;
}

/* What it should be, or, of damaged images, an error or anything. */
static void check_outcome(const struct pile *pile, const struct blk_req *req,
                          const unsigned char *buf, const struct model *model, bool damaged)
{
    if (damaged) {
        assert_true(req->status == 0 || req->status == -EINVAL || req->status == -EIO);
        return;
    }
    if (req->status < 0)
        fail_msg("%s", req->error.text);
    if (req->op == BLK_EXTENTS) {
        check_extents(pile, req, model);
        return;
    }
    assert_int_equal(req->got, req->len);
    assert_memory_equal(buf, model->bytes + req->offset, req->len);
}

static void random_round(struct pile *pile, uint64_t *seed, const struct model *model, bool damaged)
{
    static unsigned char bufs[ROUND][MOST];
    static struct round round;
    struct fake *fake = &pile->desk.fake;

    for (unsigned i = 0; i < ROUND; i++) {
        struct blk_req *req = &round.reqs[i].req;
        enum blk_op op = chance(seed, 4) ? BLK_EXTENTS : BLK_READ;
        uint64_t offset = next_random(seed) % model->size;
        uint64_t len = 1 + next_random(seed) % (model->size - offset);

        if (chance(seed, 2))
            len = 1 + next_random(seed) % min_u64(len, 9000);
        desk_prepare(&pile->desk, &round.reqs[i], op, 0, offset, bufs[i], len);
        round.extents[i] = (struct blk_extents){round.lists[i], 1 + next_random(seed) % 40, 0};
        req->extents = &round.extents[i];
        memset(bufs[i], 0xee, len);
        if (op == BLK_READ)
            split(seed, req, round.iov[i], bufs[i]);
        blk_submit(pile->desk.dev, req);
        if (chance(seed, 3))
            fake_settle(fake);
    }
    for (fake_settle(fake); fake->pending_count > 0; fake_settle(fake))
        fake_complete(fake, (unsigned)(next_random(seed) % fake->pending_count));
    for (unsigned i = 0; i < ROUND; i++) {
        const struct blk_req *req = &round.reqs[i].req;

        assert_int_equal(round.reqs[i].done, 1);
        check_outcome(pile, req, bufs[i], model, damaged);
    }
}

/* Bytes of tables and streams are turned over; the headers have been read. */
static void damage(struct pile *pile, uint64_t *seed)
{
    for (unsigned i = 0; i < pile->count; i++) {
        struct fake_disk *disk = &pile->disks[i];
        unsigned count = (unsigned)(next_random(seed) % 40);

        for (unsigned byte = 0; byte < count; byte++)
            disk->written[next_random(seed) % disk->size] ^= (unsigned char)next_random(seed);
    }
}

static uint64_t first_seed(void)
{
    const char *text = getenv("LUNFERRY_TEST_SEED");

    return text ? strtoull(text, NULL, 10) : 20261121;
}

static void try_pile(uint64_t *seed, struct model *model, bool damaged)
{
    struct pile pile;

    print_message("seed %" PRIu64 "\n", *seed);
    random_pile(&pile, seed, model);
    if (damaged)
        damage(&pile, seed);
    for (unsigned round = 0; round < 4; round++)
        random_round(&pile, seed, model, damaged);
    pile_release(&pile);
}

static void test_array(void **state)
{
    static struct model model;
    uint64_t seed = first_seed();

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        try_pile(&seed, &model, false);
}

static void test_damaged(void **state)
{
    static struct model model;
    uint64_t seed = first_seed();

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        try_pile(&seed, &model, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_array),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
