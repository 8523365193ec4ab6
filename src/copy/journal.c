/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/store.h>
#include <lunferry/units.h>
#include <lunferry/url.h>

#include "journal_text.h"
#include "put.h"

#define READ_SIZE    (UINT64_C(64) << 10)
#define MAX_SIZE     (UINT64_C(256) << 20) /* ten times what the most granules take */
#define JOURNAL_MODE 0600

enum journal_state {
    JOURNAL_NEW,     /* not recording */
    JOURNAL_BUSY,    /* load, begin or end is under way */
    JOURNAL_READY,   /* recording; nothing is under way */
    JOURNAL_WRITING, /* recording; an append or a rewrite is under way */
    JOURNAL_STOPPED, /* could not be written; `error` says why */
};

struct journal {
    struct loop *loop;
    char *path;
    const char *name; /* in path */
    struct url url;
    void (*notice)(void *opaque, bool important, const char *text);
    void *opaque;

    enum journal_state state;
    bool found;   /* load has found one: it is ours to replace */
    bool rewrite; /* what is there has a torn tail, or more lines than it needs */
    struct store *store;
    struct digest *digest;
    struct record record;      /* what is recorded, or on its way */
    struct granules pending;   /* of it, what no append has been given */
    struct journal_text notes; /* lines that no append has been given */
    bool any_pending;          /* of both */
    struct journal_text text;  /* what is being read or written */
    struct blk_error error;    /* of what failed first in a chain, or stopped the journal */

    struct blk_task *task;                 /* the caller's */
    void (*idle)(struct journal *journal); /* what happens when no write is under way any more */
    struct loop_call call;                 /* starts a write, or that */
    /* The step under way, and what gets its outcome. */
    struct blk_task step;
    struct store_req req;
    struct put put;
    struct loop_work work;
    int work_status;
    void (*then)(struct journal *journal, int status);
};

typedef void step_fn(struct journal *journal, int status);

/* ---- Steps ------------------------------------------------------------------------------------ */

static void report(struct journal *journal, int status)
{
    struct blk_task *task = journal->task;

    journal->task = NULL;
    task->status = status;
    if (status < 0)
        task->error = journal->error;
    else
        blk_error_clear(&task->error);
    task->done(task);
}

static void step_done(struct blk_task *task)
{
    struct journal *journal = task->opaque;

    if (task->status < 0)
        journal->error = task->error;
    journal->then(journal, task->status);
}

static struct blk_task *step_then(struct journal *journal, step_fn *then)
{
    journal->then = then;
    journal->step = (struct blk_task){.done = step_done, .opaque = journal};
    return &journal->step;
}

static void req_done(struct store_req *req)
{
    struct journal *journal = req->opaque;

    journal->then(journal, req->status);
}

static void req_then(struct journal *journal, enum store_op op, const char *name, step_fn *then)
{
    journal->then = then;
    journal->req = (struct store_req){
        .op = op,
        .name = name,
        .buf = journal->text.bytes,
        .len = journal->text.len,
        .done = req_done,
        .opaque = journal,
    };
    store_submit(journal->store, &journal->req);
}

static void start_task(struct journal *journal, struct blk_task *task)
{
    assert(!journal->task);
    journal->task = task;
}

/* Calls what() from the loop, when no write is under way and none waits. */
static void when_idle(struct journal *journal, void (*what)(struct journal *journal))
{
    assert(!journal->idle);
    journal->idle = what;
    loop_defer(journal->loop, &journal->call);
}

/* ---- The whole journal ------------------------------------------------------------------------ */

static void put_done(struct put *put, int status)
{
    struct journal *journal = put->opaque;

    if (status < 0)
        journal->error = put->error;
    if (status == -EEXIST)
        blk_error_set(&journal->error, EEXIST,
                      "another process has begun the same copy meanwhile: its journal is %s",
                      journal->path);
    journal->then(journal, status);
}

/* Writes the record anew, in place of what was found. -errno: it could not even start, and `then` is
 * not called. */
