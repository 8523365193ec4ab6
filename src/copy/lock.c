/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lock.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* Everybody may see who it is. */
#define LOCK_MODE 0644
/* A lock that comes and goes that often while we look is busy. */
#define ATTEMPTS 4

typedef void step_fn(struct lock *lock, int status);

/* ---- Steps ------------------------------------------------------------------------------------ */

static void req_done(struct store_req *req)
{
    struct lock *lock = req->opaque;

    lock->then(lock, req->status);
}

static void req_then(struct lock *lock, enum store_op op, const char *file, step_fn *then)
{
    lock->then = then;
    lock->req = (struct store_req){
        .op = op,
        .name = file,
        .attr.mode = LOCK_MODE,
        .buf = op == STORE_READ ? lock->text : lock->ours,
        .len = op == STORE_READ ? sizeof(lock->text) - 1 : strlen(lock->ours),
        .done = req_done,
        .opaque = lock,
    };
    store_submit(lock->store, &lock->req);
}

static void taking_removed(struct lock *lock, int status)
{
    (void)status; /* whoever meets it is told what to do */
    lock->done(lock, -lock->error.code);
}

/* Ends the operation; what went wrong, if anything, is in `error`. */
static void finish(struct lock *lock)
{
    if (lock->taking_held) {
        lock->taking_held = false;
        req_then(lock, STORE_REMOVE, lock->taking, taking_removed);
    } else {
        lock->done(lock, -lock->error.code);
    }
}

static void fail(struct lock *lock)
{
    lock->error = lock->req.error;
    finish(lock);
}

