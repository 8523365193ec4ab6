/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Claims: held by two, by a process that was killed, and dropped at the worst moments. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/copy/claim.h"

#define DISK "naa.6001405123456789"
/* printf %s DISK | sha256sum */
#define DISK_FILE "lunferry/8f3f4fa2994d8810.claim"

/* ---- The system, at a moment that the test picks ---------------------------------------------- */

static struct claim *drop_before, *drop_after; /* once, around the next flock() */

static void drop(struct claim **claim)
{
    struct claim *chosen = *claim;

    *claim = NULL;
    if (chosen)
        claim_drop(chosen);
}

/* In place of the C library's. */
int flock(int fd, int operation)
{
    int status, code;

    drop(&drop_before);
    status = (int)syscall(SYS_flock, fd, operation);
    code = errno;
    drop(&drop_after);
    errno = code;
    return status;
}

static int setup(void **state)
{
    struct ground *ground;

    ground_setup(state);
    ground = *state;
    drop_before = drop_after = NULL;
    return setenv("XDG_STATE_HOME", ground->dir, 1);
}

/* ---- Help ------------------------------------------------------------------------------------- */

static struct claim taken(const char *identity)
{
    struct blk_error error;
    struct claim claim;

    memset(&claim, 0xa5, sizeof(claim));
    if (claim_take(&claim, identity, &error) != 0)
        fail_msg("%s", error.text);
    assert_string_equal(claim.reason, "");
    assert_true(claim.fd >= 0);
    return claim;
}

static void check_held(const struct claim *claim)
{
    struct stat named, held;

    assert_int_equal(lstat(claim->path, &named), 0);
    assert_int_equal(fstat(claim->fd, &held), 0);
    assert_int_equal(named.st_ino, held.st_ino);
}

/* The sentence begins with `who`. */
static void check_busy(const char *identity, const char *path, const char *who)
{
    struct claim claim;
    struct blk_error error;
    char end[sizeof(error.text)];

    assert_int_equal(claim_take(&claim, identity, &error), -EBUSY);
    assert_int_equal(error.code, EBUSY);
    assert_int_equal(claim.fd, -1);
    assert_string_equal(claim.path, "");
    snprintf(end, sizeof(end), " is writing to it already (its claim is %s)", path);
    assert_int_equal(strncmp(error.text, who, strlen(who)), 0);
    assert_non_null(strstr(error.text, end));
    claim_drop(&claim);
}

