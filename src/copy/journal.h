/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal: what is known of a copy that has not ended, in a local file, so that another process
 * can go on with it after this one was killed.
 *
 * It is text. Each line is
 *
 *   <16 hexadecimal digits: the start of the SHA-256 of what follows the space> <word> <field>...
 *
 * with fields escaped as in URLs, so that a person can read it. First come the version and the facts,
 * a line each, up to the line "start"; then, as the copy gets on, facts that have changed and lines
 * "durable FIRST COUNT", granules that need not be copied again.
 *
 * Invariants:
 * - A journal exists under its name only with all facts in it: it is written under another name
 *   first. What damages its facts makes it useless, and loading it an error.
 * - After "start", reading ends at the first line that is torn or does not fit its checksum. What
 *   stands before it counts. A line that is lost that way says at most that more is durable, or that
 *   a fact was noted: what depends on a noted fact waits for journal_sync().
 * - What is reported as recorded is on stable storage.
 * - A journal that cannot be written any more (a full disk) does not fail the copy: it says so once,
 *   through the notice, and stops. What it says up to then stays true.
 * - Everything is asynchronous on the loop, and every task reports from the loop, once. One task at a
 *   time; journal_durable() and journal_note() at any time after the task of begin or load.
 *
 * It holds no secrets: endpoints are recorded as url->text.
 */
#ifndef LUNFERRY_JOURNAL_H
#define LUNFERRY_JOURNAL_H

#include <lunferry/block.h>

struct journal;

/* Texts may be NULL: not known. Numbers and flags mean what they mean in struct copy_options, struct
 * target and struct blk_open_args. */
struct journal_facts {
    char *source, *target; /* url->text; needed */
    char *source_identity, *target_identity;
    struct blk_stamp source_stamp; /* its size, > 0, is that of the image */
    uint64_t source_session, target_session;
    uint64_t lanes, chunk;
    uint64_t granule; /* bytes, a power of two; at most TRACKER_MAX_GRANULES of them in the image */
    uint64_t head_len;
    bool in_order, in_place, overwrite, new_file;
    uint64_t bad;    /* bytes that could not be read and are zeros in the target */
    bool verify;     /* durable granules are to be read back yet */
    bool blanked;    /* the target's head */
    char *temporary; /* the new file's name while it is written */
    uint64_t reservation_key;
    char *holder; /* who runs the copy: holder_encode() */
};

/* `notice` is as in struct copy_options. NULL: out of memory. Nothing is touched. */
struct journal *journal_new(struct loop *loop, const char *path,
                            void (*notice)(void *opaque, bool important, const char *text),
                            void *opaque);

/* Reads the journal. -ENOENT: there is none. -EBADMSG: it is damaged, or was written by another
 * version of this program; the sentence names file and line. After a success the journal is being
 * recorded again: the first that is written to it cuts off a torn tail. */
void journal_load(struct journal *journal, struct blk_task *task);

/* Starts a journal with these facts, which are copied. Directories are made as needed (mode 0700,
 * the file 0600). Where journal_load() has found one, good or damaged, it is replaced; otherwise one
 * that is there is somebody else's, who has begun the same copy meanwhile: -EEXIST. */
void journal_begin(struct journal *journal, const struct journal_facts *facts,
                   struct blk_task *task);

/* What is recorded, or on its way there. Valid until the next call of journal_note(), begin, close. */
const struct journal_facts *journal_facts(const struct journal *journal);
/* The next run of durable granules at or after `from`; false: there is none. */
bool journal_next_durable(const struct journal *journal, uint64_t from, uint64_t *first,
                          uint64_t *count);

/* These granules are durable. Recorded soon: what comes while an append is under way goes out
 * together in the next one. Does nothing when the journal does not record. */
void journal_durable(struct journal *journal, uint64_t first, uint64_t count);
/* Records those of the facts that differ from what is recorded. The size of image and granule do not
 * change. */
void journal_note(struct journal *journal, const struct journal_facts *facts);
/* Reports when all that was given up to now is recorded; the error tells why the journal stopped, if
 * it did. */
void journal_sync(struct journal *journal, struct blk_task *task);

/* The copy is complete: removes the journal. */
void journal_end(struct journal *journal, struct blk_task *task);
/* Waits for what is on its way, and frees. task may be NULL. After an end, or without: then the
 * file stays. */
void journal_close(struct journal *journal, struct blk_task *task);

/* Where journals are: in $XDG_STATE_HOME/lunferry, else /var/lib/lunferry for root and
 * ~/.local/state/lunferry for others. Leaves room for a name of 30 bytes. Returns the length, or -errno
 * with the sentence. */
#define JOURNAL_PATH 4096
int journal_directory(char buf[JOURNAL_PATH], struct blk_error *error);
/* The directories that lead to `path`, mode 0700; blocks. 0, or -errno with the sentence. */
int journal_make_directories(const char *path, struct blk_error *error);

/* Where the journal of a copy is: there, under a name that is made from both texts. A relative path is
 * to be made absolute in them first. 0, or -errno with the sentence. */
int journal_default_path(char buf[JOURNAL_PATH], const char *source, const char *target,
                         struct blk_error *error);

#endif
