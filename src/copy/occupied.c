/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "occupied.h"

#include <blkid/blkid.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lunferry/units.h>

/* Superblocks lie within the first 2 MiB (LVM and bcachefs reach furthest) or the last 1 MiB (RAID
 * metadata, the backup GPT, ZFS labels). */
#define HEAD_LEN (2 * MIB)
#define TAIL_LEN (1 * MIB)

static bool is_zero(const unsigned char *buf, size_t len)
{
    return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

static const char *value(blkid_probe probe, const char *name)
{
    const char *data;

    return blkid_probe_lookup_value(probe, name, &data, NULL) == 0 ? data : NULL;
}

/* What libblkid finds in a sparse file of the device's size that has the device's head and tail. */
static void name_contents(struct occupied *occupied, int fd)
{
    blkid_probe probe = blkid_new_probe();
    const char *type, *label, *table;

    if (!probe)
        return;
    blkid_probe_enable_partitions(probe, 1);
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe,
                                      BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
    if (blkid_probe_set_device(probe, fd, 0, 0) == 0 && blkid_do_fullprobe(probe) == 0) {
        type = value(probe, "TYPE");
        label = value(probe, "LABEL");
        table = value(probe, "PTTYPE");
        if (type && label)
            snprintf(occupied->found, sizeof(occupied->found), "%s labelled \"%s\"", type, label);
        else if (type)
            snprintf(occupied->found, sizeof(occupied->found), "%s", type);
        else if (table)
            snprintf(occupied->found, sizeof(occupied->found), "a partition table (%s)", table);
    }
    blkid_free_probe(probe);
}

static bool write_all(int fd, const unsigned char *buf, uint64_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, buf, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        buf += n;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return true;
}

static void look(struct occupied *occupied)
{
    const struct blk_req *head = &occupied->reqs[0], *tail = &occupied->reqs[1];
    bool blank =
        is_zero(occupied->buffers[0], head->len) && is_zero(occupied->buffers[1], tail->len);
    int fd;

    if (blank)
        return;
    fd = memfd_create("lunferry-probe", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)occupied->dev->size) == 0 &&
        write_all(fd, occupied->buffers[0], head->len, head->offset) &&
        write_all(fd, occupied->buffers[1], tail->len, tail->offset))
        name_contents(occupied, fd);
    if (fd >= 0)
        close(fd);
    /* Without a name it is data all the same. */
    if (!occupied->found[0])
        snprintf(occupied->found, sizeof(occupied->found), "data of a kind that is not recognised");
}

static void free_buffers(struct occupied *occupied)
{
    free(occupied->buffers[0]);
    free(occupied->buffers[1]);
    occupied->buffers[0] = occupied->buffers[1] = NULL;
}

static void finish(struct occupied *occupied)
{
    if (occupied->status == 0)
        look(occupied);
    free_buffers(occupied);
    occupied->done(occupied);
}

static void read_done(struct blk_req *req)
{
    struct occupied *occupied = req->opaque;

    if (req->status < 0 && occupied->status == 0) {
        occupied->status = req->status;
        occupied->error = req->error;
    }
    if (--occupied->outstanding == 0)
        finish(occupied);
}

int occupied_start(struct occupied *occupied)
{
    uint64_t size = occupied->dev->size;
    uint64_t len[2] = {min_u64(HEAD_LEN, size), min_u64(TAIL_LEN, size)};
    uint64_t offset[2] = {0, size - len[1]};

    occupied->status = 0;
    occupied->found[0] = '\0';
    blk_error_clear(&occupied->error);
    occupied->outstanding = 2;
    for (int i = 0; i < 2; i++) {
        struct blk_req *req = &occupied->reqs[i];

        occupied->buffers[i] = calloc(1, len[i]);
        occupied->iovs[i] = (struct iovec){occupied->buffers[i], len[i]};
        *req = (struct blk_req){
            .op = BLK_READ,
            .offset = offset[i],
            .len = len[i],
            .iov = &occupied->iovs[i],
            .iovcnt = 1,
            .done = read_done,
            .opaque = occupied,
        };
    }
    if (!occupied->buffers[0] || !occupied->buffers[1]) {
        free_buffers(occupied);
        return -ENOMEM;
    }
    for (int i = 0; i < 2; i++)
        blk_submit(occupied->dev, &occupied->reqs[i]);
    return 0;
}