static int write_whole(struct journal *journal, step_fn *then)
{
    struct journal_text *text = &journal->text;
    int status;

    text_init(text, journal->digest);
    record_write(&journal->record, text);
    if (text->failed)
        return blk_error_set(&journal->error, ENOMEM, "out of memory");
    journal->then = then;
    journal->put = (struct put){
        .store = journal->store,
        .name = journal->name,
        .mode = JOURNAL_MODE,
        .bytes = text->bytes,
        .len = text->len,
        .replace = journal->found,
        .done = put_done,
        .opaque = journal,
    };
    status = put_start(&journal->put);
    if (status < 0)
        journal->error = journal->put.error;
    return status;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void given_up(struct journal *journal, int status)
{
    (void)status;
    journal->store = NULL;
    journal->state = JOURNAL_NEW;
    report(journal, -journal->error.code);
}

/* Load or begin has failed, `error` says why. Both can be tried again. */
static void give_up(struct journal *journal)
{
    text_release(&journal->text);
    record_release(&journal->record);
    granules_release(&journal->pending);
    if (journal->store)
        store_close(journal->store, step_then(journal, given_up));
    else
        given_up(journal, 0);
}

static void open_store(struct journal *journal, step_fn *then)
{
    struct blk_open_args args = {.url = &journal->url, .writable = true};

    journal->store = store_open(journal->loop, &args, step_then(journal, then));
    if (!journal->store) {
        blk_error_set(&journal->error, ENOMEM, "out of memory");
        when_idle(journal, give_up);
    }
}

/* ---- Load ------------------------------------------------------------------------------------- */

static void tell_torn(struct journal *journal, size_t lines, size_t bytes)
{
    char text[JOURNAL_PATH + 200];

    snprintf(text, sizeof(text),
             "%s:%zu: this line of the journal is torn or damaged; it and what follows it (%zu "
             "bytes) is not used",
             journal->path, lines + 1, bytes);
    journal->notice(journal->opaque, false, text);
}

static int take_in(struct journal *journal)
{
    struct journal_text *text = &journal->text;
    size_t valid, lines;
    int status = record_read(&journal->record, journal->digest, journal->path, text->bytes,
                             text->len, &valid, &lines, &journal->error);

    if (status == 0 && !granules_init(&journal->pending, journal->record.durable.count))
        status = blk_error_set(&journal->error, ENOMEM, "out of memory");
    if (status == 0 && valid < text->len)
        tell_torn(journal, lines, text->len - valid);
    return status;
}

static void read_more(struct journal *journal, step_fn *then);

static void loaded_part(struct journal *journal, int status)
{
    if (status < 0) {
        journal->error = journal->req.error;
        give_up(journal);
        return;
    }
    journal->text.len += journal->req.got;
    if (journal->req.got == journal->req.len) {
        read_more(journal, loaded_part);
        return;
    }
    status = take_in(journal);
    journal->found = status == 0 || status == -EBADMSG;
    if (status < 0) {
        give_up(journal);
        return;
    }
    text_release(&journal->text);
    journal->rewrite = true;
    journal->state = JOURNAL_READY;
    report(journal, 0);
}

static void read_more(struct journal *journal, step_fn *then)
{
    struct journal_text *text = &journal->text;
    size_t capacity = text->len + READ_SIZE;
    char *bytes = capacity <= MAX_SIZE ? realloc(text->bytes, capacity) : NULL;

    if (!bytes) {
        journal->found = capacity > MAX_SIZE;
        if (journal->found)
            blk_error_set(&journal->error, EBADMSG, "%s: too large for a journal", journal->path);
        else
            blk_error_set(&journal->error, ENOMEM, "out of memory");
        give_up(journal);
        return;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    journal->then = then;
    journal->req = (struct store_req){
        .op = STORE_READ,
        .name = journal->name,
        .offset = text->len,
        .buf = bytes + text->len,
        .len = READ_SIZE,
        .done = req_done,
        .opaque = journal,
    };
    store_submit(journal->store, &journal->req);
}

static void load_opened(struct journal *journal, int status)
{
    if (status < 0)
        give_up(journal);
    else
        read_more(journal, loaded_part);
}

void journal_load(struct journal *journal, struct blk_task *task)
{
    assert(journal->state == JOURNAL_NEW && !journal->store);
    start_task(journal, task);
    journal->state = JOURNAL_BUSY;
    blk_error_clear(&journal->error);
    text_init(&journal->text, journal->digest);
    open_store(journal, load_opened);
}

/* ---- Begin ------------------------------------------------------------------------------------ */

static void begun(struct journal *journal, int status)
{
    text_release(&journal->text);
    if (status < 0) {
        give_up(journal);
        return;
    }
    journal->rewrite = false;
    journal->found = true;
    journal->state = JOURNAL_READY;
    report(journal, 0);
}

static void begin_opened(struct journal *journal, int status)
{
    if (status == 0)
        status = write_whole(journal, begun);
    if (status < 0)
        give_up(journal);
}

/* In a helper thread. */
static void make_directories(struct loop_work *work)
{
    struct journal *journal = container_of(work, struct journal, work);

    journal->work_status = journal_make_directories(journal->path, &journal->error);
}

static void directories_made(struct loop_work *work)
{
    struct journal *journal = container_of(work, struct journal, work);

    if (journal->work_status < 0)
        give_up(journal);
    else
        open_store(journal, begin_opened);
}

/* It could not even start, or the directory is open already. */
static void begin_now(struct journal *journal)
{
    begin_opened(journal, -journal->error.code);
}

void journal_begin(struct journal *journal, const struct journal_facts *facts,
                   struct blk_task *task)
{
    struct record record;
    int status;

    assert(journal->state == JOURNAL_NEW || journal->state == JOURNAL_READY);
    start_task(journal, task);
    journal->state = JOURNAL_BUSY;
    blk_error_clear(&journal->error);
    /* The facts may be those of the record that they replace. */
    status = record_init(&record, facts, &journal->error);
    record_release(&journal->record);
    granules_release(&journal->pending);
    text_release(&journal->notes);
    text_init(&journal->notes, journal->digest);
    journal->any_pending = false;
    journal->record = record;
    if (status == 0 && !granules_init(&journal->pending, record.durable.count))
        status = blk_error_set(&journal->error, ENOMEM, "out of memory");
    if (status == 0 && !journal->store) {
        journal->work.run = make_directories;
        journal->work.done = directories_made;
        status = loop_offload(journal->loop, &journal->work);
        if (status == 0)
            return;
        blk_error_set(&journal->error, -status, "no helper thread could be started");
    }
    when_idle(journal, begin_now);
}

/* ---- Writing ---------------------------------------------------------------------------------- */

static void stop(struct journal *journal)
{
    char text[sizeof(journal->error.text) + 120];

    journal->state = JOURNAL_STOPPED;
    journal->any_pending = false;
    snprintf(text, sizeof(text),
             "the journal is not kept any more: %s; should the copy be interrupted, what is copied "
             "from now on is copied again",
             journal->error.text);
    journal->notice(journal->opaque, true, text);
}

static void advance(struct journal *journal);

static void written(struct journal *journal, int status)
{
    assert(journal->state == JOURNAL_WRITING);
    text_release(&journal->text);
    if (status == 0) {
        journal->state = JOURNAL_READY;
        journal->rewrite = false;
    } else {
        stop(journal);
    }
    advance(journal);
}

static void append_done(struct journal *journal, int status)
{
    journal->error = journal->req.error;
    written(journal, status);
}

/* Takes all that is pending into one write. */
static void write_pending(struct journal *journal)
{
    struct journal_text *text = &journal->text;
    int status;

    text_init(text, journal->digest);
    text_append(text, &journal->notes);
    record_write_durable(&journal->pending, text);
    granules_clear(&journal->pending);
    text_release(&journal->notes);
    text_init(&journal->notes, journal->digest);
    journal->any_pending = false;
    journal->state = JOURNAL_WRITING;
    blk_error_clear(&journal->error);
    if (text->failed) {
        written(journal, blk_error_set(&journal->error, ENOMEM, "out of memory"));
        return;
    }
    if (!journal->rewrite) {
        req_then(journal, STORE_APPEND, journal->name, append_done);
        return;
    }
    text_release(text);
    status = write_whole(journal, written);
    if (status < 0)
        written(journal, status);
}

static void advance(struct journal *journal)
{
    void (*idle)(struct journal *) = journal->idle;

    if (journal->state == JOURNAL_READY && journal->any_pending) {
        write_pending(journal);
    } else if (journal->state != JOURNAL_WRITING && idle) {
        journal->idle = NULL;
        idle(journal);
    }
}

static void run_call(struct loop_call *call)
{
    advance(container_of(call, struct journal, call));
}

void journal_durable(struct journal *journal, uint64_t first, uint64_t count)
{
    if (journal->state != JOURNAL_READY && journal->state != JOURNAL_WRITING)
        return;
    assert(first <= journal->record.durable.count &&
           count <= journal->record.durable.count - first);
    if (!granules_add(&journal->record.durable, &journal->pending, first, count))
        return;
    journal->any_pending = true;
    loop_defer(journal->loop, &journal->call);
}

void journal_note(struct journal *journal, const struct journal_facts *facts)
{
    if (journal->state != JOURNAL_READY && journal->state != JOURNAL_WRITING)
        return;
    assert(facts->granule == journal->record.facts.granule &&
           facts->source_stamp.size == journal->record.facts.source_stamp.size);
    if (!record_change(&journal->record, facts, &journal->notes))
        journal->notes.failed = true;
    journal->any_pending = journal->any_pending || journal->notes.failed || journal->notes.len > 0;
    loop_defer(journal->loop, &journal->call);
}

static void synced(struct journal *journal)
{
    report(journal, journal->state == JOURNAL_STOPPED ? -journal->error.code : 0);
}

void journal_sync(struct journal *journal, struct blk_task *task)
{
    start_task(journal, task);
    when_idle(journal, synced);
}

/* ---- What is recorded ------------------------------------------------------------------------- */

const struct journal_facts *journal_facts(const struct journal *journal)
{
    return &journal->record.facts;
}

bool journal_next_durable(const struct journal *journal, uint64_t from, uint64_t *first,
                          uint64_t *count)
{
    return granules_next(&journal->record.durable, from, first, count);
}

/* ---- The ends --------------------------------------------------------------------------------- */

static void removed(struct journal *journal, int status)
{
    journal->state = JOURNAL_NEW;
    journal->found = false;
    if (status < 0 && status != -ENOENT)
        journal->error = journal->req.error;
    else
        blk_error_clear(&journal->error);
    report(journal, -journal->error.code);
}

static void remove_now(struct journal *journal)
{
    if (journal->state == JOURNAL_NEW) {
        report(journal, 0);
        return;
    }
    journal->state = JOURNAL_BUSY;
    req_then(journal, STORE_REMOVE, journal->name, removed);
}

void journal_end(struct journal *journal, struct blk_task *task)
{
    start_task(journal, task);
    journal->any_pending = false; /* nobody will read it */
    when_idle(journal, remove_now);
}

static void free_journal(struct journal *journal)
{
    record_release(&journal->record);
    granules_release(&journal->pending);
    text_release(&journal->notes);
    text_release(&journal->text);
    digest_free(journal->digest);
    url_release(&journal->url);
    free(journal->path);
    free(journal);
}

static void closed(struct journal *journal, int status)
{
    struct blk_task *task = journal->task;

    (void)status;
    loop_defer_cancel(journal->loop, &journal->call);
    free_journal(journal);
    if (task) {
        task->status = 0;
        blk_error_clear(&task->error);
        task->done(task);
    }
}

static void close_now(struct journal *journal)
{
    if (journal->store)
        store_close(journal->store, step_then(journal, closed));
    else
        closed(journal, 0);
}

void journal_close(struct journal *journal, struct blk_task *task)
{
    start_task(journal, task);
    when_idle(journal, close_now);
}

struct journal *journal_new(struct loop *loop, const char *path,
                            void (*notice)(void *opaque, bool important, const char *text),
                            void *opaque)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    const char *slash;

    if (!journal)
        return NULL;
    journal->loop = loop;
    journal->notice = notice;
    journal->opaque = opaque;
    journal->call.run = run_call;
    journal->digest = digest_new(NULL);
    /* "./", so that a colon in it does not make it a URL. */
    if (!journal->digest ||
        asprintf(&journal->path, "%s%s", path[0] == '/' ? "" : "./", path) < 0) {
        journal->path = NULL;
        free_journal(journal);
        return NULL;
    }
    if (url_parse(journal->path, &journal->url, NULL) < 0) {
        free_journal(journal);
        return NULL;
    }
    slash = strrchr(journal->path, '/');
    journal->name = slash + 1;
    text_init(&journal->notes, journal->digest);
    return journal;
}
