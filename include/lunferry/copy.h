/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy engine: one job copies one source device, or several in a row, to a target.
 *
 * A job goes through phases, in one direction: it opens both ends, checks that they fit and that
 * nothing is overwritten unasked, prepares the target (a temporary file, or a blanked head), copies
 * with one or more lanes, makes all durable, publishes, closes. A failure in any phase goes to
 * closing, by way of taking back what can be taken back.
 *
 * All of it runs on the caller's loop (further lanes have threads and loops of their own); nothing
 * here blocks, prints or exits.
 */
#ifndef LUNFERRY_COPY_H
#define LUNFERRY_COPY_H

#include <lunferry/block.h>
#include <lunferry/digest.h>
#include <lunferry/image.h>
#include <lunferry/image_make.h>
#include <lunferry/url.h>

struct copy_job;

/* Digests of the image's blocks (docs/digests.md), which are taken from what is read for the copy. They are
 * kept in a digest file, which stands for one that does not change any more. */
enum copy_digests {
    COPY_DIGESTS_NONE,
    COPY_DIGESTS_OF_TARGET, /* kept, when it has its name: a new file */
    COPY_DIGESTS_OF_SOURCE, /* kept, where there is a digest_file; for those who copy to nowhere */
    COPY_DIGESTS_CHECK,     /* the source's, compared with those in the digest_file */
};

struct copy_options {
    const struct url *sources; /* accepted by blk_check_url(), as `target` is */
    unsigned source_count;     /* 1 to COPY_MAX_SOURCES: they make one image, in this order */
    struct image_choice image; /* what is in each of the sources */
    const struct url *target;
    struct image_layout
        layout; /* of the target; complete, but for `backing` where there is a base */
    /*
     * The image that the target will name as its backing file, layout.backing: what it shows is not
     * written. Where the only source has a backing image itself, that is taken to hold the same
     * (or found in the source's chain), and what is above is copied; otherwise the two are compared.
     * NULL: none.
     */
    const struct url *base;
    struct image_choice base_image;
    /* A digest file of the base, accepted by blk_check_url(): where they are compared, the base is read
     * only in blocks whose digests differ. NULL: none. */
    const struct url *base_digests;
    bool compare; /* with a base: in any case. Without: with what the target holds, which is there
                     already where it is equal */
    uint64_t source_offset,
        source_len;         /* bytes of the only source that are the image; len 0: all */
    uint64_t target_offset; /* bytes: the image begins there, on what exists; then it has no head */
    unsigned depth;         /* slots per lane: chunks between the start of their read and the end of
                            their write; 1 to COPY_MAX_DEPTH; 0: from the round trips that were
                            measured while opening */
    unsigned lanes;         /* 1 to COPY_MAX_LANES; 1 with in_order */
    uint32_t chunk; /* bytes that one slot moves; a multiple of 4096, at most COPY_MAX_CHUNK */
    uint32_t read_size,
        write_size;      /* the longest READ of what is read, and WRITE to the target; multiples of
                            4096, at most `chunk`; 0: as long as the chunk */
    bool in_order;       /* a write starts when all before it are complete */
    bool in_place;       /* write into the file that is there instead of publishing a new one */
    bool overwrite;      /* replace what the target holds */
    uint32_t zero_unit;  /* bytes: so many zeros, aligned, that are found in data are not written as
                            data; 0: everything is written, zeros too */
    bool target_is_zero; /* the user's word: what is not written reads as zeros already */
    bool zero_tail;      /* what lies behind the image, to the end of what exists, becomes zero */
    bool discard;        /* the target is unmapped before it is written */
    bool dry_run;        /* only finds out what would be done */
    bool sync;           /* every write is durable before it counts as done */
    uint64_t flush_bytes; /* FLUSH after so many bytes written at the latest; 0: as it pays */
    bool verify;     /* read the target back; `chunk` is then a multiple of COPY_VERIFY_CHUNK */
    bool salvage;    /* zeros take the place of what the source's medium has lost */
    bool allow_live; /* a source that changes meanwhile is no error */
    uint64_t rate;   /* bytes per second; 0: no limit */
    bool reserve;    /* a persistent reservation keeps others from writing to the target */
    uint64_t break_reservation; /* key of a foreign one that may be taken away; 0: none */
    bool break_lock;            /* take the target's lock file, whoever has it */
    bool resume;                /* go on with what the journal says */
    const char
        *journal; /* its path, and there is one from the start on; NULL: the usual place, where
                            the copy takes more than a few seconds; "": none */
    enum copy_digests digests; /* not with resume: what is there already would have none. A target
                                      that is not new has no head then: null: alone is of use */
    const struct url
        *digest_file; /* accepted by blk_check_url(); with overwrite it is replaced, if it
                                      is a digest file. NULL: none */
    /* With COPY_DIGESTS_CHECK: blocks that differ, in ranges, ascending. */
    void (*differs)(void *opaque, uint64_t offset, uint64_t len);
    unsigned mode; /* of a new file: 0666 less the umask */
    struct blk_settings settings;
    /* One line for the user that is no failure; important: something is left for them to do.
     * Called in any lane's thread. */
    void (*notice)(void *opaque, bool important, const char *text);
    /* With salvage: bytes of the source that could not be read. Called in any lane's thread. */
    void (*bad_range)(void *opaque, uint64_t offset, uint64_t len);
    void (*done)(struct copy_job *job, void *opaque);
    void *opaque;
};

