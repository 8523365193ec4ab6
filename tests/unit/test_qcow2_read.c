/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a qcow2 device asks of those below, and what becomes of it when they answer late, badly, or not. */
#include "pile.h"
#include "schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- What is asked ---------------------------------------------------------------------------- */

static void make_64k(struct qcow2_make *make, uint64_t size, enum qcow2_compression compression)
{
    qcow2_make_init(make, &(struct qcow2_make_options){.size = size, .compression = compression});
}

/* Bytes of a cluster of 64 KiB. */
static const void *cluster_of(uint32_t seed)
{
    static unsigned char cluster[65536];

    qcow2_make_pattern(cluster, sizeof(cluster), seed);
    return cluster;
}

/* Host runs are one READ each; a table is read once. */
static void test_runs(void **state)
{
    static unsigned char buf[1 << 20];
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_64k(&make, MIB, QCOW2_ZLIB);
    for (unsigned i = 0; i < 4; i++)
        qcow2_make_data(&make, i * 65536, cluster_of(i));
    qcow2_make_zero(&make, 4 * 65536, false);
    qcow2_make_data(&make, 6 * 65536, cluster_of(6));
    qcow2_make_data(&make, 8 * 65536, cluster_of(8));
    qcow2_make_data(&make, 7 * 65536, cluster_of(7));
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 0, buf, MIB), 0);
    fake_disk_check_commands(&pile.disks[0], "READ 256k+64k; READ 320k+256k; READ 576k+64k; "
                                             "READ 704k+64k; READ 640k+64k");
    assert_memory_equal(buf + 7 * 65536, cluster_of(7), 65536);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 65535, buf, 2), 0);
    fake_disk_check_commands(&pile.disks[0], "READ 393215+2");
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 4 * 65536, buf, 2 * 65536), 0);
    fake_disk_check_commands(&pile.disks[0], "");
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* Many at once want the same table. */
static void test_one_table_for_all(void **state)
{
    static unsigned char bufs[20][512];
    struct desk_req reqs[20];
    struct qcow2_make make;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_64k(&make, MIB, QCOW2_ZLIB);
    qcow2_make_data(&make, 0, cluster_of(1));
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    for (unsigned i = 0; i < 20; i++)
        desk_submit(&pile.desk, &reqs[i], BLK_READ, 0, i * 1024, bufs[i], 512);
    desk_check_pending(&pile.desk, "R");
    desk_one(&pile.desk);
    desk_check_pending(&pile.desk, "RRRRRRRRRRRRRRRRRRRR");
    fake_finish(&pile.desk.fake);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(reqs[i].req.status, 0);
        assert_memory_equal(bufs[i], (const char *)cluster_of(1) + i * 1024, 512);
    }
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* Whoever goes on finds the next tables there. */
static void test_tables_ahead(void **state)
{
    static unsigned char buf[512];
    const uint64_t reach = 65536 * UINT64_C(8192);
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_64k(&make, 4 * reach, QCOW2_ZLIB);
    for (unsigned i = 0; i < 4; i++)
        qcow2_make_entry_at(&make, i * reach);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 0, buf, 512), 0);
    fake_disk_check_commands(&pile.disks[0], "READ 256k+64k");
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, reach / 2, buf, 512), 0);
    fake_disk_check_commands(&pile.disks[0], "READ 320k+64k");
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, reach, buf, 512), 0);
    fake_disk_check_commands(&pile.disks[0], "");
    qcow2_make_release(&make);
    pile_release(&pile);
}

static void put_compressed(struct qcow2_make *make, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        qcow2_make_compressed(make, i * 65536, cluster_of(i));
}

/* Compressed neighbours are one READ; of a part of one, all is kept. */
static void test_compressed(void **state)
{
    for (int compression = QCOW2_ZLIB; compression <= QCOW2_ZSTD; compression++) {
        static unsigned char buf[1 << 20];
        struct qcow2_make make;
        struct desk_req req;
        struct pile pile;
        uint64_t from;
        size_t end;

        (void)state;
        pile_init(&pile);
        make_64k(&make, MIB, (enum qcow2_compression)compression);
        qcow2_make_entry_at(&make, 0);
        from = make.len;
        put_compressed(&make, 0, 8);
        end = make.len;
        qcow2_make_alloc(&make, 4);
        put_compressed(&make, 8, 9);
        assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
        assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 0, buf, 10), 0);
        pile.disks[0].command_count = 0;
        assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 100, buf, 40000), 0);
        fake_disk_check_commands(&pile.disks[0], "");
        assert_memory_equal(buf, (const char *)cluster_of(0) + 100, 40000);
        assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 65536, buf, 7 * 65536), 0);
        assert_int_equal(pile.disks[0].command_count, 1);
        assert_true(pile.disks[0].commands[0].offset > from);
        assert_in_range(pile.disks[0].commands[0].offset + pile.disks[0].commands[0].len, end,
                        round_up(end, 512));
        for (unsigned i = 1; i < 8; i++)
            assert_memory_equal(buf + (i - 1) * 65536, cluster_of(i), 65536);
        pile.disks[0].command_count = 0;
        assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 7 * 65536, buf, 2 * 65536), 0);
        assert_int_equal(pile.disks[0].command_count, 2); /* too far apart */
        qcow2_make_release(&make);
        pile_release(&pile);
    }
}

