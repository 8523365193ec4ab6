/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What makes a file or block device the same as another one, in this run and in a later one. */
#include "private.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define NAME 300 /* bytes; a designation descriptor (SPC-4 7.8.6) has at most 255 */

/*
 * Where in a disk's directory its name stands, and how those names begin that no other disk has.
 * The others are made up by whoever made the disk: "t10.IET 00010001" is the first LUN of every tgt,
 * QEMU numbers its disks from QM00001, and the serial number of a virtio disk is any text.
 * Nor is device/serial looked at: it is the serial number of the NVMe controller or the MMC card,
 * which all of its disks share.
 */
static const struct disk_name {
    const char *file, *start;
} disk_names[] = {
    {"wwid", "uuid."}, /* NVMe */
    {"wwid", "eui."},
    {"wwid", "nvme."},
    /* SCSI: the formats with an IEEE company id, which the iSCSI driver names the same way. */
    {"device/wwid", "naa.2"},
    {"device/wwid", "naa.5"},
    {"device/wwid", "naa.6"},
    {"device/wwid", "eui."},
    {"dm/uuid", "LVM-"},
    {"dm/uuid", "mpath-"},
    {"dm/uuid", "CRYPT-LUKS"},
};

/* One line, without the space around it. False: there is none, or it has no end. */
static bool read_line(const char *directory, const char *name, char *line, size_t size)
{
    char path[512];
    int fd = -1;
    ssize_t got = -1;
    size_t len, space;

    if (snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path))
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = read(fd, line, size);
        close(fd);
    }
    if (got <= 0 || (size_t)got == size)
        return false;
    len = (size_t)got;
    while (len > 0 && isspace((unsigned char)line[len - 1]))
        len--;
    line[len] = '\0';
    space = strspn(line, " \t\n");
    memmove(line, line + space, strlen(line + space) + 1);
    for (char *c = line; *c != '\0'; c++) {
        if (!isprint((unsigned char)*c))
            *c = '?';
    }
    return line[0] != '\0';
}

bool file_sysfs_number(const char *directory, const char *name, uint64_t *number)
{
    char digits[24], *end;

    if (!read_line(directory, name, digits, sizeof(digits)) || !isdigit((unsigned char)digits[0]))
        return false;
    *number = strtoull(digits, &end, 10);
    return *end == '\0';
}

static bool find_name(const char *directory, char name[NAME])
{
    for (size_t i = 0; i < COUNT(disk_names); i++) {
        const struct disk_name *known = &disk_names[i];

        if (read_line(directory, known->file, name, NAME) &&
            strncmp(name, known->start, strlen(known->start)) == 0)
            return true;
    }
    return false;
}

bool file_is_partition(const char *directory)
{
    uint64_t number;

    return file_sysfs_number(directory, "partition", &number);
}

char *file_disk_identity(const char *directory, const char *otherwise)
{
    char disk[512], name[NAME], *identity;
    uint64_t number, start;
    bool partition = file_sysfs_number(directory, "partition", &number) &&
                     file_sysfs_number(directory, "start", &start);
    int len = snprintf(disk, sizeof(disk), "%s%s", directory, partition ? "/.." : "");
    const char *of = len < (int)sizeof(disk) && find_name(disk, name) ? name : otherwise;

    if (!partition)
        return strdup(of);
    /* The start too: a new partition table may give the number to other blocks. */
    if (asprintf(&identity, "partition %" PRIu64 " at %" PRIu64 " of %s", number, start, of) < 0)
        return NULL;
    return identity;
}

/*
 * The numbers of a device node go to another disk with the next boot, or sooner: a loop device gets
 * another file. The kernel counts disks as they come (diskseq, since Linux 5.15), from each boot on.
 * A partition has its disk's count, so its own numbers stay.
 */
static char *block_identity(int fd, dev_t number)
{
    char directory[64], boot[64], otherwise[160];
    size_t used;

    snprintf(directory, sizeof(directory), "/sys/dev/block/%u:%u", major(number), minor(number));
    used = (size_t)snprintf(otherwise, sizeof(otherwise), "block device %u:%u", major(number),
                            minor(number));
#ifdef BLKGETDISKSEQ
    uint64_t sequence;

    if (ioctl(fd, BLKGETDISKSEQ, &sequence) == 0)
        used += (size_t)snprintf(otherwise + used, sizeof(otherwise) - used, " diskseq %" PRIu64,
                                 sequence);
#else
    (void)fd;
#endif
    if (read_line("/proc/sys/kernel/random", "boot_id", boot, sizeof(boot)))
        snprintf(otherwise + used, sizeof(otherwise) - used, " boot %s", boot);
    return file_disk_identity(directory, otherwise);
}

char *file_identity(int fd)
{
    struct stat st;
    char *identity;

    if (fstat(fd, &st) < 0)
        return NULL;
    if (S_ISBLK(st.st_mode))
        return block_identity(fd, st.st_rdev);
    if (asprintf(&identity, "file %jx:%jx", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino) < 0)
        return NULL;
    return identity;
}
