/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "holder.h"
#include <lunferry/digest.h>

/* A file that comes and goes that often while we look is busy. */
#define ATTEMPTS 8

/* Why there can be no claim. Returns 0: the copy goes on without. */
static int no_claim(struct claim *claim, const char *what, int code)
{
    snprintf(claim->reason, sizeof(claim->reason), "%s %.300s: %s", what, claim->path,
             strerror(code));
    return 0;
}

/* In the directory, which is in `path` already. */
static int add_name(char path[JOURNAL_PATH], size_t len, const char *identity,
                    struct blk_error *error)
{
    struct digest *digest = digest_new(error);
    uint8_t result[DIGEST_SIZE];
    char digits[DIGEST_TEXT];

    if (!digest)
        return error ? -error->code : -ENOMEM;
    digest_of(digest, identity, strlen(identity), result);
    digest_free(digest);
    snprintf(path + len, JOURNAL_PATH - len, "/%.16s.claim", digest_text(digits, result));
    return 0;
}

/* Does the name still lead to the file that is open? It does not when who had it has dropped it. */
static bool is_there(const struct claim *claim)
{
    struct stat named, held;

    return lstat(claim->path, &named) == 0 && fstat(claim->fd, &held) == 0 &&
           named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

static void write_holder(const struct claim *claim)
{
    struct holder self;
    char text[HOLDER_TEXT + 1];
    size_t len;

    holder_self(&self);
    len = strlen(holder_encode(&self, text));
    text[len++] = '\n';
    /* On a full disk it stays empty, and the claim is as good. */
    if (ftruncate(claim->fd, 0) == 0 && pwrite(claim->fd, text, len, 0) != (ssize_t)len)
        (void)!ftruncate(claim->fd, 0);
}

static int refuse(const struct claim *claim, struct blk_error *error)
{
    struct holder holder;
    char text[HOLDER_TEXT + 1], words[HOLDER_WORDS];
    ssize_t got = pread(claim->fd, text, sizeof(text), 0);
    bool known = got > 0 && text[got - 1] == '\n';

    if (known) {
        text[got - 1] = '\0';
        known = holder_decode(&holder, text);
    }
    return blk_error_set(error, EBUSY, "%s is writing to it already (its claim is %s)",
                         known ? holder_describe(&holder, words) : "another process", claim->path);
}

/* One attempt. Returns 0, -EAGAIN: the file was another one meanwhile, or -errno. */
static int lock_file(struct claim *claim)
{
    int code;

    claim->fd = open(claim->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (claim->fd < 0)
        return -errno;
    code = flock(claim->fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
    if (code == EINTR || ((code == 0 || code == EWOULDBLOCK) && !is_there(claim)))
        return -EAGAIN;
    return code == EWOULDBLOCK ? -EBUSY : -code;
}

static void close_file(struct claim *claim)
{
    if (claim->fd >= 0)
        close(claim->fd);
    claim->fd = -1;
}

/* The file has a name. */
static int take(struct claim *claim, struct blk_error *error)
{
    struct blk_error why;
    int status = -EAGAIN;

    if (journal_make_directories(claim->path, &why) < 0) {
        snprintf(claim->reason, sizeof(claim->reason), "%s", why.text);
        return 0;
    }
    for (unsigned attempt = 0; status == -EAGAIN && attempt < ATTEMPTS; attempt++) {
        close_file(claim);
        status = lock_file(claim);
    }
    if (status == 0) {
        write_holder(claim);
        return 0;
    }
    status = status == -EBUSY || status == -EAGAIN ? refuse(claim, error)
                                                   : no_claim(claim, "locking", -status);
    close_file(claim);
    return status;
}

int claim_take(struct claim *claim, const char *identity, struct blk_error *error)
{
    struct blk_error why;
    int status;

    *claim = (struct claim){.fd = -1};
    status = journal_directory(claim->path, &why);
    if (status < 0) {
        snprintf(claim->reason, sizeof(claim->reason), "%s", why.text);
        status = 0;
    } else {
        status = add_name(claim->path, (size_t)status, identity, error);
        if (status == 0)
            status = take(claim, error);
    }
    if (claim->fd < 0)
        claim->path[0] = '\0';
    return status;
}

void claim_drop(struct claim *claim)
{
    if (claim->path[0] == '\0')
        return;
    /* While it is locked: once it is not, the name may be another process's. Whoever has opened the
     * file meanwhile sees that it is not there any more. */
    if (is_there(claim))
        unlink(claim->path);
    close_file(claim);
    claim->path[0] = '\0';
}