/* ---- What lies where -------------------------------------------------------------------------- */

static void check_extents(struct pile *pile, uint64_t offset, uint64_t len, size_t capacity,
                          const struct blk_extent *expected, size_t count)
{
    struct blk_extent list[64];
    struct blk_extents extents = {list, capacity, 0};
    struct desk_req req;

    desk_prepare(&pile->desk, &req, BLK_EXTENTS, 0, offset, NULL, len);
    req.req.extents = &extents;
    blk_submit(pile->desk.dev, &req.req);
    fake_finish(&pile->desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    for (size_t i = 0; i < extents.count; i++) {
        const struct blk_extent *extent = &list[i];

        if (i >= count || extent->offset != expected[i].offset || extent->len != expected[i].len ||
            extent->kind != expected[i].kind || extent->depth != expected[i].depth ||
            extent->host_offset != expected[i].host_offset ||
            extent->compressed != expected[i].compressed)
            fail_msg("extent %zu: %" PRIu64 "+%" PRIu64 " kind %d depth %u at %" PRIu64, i,
                     extent->offset, extent->len, extent->kind, extent->depth, extent->host_offset);
    }
    assert_int_equal(extents.count, count);
}

#define NOWHERE BLK_NO_OFFSET
#define K64     UINT64_C(65536)

/* An image over one that is shorter, which is over a raw one that is shorter still. */
static void test_extents(void **state)
{
    static const struct blk_extent all[] = {
        {0, 2 * K64, BLK_DATA, 0, 5 * K64, false},
        {2 * K64, K64, BLK_ZEROS, 0, NOWHERE, false},
        {3 * K64, 2 * K64, BLK_DATA, 0, NOWHERE, true},
        {5 * K64, K64, BLK_DATA, 1, 5 * K64, false},
        {6 * K64, K64 / 2, BLK_DATA, 2, NOWHERE, false},
        {6 * K64 + K64 / 2, K64 / 2, BLK_ZEROS, 2, NOWHERE, false},
        {7 * K64, K64, BLK_UNALLOCATED, 2, NOWHERE, false},
        {8 * K64, 2 * K64, BLK_UNALLOCATED, 1, NOWHERE, false},
        {10 * K64, 6 * K64, BLK_UNALLOCATED, 0, NOWHERE, false},
    };
    struct qcow2_make make;
    struct blk_dev *base;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    fake_disk_fill(pile_disk(&pile, 8 * K64), 1);
    fake_disk_set(&pile.disks[0], 6 * K64 + K64 / 2, K64 / 2, BLK_ZEROS);
    fake_disk_set(&pile.disks[0], 7 * K64, K64, BLK_UNALLOCATED);
    base = pile_open(&pile);
    make_64k(&make, 10 * K64, QCOW2_ZLIB);
    qcow2_make_data(&make, 5 * K64, cluster_of(5));
    assert_int_equal(pile_image(&pile, &make, NULL, base), 0);
    qcow2_make_release(&make);
    make_64k(&make, 16 * K64, QCOW2_ZLIB);
    qcow2_make_data(&make, 0, cluster_of(0));
    qcow2_make_data(&make, K64, cluster_of(1));
    qcow2_make_zero(&make, 2 * K64, true);
    put_compressed(&make, 3, 5);
    assert_int_equal(pile_image(&pile, &make, NULL, pile.desk.dev), 0);
    qcow2_make_release(&make);
    for (unsigned i = 0; i < 3; i++)
        pile.disks[i].command_count = 0;
    check_extents(&pile, 0, 16 * K64, 64, all, COUNT(all));
    fake_disk_check_commands(&pile.disks[2], "READ 256k+64k");
    fake_disk_check_commands(&pile.disks[1], "READ 256k+64k");
    fake_disk_check_commands(&pile.disks[0], "EXTENTS 384k+128k");
    /* With little room a prefix. */
    for (size_t room = 1; room < COUNT(all); room++)
        check_extents(&pile, 0, 16 * K64, room, all, room);
    pile_release(&pile);
}

/* Nothing is read to say that a chain has nothing. */
static void test_empty_chain(void **state)
{
    const uint64_t size = 1024 * GIB;
    const struct blk_extent all = {0, size, BLK_UNALLOCATED, 3, NOWHERE, false};
    struct blk_dev *dev = NULL;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    for (unsigned i = 0; i < 4; i++) {
        struct qcow2_make make;

        make_64k(&make, size, QCOW2_ZLIB);
        assert_int_equal(pile_image(&pile, &make, NULL, dev), 0);
        dev = pile.desk.dev;
        qcow2_make_release(&make);
    }
    check_extents(&pile, 0, size, 64, &all, 1);
    for (unsigned i = 0; i < 4; i++)
        fake_disk_check_commands(&pile.disks[i], "");
    pile_release(&pile);
}

/* ---- A chain with something of everything ----------------------------------------------------- */

/* Clusters of 4 KiB over a base: nothing, plain, zeros, compressed. */
#define CHAIN_SIZE 36000
#define READS      3

struct chain {
    struct pile pile;
    unsigned char model[CHAIN_SIZE];
    unsigned char bufs[READS][CHAIN_SIZE];
    struct desk_req reqs[READS];
    struct blk_extent list[8];
    struct blk_extents extents;
    struct desk_req map;
};

static void chain_put(struct chain *chain, struct qcow2_make *make, unsigned i)
{
    unsigned char *bytes = chain->model + i * 4096;

    switch (i) {
    case 1:
    case 8:
        memset(bytes, 0x11, min_u64(4096, CHAIN_SIZE - i * 4096));
        qcow2_make_data(make, i * 4096, bytes);
        break;
    case 2:
        memset(bytes, 0, 4096);
        qcow2_make_zero(make, i * 4096, true);
        break;
    case 3:
    case 4:
        qcow2_make_pattern(bytes, 4096, i);
        qcow2_make_compressed(make, i * 4096, bytes);
        break;
    default: /* the base shows */
        break;
    }
}

static void chain_init(struct chain *chain)
{
    struct qcow2_make make;
    struct blk_dev *base;

    memset(chain, 0, sizeof(*chain));
    pile_init(&chain->pile);
    fake_disk_fill(pile_disk(&chain->pile, 25000), 7);
    memcpy(chain->model, chain->pile.disks[0].written, 25000);
    base = pile_open(&chain->pile);
    qcow2_make_init(
        &make, &(struct qcow2_make_options){.version = 3, .cluster_bits = 12, .size = CHAIN_SIZE});
    for (unsigned i = 0; i < 9; i++)
        chain_put(chain, &make, i);
    assert_int_equal(pile_image(&chain->pile, &make, NULL, base), 0);
    qcow2_make_release(&make);
}

/* Three READs, two of which want parts of the same compressed cluster, and EXTENTS. */
static void chain_submit(struct chain *chain)
{
    static const struct {
        unsigned offset, len;
    } reads[READS] = {{5000, 8000}, {12500, 8000}, {24000, 12000}};

    memset(chain->bufs, 0xee, sizeof(chain->bufs));
    for (unsigned i = 0; i < READS; i++)
        desk_submit(&chain->pile.desk, &chain->reqs[i], BLK_READ, 0, reads[i].offset,
                    chain->bufs[i], reads[i].len);
    chain->extents = (struct blk_extents){chain->list, COUNT(chain->list), 0};
    desk_prepare(&chain->pile.desk, &chain->map, BLK_EXTENTS, 0, 0, NULL, CHAIN_SIZE);
    chain->map.req.extents = &chain->extents;
    blk_submit(chain->pile.desk.dev, &chain->map.req);
}

/* Returns how many have failed. Those that have not have the right bytes. */
static unsigned chain_check(struct chain *chain)
{
    unsigned failed = chain->map.req.status < 0;

    assert_int_equal(chain->map.done, 1);
    for (unsigned i = 0; i < READS; i++) {
        const struct blk_req *req = &chain->reqs[i].req;

        assert_int_equal(chain->reqs[i].done, 1);
        failed += req->status < 0;
        if (req->status == 0) {
            assert_int_equal(req->got, req->len);
            assert_memory_equal(chain->bufs[i], chain->model + req->offset, req->len);
        }
    }
    return failed;
}

/* In every order in which answers may come. */
static void test_orders(void **state)
{
    struct odometer odometer = {.sample = SAMPLE(1200)};
    static struct chain chain;

    (void)state;
    do {
        struct fake *fake = &chain.pile.desk.fake;

        chain_init(&chain);
        chain_submit(&chain);
        for (fake_settle(fake); fake->pending_count > 0; fake_settle(fake))
            fake_complete(fake, odometer_choose(&odometer, fake->pending_count));
        assert_int_equal(chain_check(&chain), 0);
        pile_release(&chain.pile);
    } while (odometer_next(&odometer));
}

/* Every single answer below may be an error, or too short; afterwards all can be read. */
static void test_faults(void **state)
{
    static const int codes[] = {EIO, 0};
    static struct chain chain;

    (void)state;
    for (unsigned kind = 0; kind < COUNT(codes); kind++) {
        unsigned hits = 0;

        for (unsigned number = 1; number <= 16; number++) {
            struct fake *fake = &chain.pile.desk.fake;
            unsigned failed;

            chain_init(&chain);
            fake->fault = (struct fake_fault){
                .number = fake->submitted + number, .code = codes[kind], .retry = BLK_FATAL};
            chain_submit(&chain);
            fake_finish(fake);
            failed = chain_check(&chain);
            hits += fake->fault_hit;
            if (fake->fault_hit)
                assert_true(failed > 0 || codes[kind] == 0);
            for (unsigned i = 0; i < READS; i++) {
                const struct blk_error *error = &chain.reqs[i].req.error;

                if (error->code)
                    desk_check_text(error->text, codes[kind] ? "full:" : "ended");
            }
            fake->fault.number = 0;
            chain_submit(&chain);
            fake_finish(fake);
            assert_int_equal(chain_check(&chain), 0);
            pile_release(&chain.pile);
        }
        assert_in_range(hits, 6, 15); /* all of them */
    }
}

/* Cancelled at every moment: everything reports, soon, and it closes. */
static void test_cancel(void **state)
{
    static struct chain chain;
    bool over = false;

    (void)state;
    for (unsigned moment = 0; !over; moment++) {
        struct fake *fake = &chain.pile.desk.fake;
        unsigned failed;

        chain_init(&chain);
        chain_submit(&chain);
        for (unsigned i = 0; i < moment && !over; i++) {
            fake_settle(fake);
            over = fake->pending_count == 0;
            if (!over)
                fake_complete(fake, 0);
        }
        blk_cancel_all(chain.pile.desk.dev);
        fake_settle(fake);
        for (unsigned i = 0; i < fake->pending_count; i++)
            assert_true(fake->pending[i].cancelled);
        fake_finish(fake);
        failed = chain_check(&chain);
        if (over || moment == 0)
            assert_int_equal(failed, over ? 0 : READS + 1);
        for (unsigned i = 0; i < READS; i++)
            assert_true(chain.reqs[i].req.status == 0 || chain.reqs[i].req.status == -ECANCELED);
        pile_release(&chain.pile);
    }
}

/* ---- The medium ------------------------------------------------------------------------------- */

static void check_bad(struct pile *pile, unsigned disk, uint64_t host, uint64_t offset,
                      uint64_t len, uint64_t bad)
{
    static unsigned char buf[1 << 20];
    struct desk_req req;

    pile->disks[disk].bad_from = host;
    pile->disks[disk].bad_to = host + 1;
    assert_int_equal(desk_do(&pile->desk, &req, BLK_READ, 0, offset, buf, len), -EIO);
    assert_int_equal(req.req.error.retry, BLK_MEDIUM);
    assert_true(req.req.bad_offset == bad);
    desk_check_text(req.req.error.text, "the fake cannot read that");
    pile->disks[disk].bad_from = pile->disks[disk].bad_to = 0;
    assert_int_equal(desk_do(&pile->desk, &req, BLK_READ, 0, offset, buf, len), 0);
}

/* Where the medium has failed is told in the guest's terms. */
static void test_medium(void **state)
{
    struct qcow2_make make;
    struct blk_dev *base;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    pile_disk(&pile, 16 * K64);
    base = pile_open(&pile);
    make_64k(&make, 16 * K64, QCOW2_ZLIB);
    qcow2_make_data(&make, 2 * K64, cluster_of(2));
    put_compressed(&make, 4, 6);
    assert_int_equal(pile_image(&pile, &make, NULL, base), 0);
    check_bad(&pile, 1, 4 * K64 + 5, 100, K64, 100); /* the table, so none of it is known */
    check_bad(&pile, 0, 1000, 0, 16 * K64, 1000);
    check_bad(&pile, 1, 5 * K64 + 77, K64, 4 * K64, 2 * K64 + 77);
    check_bad(&pile, 1, 6 * K64 + 9, 0, 16 * K64, 4 * K64);
    check_bad(&pile, 1, make.len - 1, 0, 16 * K64, 5 * K64);
    check_bad(&pile, 1, make.len - 1, 5 * K64 + 1000, 50, 5 * K64 + 1000);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* ---- Bounds ----------------------------------------------------------------------------------- */

static unsigned count_pending(struct pile *pile)
{
    fake_settle(&pile->desk.fake);
    return pile->desk.fake.pending_count;
}

/* Parts of many compressed clusters: of four at once, and each once. */
static void test_few_kept(void **state)
{
    static unsigned char bufs[24][100];
    struct desk_req reqs[24];
    struct qcow2_make make;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_64k(&make, MIB, QCOW2_ZSTD);
    put_compressed(&make, 0, 8);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    for (unsigned i = 0; i < 24; i++)
        desk_submit(&pile.desk, &reqs[i], BLK_READ, 0, i / 3 * 65536 + i, bufs[i], 100);
    assert_int_equal(count_pending(&pile), 1);
    desk_one(&pile.desk);
    while (count_pending(&pile) > 0) {
        assert_in_range(count_pending(&pile), 1, 4);
        desk_one(&pile.desk);
    }
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(reqs[i].req.status, 0);
        assert_memory_equal(bufs[i], (const char *)cluster_of(i / 3) + i, 100);
    }
    assert_int_equal(pile.disks[0].command_count, 1 + 8);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* All clusters are the same stream of 1 MiB: no more than 16 MiB of them are asked for at once. */
static void test_few_fetched(void **state)
{
    enum { READS_AT_ONCE = 40 };
    static unsigned char buf[2 << 20];
    struct desk_req reqs[READS_AT_ONCE];
    struct qcow2_make make;
    struct pile pile;
    uint64_t entry;

    (void)state;
    pile_init(&pile);
    qcow2_make_init(
        &make, &(struct qcow2_make_options){.cluster_bits = 21, .size = READS_AT_ONCE * 2 * MIB});
    qcow2_make_pattern(buf, sizeof(buf), 1);
    assert_in_range(qcow2_make_compressed(&make, 0, buf), MIB, 2 * MIB);
    entry = qcow2_make_get64(&make, qcow2_make_entry_at(&make, 0));
    for (unsigned i = 1; i < READS_AT_ONCE; i++)
        qcow2_make_entry(&make, i * 2 * MIB, entry);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    for (unsigned i = 0; i < READS_AT_ONCE; i++)
        desk_submit(&pile.desk, &reqs[i], BLK_READ, 0, i * 2 * MIB, buf, 2 * MIB);
    assert_int_equal(count_pending(&pile), 1);
    desk_one(&pile.desk);
    while (count_pending(&pile) > 0) {
        assert_in_range(count_pending(&pile), 1, 15);
        desk_one(&pile.desk);
    }
    for (unsigned i = 0; i < READS_AT_ONCE; i++)
        assert_int_equal(reqs[i].req.status, 0);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* A file of scattered clusters: so many parts of a request at once, and no more. */
static void test_few_parts(void **state)
{
    static unsigned char buf[200 * 512], cluster[512];
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 9, .size = sizeof(buf)});
    for (unsigned i = 200; i-- > 0;) {
        memset(cluster, (int)i, sizeof(cluster));
        qcow2_make_data(&make, i * 512, cluster);
    }
    qcow2_make_to_disk(&make, &pile.disks[0], &pile.desk.fake);
    pile.disks[0].limits.max_depth = 256;
    fake_end_disk(&pile.ends[0], &pile.disks[0], "full", "a");
    pile.count = 1;
    assert_int_equal(pile_image_on(&pile, &make, pile_open(&pile), NULL, NULL), 0);
    desk_submit(&pile.desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
    while (count_pending(&pile) > 0) {
        assert_in_range(count_pending(&pile), 1, 64 + 16);
        desk_one(&pile.desk);
    }
    assert_int_equal(req.req.status, 0);
    for (unsigned i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], i / 512);
    qcow2_make_release(&make);
    pile_release(&pile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),         cmocka_unit_test(test_one_table_for_all),
        cmocka_unit_test(test_tables_ahead), cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_extents),      cmocka_unit_test(test_empty_chain),
        cmocka_unit_test(test_orders),       cmocka_unit_test(test_faults),
        cmocka_unit_test(test_cancel),       cmocka_unit_test(test_medium),
        cmocka_unit_test(test_few_kept),     cmocka_unit_test(test_few_fetched),
        cmocka_unit_test(test_few_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