static void check_gone(const char *path)
{
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(errno, ENOENT);
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void test_one(void **state)
{
    struct ground *ground = *state;
    char *directory = ground_path(ground, "lunferry"), *path = ground_path(ground, DISK_FILE),
         text[500] = "";
    struct claim claim = taken(DISK), none = {0};
    struct stat st;

    assert_string_equal(claim.path, path);
    check_held(&claim);
    assert_int_equal(fstat(claim.fd, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    assert_int_equal(stat(directory, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0700);
    assert_true((fcntl(claim.fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_true(pread(claim.fd, text, sizeof(text) - 1, 0) > 0);
    assert_int_equal(strncmp(text, "host=", 5), 0);
    assert_int_equal(text[strlen(text) - 1], '\n');
    claim_drop(&claim);
    check_gone(path);
    assert_int_equal(claim.fd, -1);
    claim_drop(&claim);
    claim_drop(&none);
    assert_true(fcntl(0, F_GETFD) >= 0);
    free(directory);
    free(path);
}

static void test_two(void **state)
{
    struct claim first = taken(DISK), other = taken(DISK "0"), again;
    char who[64];

    (void)state;
    snprintf(who, sizeof(who), "process %ld on host ", (long)getpid());
    check_busy(DISK, first.path, who);
    check_busy(DISK, first.path, who);
    check_held(&first);
    claim_drop(&other);
    check_busy(DISK, first.path, who);
    claim_drop(&first);
    again = taken(DISK);
    check_held(&again);
    claim_drop(&again);
}

/* In the moment between locking and writing, or on a full disk. */
static void test_holder_unknown(void **state)
{
    struct claim claim = taken(DISK);

    (void)state;
    assert_int_equal(ftruncate(claim.fd, 0), 0);
    check_busy(DISK, claim.path, "another process");
    assert_int_equal(pwrite(claim.fd, "host=x\n", 7, 0), 7);
    check_busy(DISK, claim.path, "another process");
    claim_drop(&claim);
}

/* Takes the claim, tells so, and waits to be killed. */
static pid_t start_holder(void)
{
    int ends[2];
    pid_t child;
    char byte = 0;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct claim claim;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        byte = claim_take(&claim, DISK, NULL) == 0 && claim.fd >= 0 ? 'y' : 'n';
        if (write(ends[1], &byte, 1) == 1)
            pause();
        _exit(1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    assert_int_equal(byte, 'y');
    return child;
}

static void make_longer(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

    assert_int_equal(write(fd, "and more\n", 9), 9);
    close(fd);
}

/* Its file stays, and claims nothing; of what is in it, nothing is left. */
static void test_killed(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, DISK_FILE), who[64];
    pid_t child = start_holder();
    struct claim claim;

    snprintf(who, sizeof(who), "process %ld on host ", (long)child);
    check_busy(DISK, path, who);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(access(path, F_OK), 0);
    make_longer(path);
    claim = taken(DISK);
    check_held(&claim);
    snprintf(who, sizeof(who), "process %ld on host ", (long)getpid());
    check_busy(DISK, path, who);
    claim_drop(&claim);
    check_gone(path);
    free(path);
}

/* Opened, then removed by who held it: locking what has no name any more claims nothing. */
static void test_dropped_before_lock(void **state)
{
    struct claim first = taken(DISK), second;

    (void)state;
    drop_before = &first;
    second = taken(DISK);
    assert_null(drop_before);
    check_held(&second);
    check_busy(DISK, second.path, "process ");
    claim_drop(&second);
}

/* The lock was refused, and is free by now. */
static void test_dropped_after_refusal(void **state)
{
    struct claim first = taken(DISK), second;

    (void)state;
    drop_after = &first;
    second = taken(DISK);
    assert_null(drop_after);
    check_held(&second);
    claim_drop(&second);
}

/* Somebody has removed the file by hand, and another process has made it anew: that one's stays. */
static void test_removed_by_hand(void **state)
{
    struct claim first = taken(DISK), second;

    (void)state;
    assert_int_equal(unlink(first.path), 0);
    second = taken(DISK);
    claim_drop(&first);
    check_held(&second);
    claim_drop(&second);
}

static void check_none(const char *reason)
{
    struct claim claim;
    struct blk_error error;

    assert_int_equal(claim_take(&claim, DISK, &error), 0);
    assert_int_equal(claim.fd, -1);
    assert_string_equal(claim.path, "");
    assert_non_null(strstr(claim.reason, reason));
    claim_drop(&claim);
}

static void test_no_place(void **state)
{
    struct ground *ground = *state;
    char *file = ground_path(ground, "file"), *path = ground_path(ground, DISK_FILE);
    struct claim claim = taken(DISK);

    /* What is there is no file that can be locked. */
    claim_drop(&claim);
    assert_int_equal(mkdir(path, 0700), 0);
    check_none(path);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink(file, path), 0);
    check_none(path);
    check_gone(file);
    /* Nor is there a directory, nor a place for one. */
    ground_make(ground, "file", "", 0);
    assert_int_equal(setenv("XDG_STATE_HOME", file, 1), 0);
    check_none("making the directory ");
    assert_int_equal(unsetenv("XDG_STATE_HOME"), 0);
    if (geteuid() != 0) {
        assert_int_equal(unsetenv("HOME"), 0);
        check_none("there is no place for a journal");
    }
    free(path);
    free(file);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one),
        TEST(test_two),
        TEST(test_holder_unknown),
        TEST(test_killed),
        TEST(test_dropped_before_lock),
        TEST(test_dropped_after_refusal),
        TEST(test_removed_by_hand),
        TEST(test_no_place),
    };

    return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
