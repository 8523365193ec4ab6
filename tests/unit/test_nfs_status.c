/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an NFS server's answers mean: which number, whether repeating helps, and by which word a person
 * can look it up. And how a file is known again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "drivers/nfs/object.h"
#include "drivers/nfs/status.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct expected {
    int status, code;
    enum blk_retry retry;
    const char *word; /* the sentence begins with it and a colon */
};

/* RFC 1813 2.6 has these and no others; the numbers are its own. */
static const struct expected nfs_statuses[] = {
    {1, EPERM, BLK_FATAL, "NFS3ERR_PERM"},
    {2, ENOENT, BLK_FATAL, "NFS3ERR_NOENT"},
    {5, EIO, BLK_FATAL, "NFS3ERR_IO"},
    {6, ENXIO, BLK_FATAL, "NFS3ERR_NXIO"},
    {13, EACCES, BLK_FATAL, "NFS3ERR_ACCES"},
    {17, EEXIST, BLK_FATAL, "NFS3ERR_EXIST"},
    {18, EXDEV, BLK_FATAL, "NFS3ERR_XDEV"},
    {19, ENODEV, BLK_FATAL, "NFS3ERR_NODEV"},
    {20, ENOTDIR, BLK_FATAL, "NFS3ERR_NOTDIR"},
    {21, EISDIR, BLK_FATAL, "NFS3ERR_ISDIR"},
    {22, EINVAL, BLK_FATAL, "NFS3ERR_INVAL"},
    {27, EFBIG, BLK_FATAL, "NFS3ERR_FBIG"},
    {28, ENOSPC, BLK_FATAL, "NFS3ERR_NOSPC"},
    {30, EROFS, BLK_FATAL, "NFS3ERR_ROFS"},
    {31, EMLINK, BLK_FATAL, "NFS3ERR_MLINK"},
    {63, ENAMETOOLONG, BLK_FATAL, "NFS3ERR_NAMETOOLONG"},
    {66, ENOTEMPTY, BLK_FATAL, "NFS3ERR_NOTEMPTY"},
    {69, EDQUOT, BLK_FATAL, "NFS3ERR_DQUOT"},
    {70, ESTALE, BLK_FATAL, "NFS3ERR_STALE"},
    {71, EREMOTE, BLK_FATAL, "NFS3ERR_REMOTE"},
    {10001, ESTALE, BLK_FATAL, "NFS3ERR_BADHANDLE"},
    {10002, EINVAL, BLK_FATAL, "NFS3ERR_NOT_SYNC"},
    {10003, EINVAL, BLK_FATAL, "NFS3ERR_BAD_COOKIE"},
    {10004, ENOTSUP, BLK_FATAL, "NFS3ERR_NOTSUPP"},
    {10005, EINVAL, BLK_FATAL, "NFS3ERR_TOOSMALL"},
    {10006, EIO, BLK_FATAL, "NFS3ERR_SERVERFAULT"},
    {10007, EINVAL, BLK_FATAL, "NFS3ERR_BADTYPE"},
    {10008, EAGAIN, BLK_REPEAT, "NFS3ERR_JUKEBOX"},
    {10013, EAGAIN, BLK_REPEAT, "NFS4ERR_GRACE"},
    {4711, EIO, BLK_FATAL, "the server answered with NFS status 4711, which is not in RFC 1813"},
};

/* RFC 1813 5.1.5 */
static const struct expected mount_statuses[] = {
    {1, EPERM, BLK_FATAL, "MNT3ERR_PERM"},
    {2, ENOENT, BLK_FATAL, "MNT3ERR_NOENT"},
    {5, EIO, BLK_FATAL, "MNT3ERR_IO"},
    {13, EACCES, BLK_FATAL, "MNT3ERR_ACCES"},
    {20, ENOTDIR, BLK_FATAL, "MNT3ERR_NOTDIR"},
    {22, EINVAL, BLK_FATAL, "MNT3ERR_INVAL"},
    {63, ENAMETOOLONG, BLK_FATAL, "MNT3ERR_NAMETOOLONG"},
    {10004, ENOTSUP, BLK_FATAL, "MNT3ERR_NOTSUPP"},
    {10006, EIO, BLK_FATAL, "MNT3ERR_SERVERFAULT"},
    {7, EIO, BLK_FATAL, "the server answered with MOUNT status 7, which is not in RFC 1813"},
};

static void check(const struct expected *expected, const struct blk_error *error, int result)
{
    size_t len = strlen(expected->word);

    assert_int_equal(result, -expected->code);
    assert_int_equal(error->code, expected->code);
    assert_int_equal(error->retry, expected->retry);
    assert_int_equal(strncmp(error->text, expected->word, len), 0);
    assert_true(error->text[len] == '\0' || strncmp(error->text + len, ": ", 2) == 0);
}

static void test_statuses(void **state)
{
    struct blk_error error;

    (void)state;
    for (size_t i = 0; i < COUNT(nfs_statuses); i++)
        check(&nfs_statuses[i], &error, nfs_status_error(&error, nfs_statuses[i].status));
    for (size_t i = 0; i < COUNT(mount_statuses); i++)
        check(&mount_statuses[i], &error, nfs_mount_error(&error, mount_statuses[i].status));
}