static void refuse(struct lock *lock, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void refuse(struct lock *lock, const char *format, ...)
{
    char text[sizeof(lock->error.text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    blk_error_set(&lock->error, EBUSY, "%s", text);
    finish(lock);
}

/* ---- What is in the file ---------------------------------------------------------------------- */

static bool make_names(struct lock *lock)
{
    char holder[HOLDER_TEXT];
    uint64_t number;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return false;
    snprintf(lock->file, sizeof(lock->file), ".%.200s.lunferry-lock", lock->name);
    snprintf(lock->taking, sizeof(lock->taking), ".%.200s.lunferry-lock-taking", lock->name);
    snprintf(lock->ours, sizeof(lock->ours), "lunferry-lock %016" PRIx64 " %s\n", number,
             holder_encode(&lock->holder, holder));
    return true;
}

/* Ends what was read as a string. Does it tell its holder? It does not while it is being written. */
static bool read_holder(struct lock *lock, struct holder *holder)
{
    char holder_text[LOCK_TEXT];
    const char *text = lock->text;
    size_t len;

    lock->text[lock->req.got] = '\0';
    len = strlen(text);
    if (len != lock->req.got || len < 31 || text[len - 1] != '\n' ||
        strncmp(text, "lunferry-lock ", 14) != 0 || strspn(text + 14, "0123456789abcdef") != 16 ||
        text[30] != ' ')
        return false;
    snprintf(holder_text, sizeof(holder_text), "%.*s", (int)(len - 32), text + 31);
    return holder_decode(holder, holder_text);
}

static bool is_ours(const struct lock *lock)
{
    return lock->req.got == strlen(lock->ours) &&
           memcmp(lock->text, lock->ours, lock->req.got) == 0;
}

/* ---- Take ------------------------------------------------------------------------------------- */

static void create(struct lock *lock);

static void busy(struct lock *lock, const struct holder *holder)
{
    char words[HOLDER_WORDS];

    refuse(lock,
           "another copy to %.120s is under way: %s; --break-lock would take over from it, if it "
           "is dead",
           lock->words, holder_describe(holder, words));
}

static void busy_with_unknown(struct lock *lock)
{
    refuse(lock,
           "another copy to %.120s is beginning, or died when it began: %.120s does not say whose "
           "it is; try again, or --break-lock would take it over",
           lock->words, lock->file);
}

static void half_made_removed(struct lock *lock, int status)
{
    /* `error` is that of the write. */
    lock->state = status == 0 || status == -ENOENT ? LOCK_NONE : LOCK_MAYBE;
    finish(lock);
}

static void written(struct lock *lock, int status)
{
    if (status == 0) {
        lock->state = LOCK_HELD;
        /* The second file may have been left by somebody who died. */
        lock->taking_held = lock->taking_held || lock->break_it;
        finish(lock);
        return;
    }
    if (status == -ENOENT) {
        refuse(lock, "another copy to %.120s has taken the lock over just now", lock->words);
        return;
    }
    lock->error = lock->req.error;
    req_then(lock, STORE_REMOVE, lock->file, half_made_removed);
}

static void old_removed(struct lock *lock, int status)
{
    if (status < 0 && status != -ENOENT)
        fail(lock);
    else
        create(lock);
}

/* Nobody else takes over now: is it still what it was? */
static void seen_again(struct lock *lock, int status)
{
    struct holder holder;

    if (status < 0 && status != -ENOENT)
        fail(lock);
    else if (status == -ENOENT)
        create(lock);
    else if (!read_holder(lock, &holder))
        busy_with_unknown(lock);
    else if (strcmp(lock->text, lock->seen) != 0)
        busy(lock, &holder);
    else
        req_then(lock, STORE_REMOVE, lock->file, old_removed);
}

static void taking_created(struct lock *lock, int status)
{
    /* When the answer was lost, it may be another process's: it stays. */
    lock->taking_held = status == 0;
    if (status == -EEXIST)
        refuse(lock,
               "another process takes over the lock of a copy to %.120s that has died; try again, "
               "and if that does not help, --break-lock takes the lock",
               lock->words);
    else if (status < 0)
        fail(lock);
    else
        req_then(lock, STORE_READ, lock->file, seen_again);
}

static void taking_broken(struct lock *lock, int status)
{
    if (status < 0 && status != -ENOENT)
        fail(lock);
    else
        req_then(lock, STORE_REMOVE, lock->file, old_removed);
}

static void seen(struct lock *lock, int status)
{
    struct holder holder;

    if (status == -ENOENT && lock->attempts < ATTEMPTS) {
        create(lock); /* it was released just now */
    } else if (status == -ENOENT) {
        refuse(lock, "the lock of %.120s comes and goes; try again", lock->words);
    } else if (status < 0) {
        fail(lock);
    } else if (lock->break_it && lock->attempts < ATTEMPTS) {
        req_then(lock, STORE_REMOVE, lock->taking, taking_broken);
    } else if (!read_holder(lock, &holder)) {
        busy_with_unknown(lock);
    } else if (lock->taking_held || !holder_is_gone(&holder, &lock->holder)) {
        busy(lock, &holder); /* in the first case, it was quicker than we */
    } else {
        strcpy(lock->seen, lock->text);
        req_then(lock, STORE_CREATE, lock->taking, taking_created);
    }
}

static void created(struct lock *lock, int status)
{
    if (status == 0) {
        req_then(lock, STORE_WRITE, lock->file, written);
    } else if (status == -EEXIST) {
        req_then(lock, STORE_READ, lock->file, seen);
    } else {
        if (status == -ECANCELED || lock->req.error.retry == BLK_LOST)
            lock->state = LOCK_MAYBE;
        fail(lock);
    }
}

static void create(struct lock *lock)
{
    lock->attempts++;
    req_then(lock, STORE_CREATE, lock->file, created);
}

int lock_take(struct lock *lock)
{
    assert(lock->state == LOCK_NONE);
    blk_error_clear(&lock->error);
    lock->attempts = 0;
    lock->taking_held = false;
    if (!make_names(lock))
        return blk_error_set(&lock->error, EIO, "the system gives no random number for a lock");
    create(lock);
    return 0;
}

/* ---- Check and release ------------------------------------------------------------------------ */

static void checked(struct lock *lock, int status)
{
    struct holder holder;
    char words[HOLDER_WORDS];

    if (status == -ENOENT)
        refuse(lock, "the lock of this copy to %.120s was removed by somebody else", lock->words);
    else if (status < 0)
        fail(lock);
    else if (is_ours(lock))
        finish(lock);
    else
        refuse(lock, "the lock of this copy to %.120s was taken over by %s", lock->words,
               read_holder(lock, &holder) ? holder_describe(&holder, words) : "somebody else");
}

void lock_check(struct lock *lock)
{
    assert(lock->state == LOCK_HELD);
    blk_error_clear(&lock->error);
    req_then(lock, STORE_READ, lock->file, checked);
}

static void released(struct lock *lock, int status)
{
    if (status < 0 && status != -ENOENT) {
        fail(lock);
        return;
    }
    lock->state = LOCK_NONE;
    finish(lock);
}

static void looked_at(struct lock *lock, int status)
{
    /* An empty file is ours, or was created by another process a moment ago, which finds out when it
     * checks. */
    bool begun = lock->state == LOCK_MAYBE && lock->req.got < strlen(lock->ours) &&
                 memcmp(lock->text, lock->ours, lock->req.got) == 0;

    if (status == 0 && (begun || is_ours(lock)))
        req_then(lock, STORE_REMOVE, lock->file, released);
    else
        released(lock, status);
}

void lock_release(struct lock *lock)
{
    assert(lock->state != LOCK_NONE);
    blk_error_clear(&lock->error);
    req_then(lock, STORE_READ, lock->file, looked_at);
}