#define COPY_MAX_DEPTH   1024
#define COPY_MAX_LANES   64
#define COPY_MAX_SOURCES 1024
#define COPY_MAX_CHUNK   (16u << 20)

#define COPY_DEFAULT_CHUNK     (512u << 10)
#define COPY_VERIFY_CHUNK      (256u << 10)
#define COPY_DEFAULT_ZERO_UNIT 4096u

enum copy_phase {
    COPY_OPENING,
    COPY_CHECKING,
    COPY_PREPARING,
    COPY_COPYING,
    COPY_FINISHING, /* all is written; making it durable and visible */
    COPY_RECORDING, /* of the target that is complete: its digests are kept, or compared */
    COPY_CLOSING,
    COPY_ENDED,
};

struct copy_progress {
    enum copy_phase phase;
    uint64_t total;      /* bytes to copy; 0 until both ends are open, or a stream has ended */
    uint64_t done;       /* bytes written and acknowledged, and not lost again */
    uint64_t data_total; /* bytes that the source knows to be data; 0: it does not, or not yet */
    uint64_t data_done;  /* of them */
    uint64_t moved, zeroed, skipped; /* bytes written as data, made zero, there already */
    uint64_t verified;               /* bytes read back, with verify */
    unsigned reading, writing;       /* requests in flight on each side, all lanes */
};

/* What a copy would do, as far as both ends tell without reading: zeros that are found in data only when
 * it is read count as data here. */
struct copy_estimate {
    uint64_t size;            /* bytes of the image, and of the tail where that becomes zero */
    uint64_t data;            /* bytes to be read and written */
    uint64_t zeroed, skipped; /* bytes to be made zero; that are there already */
    uint64_t reads, writes,
        zeros; /* requests, in chunks and in the longest ZERO that the target takes */
    bool source_tells, target_tells; /* where data is; otherwise all of it counts as data */
    bool compares; /* what is equal is found by reading only, and counts as to be written */
};

/* What came of the digests; valid when the job ends with status 0. */
struct copy_digest_result {
    uint8_t root[DIGEST_SIZE];    /* one for the whole image */
    uint32_t block;               /* bytes; the last may be short */
    uint64_t size;                /* bytes of the image */
    int64_t mtime_ns;             /* of what they stand for; 0: it has none */
    uint64_t ranges, range_bytes; /* that differ, with COPY_DIGESTS_CHECK */
};

struct copy_result {
    int status;             /* 0 or -errno */
    struct blk_error error; /* which side, where, and what the server said */
    bool touched;           /* the target was written to, or may have been */
    bool complete;          /* it is as it should be, also where what follows has failed */
    bool kept;              /* what has the target's name, or that nothing has, did not change */
    bool resumable;         /* what there is so far is kept, and on record: resume goes on */
    uint64_t bytes;         /* copied by this run: */
    uint64_t moved, zeroed, skipped; /* written as data, made zero, there already; what had to be
                                        copied again counts again */
    uint64_t resumed;                /* that were there from an earlier one */
    unsigned losses;                 /* of sessions, that were built anew */
    uint64_t repeated;               /* requests */
    uint64_t lost;                 /* bytes that were copied again, for the server had lost them */
    unsigned mended;               /* granules that read back differently and were copied again */
    uint64_t bad;                  /* bytes that could not be read, with salvage */
    unsigned depth;                /* slots per lane */
    uint64_t buffer_bytes;         /* lanes x slots x chunk: what the job allocated for data */
    struct copy_estimate estimate; /* with dry_run */
    struct copy_digest_result digests;
};

/* Starts a job. The options are copied, what they point to outlives the job. NULL: out of memory.
 * done() is called from the loop, once; the job is then freed by the caller. */
struct copy_job *copy_start(struct loop *loop, const struct copy_options *options);
void copy_free(struct copy_job *job);

/* Ends a job early: what is on the wire drains (at most COPY_DRAIN), the temporary file is removed,
 * and done() reports -ECANCELED, unless all was finished anyway. */
#define COPY_DRAIN (5 * LOOP_SECOND)
void copy_stop(struct copy_job *job);
/* Does not wait for what is on the wire either. */
void copy_abort(struct copy_job *job);

void copy_progress(const struct copy_job *job, struct copy_progress *progress);
const struct copy_result *copy_result(const struct copy_job *job);

#endif