/* The library's words, which are all that it passes on of an RPC that was rejected. */
static const struct {
    const char *words;
    int code;
    enum blk_retry retry;
    const char *part;
} refusals[] = {
    {"Server responded: Program not available", EPROTONOSUPPORT, BLK_FATAL, "does not speak"},
    {"Server responded: Program version mismatch", EPROTONOSUPPORT, BLK_FATAL, "does not speak"},
    {"Server responded: Procedure not available", ENOTSUP, BLK_FATAL, "lacks this procedure"},
    {"Server responded: Garbage arguments", EPROTO, BLK_FATAL, "GARBAGE_ARGS"},
    {"Server responded: System Error", EIO, BLK_REPEAT, "SYSTEM_ERR"},
    {"RPC Packet not accepted by the server", EACCES, BLK_FATAL, "MSG_DENIED"},
    {"Message rejected by server", EPROTO, BLK_FATAL, "no proper reply"},
    {"something new", EPROTO, BLK_FATAL, "no proper reply"},
    {NULL, EPROTO, BLK_FATAL, "no proper reply"},
};

static void test_refusals(void **state)
{
    struct blk_error error;

    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        int result =
            nfs_refusal_error(&error, nfs_refusal_of(refusals[i].words), "NFS version 3", 2049);

        assert_int_equal(result, -refusals[i].code);
        assert_int_equal(error.code, refusals[i].code);
        assert_int_equal(error.retry, refusals[i].retry);
        assert_non_null(strstr(error.text, refusals[i].part));
    }
}

/* Whatever becomes of a connection, a new one may do better. */
static void test_connections(void **state)
{
    static const int codes[] = {ECONNREFUSED, ECONNRESET,  ECONNABORTED, EPIPE,      ETIMEDOUT,
                                EHOSTUNREACH, ENETUNREACH, ENOMEM,       EADDRINUSE, 0};
    struct blk_error error;

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++) {
        if (codes[i]) {
            assert_int_equal(nfs_connect_error(&error, codes[i], "192.0.2.1", 2049, "?"),
                             -codes[i]);
            assert_int_equal(error.retry, BLK_LOST);
        }
        assert_true(nfs_lost_error(&error, codes[i], -1, "192.0.2.1", 2049, "NFS version 3") < 0);
        assert_int_equal(error.retry, BLK_LOST);
    }
}

/* In a recovery only a stale handle is final. */
static void test_recovery_class(void **state)
{
    struct blk_error error;

    (void)state;
    for (size_t i = 0; i < COUNT(nfs_statuses); i++) {
        bool stale = strcmp(nfs_statuses[i].word, "NFS3ERR_STALE") == 0 ||
                     strcmp(nfs_statuses[i].word, "NFS3ERR_BADHANDLE") == 0;

        nfs_status_error(&error, nfs_statuses[i].status);
        nfs_recovery_class(&error);
        assert_int_equal(error.retry, stale ? BLK_FATAL : BLK_LOST);
        assert_int_equal(error.code, nfs_statuses[i].code);
    }
    for (size_t i = 0; i < COUNT(refusals); i++) {
        nfs_refusal_error(&error, nfs_refusal_of(refusals[i].words), "NFS version 3", 2049);
        nfs_recovery_class(&error);
        assert_int_equal(error.retry, BLK_LOST);
    }
}

/* ---- Objects ---------------------------------------------------------------------------------- */

static void test_handles(void **state)
{
    char bytes[NFS_HANDLE_SIZE + 1] = "handle";
    struct nfs_handle handle;

    (void)state;
    assert_false(nfs_handle_set(&handle, bytes, 0));
    assert_false(nfs_handle_set(&handle, bytes, NFS_HANDLE_SIZE + 1));
    assert_true(nfs_handle_set(&handle, bytes, NFS_HANDLE_SIZE));
    assert_true(nfs_handle_set(&handle, bytes, 6));
    assert_int_equal(nfs_handle_fh3(&handle).data.data_len, 6);
    assert_memory_equal(nfs_handle_fh3(&handle).data.data_val, "handle", 6);
}

static void test_known_again(void **state)
{
    const struct nfs_handle handle = {.len = 1};
    const struct fattr3 attr = {.type = NF3REG, .fsid = 5, .fileid = 6, .size = 7};
    struct fattr3 other = attr;
    struct nfs_object object;
    struct blk_error error;

    (void)state;
    nfs_object_set(&object, &handle, &attr);
    other.size = 8;
    other.mode = 0600;
    assert_int_equal(nfs_object_check(&object, &other, &error), 0);
    other = attr;
    other.type = NF3DIR;
    assert_int_equal(nfs_object_check(&object, &other, &error), -ESTALE);
    other = attr;
    other.fsid = UINT64_C(5) << 32;
    assert_int_equal(nfs_object_check(&object, &other, &error), -ESTALE);
    other = attr;
    other.fileid++;
    assert_int_equal(nfs_object_check(&object, &other, &error), -ESTALE);
    nfs_recovery_class(&error);
    assert_int_equal(error.retry, BLK_FATAL);
}

static void test_stamp(void **state)
{
    const struct fattr3 attr = {
        .size = 7,
        .mtime = {.seconds = UINT32_MAX, .nseconds = 999999999},
        .ctime = {.seconds = 1, .nseconds = 2},
    };
    struct blk_stamp stamp = nfs_stamp(&attr);

    (void)state;
    assert_int_equal(stamp.size, 7);
    assert_int_equal(stamp.mtime_ns, INT64_C(4294967295999999999));
    assert_int_equal(stamp.ctime_ns, INT64_C(1000000002));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_connections), cmocka_unit_test(test_recovery_class),
        cmocka_unit_test(test_handles),     cmocka_unit_test(test_known_again),
        cmocka_unit_test(test_stamp),
    };

    return cmocka_run_group_tests_name("NFS answers", tests, NULL, NULL);
}
