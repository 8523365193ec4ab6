/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Journals, through the store of a real directory; damage to their text, byte by byte. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/copy/journal.h"
#include "src/copy/journal_text.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define GRANULE (UINT64_C(256) << 10)

struct desk {
    const struct ground *ground;
    struct journal *journal;
    char *path;
    unsigned notices;
    bool important;
    char notice[1000];
};

static void notice(void *opaque, bool important, const char *text)
{
    struct desk *desk = opaque;

    desk->notices++;
    desk->important = important;
    snprintf(desk->notice, sizeof(desk->notice), "%s", text);
}

static void open_desk(struct desk *desk, const struct ground *ground, const char *name)
{
    *desk = (struct desk){.ground = ground, .path = ground_path(ground, name)};
    desk->journal = journal_new(ground->loop, desk->path, notice, desk);
    assert_non_null(desk->journal);
}

/* Waits for what a task was started for. */
static int wait_for(const struct desk *desk, struct blk_task *task, const bool *done)
{
    assert_false(*done);
    ground_wait(desk->ground, done);
    if (task->status < 0)
        assert_int_equal(task->error.code, -task->status);
    return task->status;
}

static int load(const struct desk *desk, struct blk_error *error)
{
    bool done;
    struct blk_task task = ground_task(&done);
    int status;

    journal_load(desk->journal, &task);
    status = wait_for(desk, &task, &done);
    if (error)
        *error = task.error;
    return status;
}

static int begin(const struct desk *desk, const struct journal_facts *facts)
{
    bool done;
    struct blk_task task = ground_task(&done);

    journal_begin(desk->journal, facts, &task);
    return wait_for(desk, &task, &done);
}

static int sync_journal(const struct desk *desk)
{
    bool done;
    struct blk_task task = ground_task(&done);

    journal_sync(desk->journal, &task);
    return wait_for(desk, &task, &done);
}

static int end(const struct desk *desk)
{
    bool done;
    struct blk_task task = ground_task(&done);

    journal_end(desk->journal, &task);
    return wait_for(desk, &task, &done);
}

static void close_desk(struct desk *desk)
{
    bool done;
    struct blk_task task = ground_task(&done);

    journal_close(desk->journal, &task);
    assert_int_equal(wait_for(desk, &task, &done), 0);
    free(desk->path);
}

static char source[] = "iscsi://me:***@[2001:db8::1]/iqn.2026-01.org.example:a%20b/7?user=x";
static char target[] = "nfs://host/a b/100%/new\nline/\xc3\xa4\xe2\x82\xac.img";
static char identity[] = "naa.6001405", holder[] = "host x pid 1",
            temporary[] = ". \t\x7f.lunferry-1";
static char empty[] = "";

static struct journal_facts some_facts(uint64_t granules)
{
    return (struct journal_facts){
        .source = source,
        .target = target,
        .source_identity = identity,
        .target_identity = NULL,
        .source_stamp = {granules * GRANULE - 5, INT64_C(1700000000123456789), INT64_MIN},
        .source_session = UINT64_MAX,
        .target_session = 0,
        .lanes = 3,
        .chunk = 512 << 10,
        .granule = GRANULE,
        .head_len = 1 << 20,
        .in_place = true,
        .new_file = true,
        .temporary = temporary,
        .reservation_key = UINT64_C(0x123456789abcdef0),
        .holder = holder,
    };
}

static void check_text(const char *have, const char *want)
{
    if (want)
        assert_string_equal(have, want);
    else
        assert_null(have);
}

static void check_facts(const struct journal_facts *have, const struct journal_facts *want)
{
    check_text(have->source, want->source);
    check_text(have->target, want->target);
    check_text(have->source_identity, want->source_identity);
    check_text(have->target_identity, want->target_identity);
    check_text(have->temporary, want->temporary);
    check_text(have->holder, want->holder);
    assert_true(have->source_stamp.size == want->source_stamp.size);
    assert_true(have->source_stamp.mtime_ns == want->source_stamp.mtime_ns);
    assert_true(have->source_stamp.ctime_ns == want->source_stamp.ctime_ns);
    assert_true(have->source_session == want->source_session);
    assert_true(have->target_session == want->target_session);
    assert_true(have->lanes == want->lanes && have->chunk == want->chunk);
    assert_true(have->granule == want->granule && have->head_len == want->head_len);
    assert_true(have->reservation_key == want->reservation_key);
    assert_int_equal(have->in_order, want->in_order);
    assert_int_equal(have->in_place, want->in_place);
    assert_int_equal(have->overwrite, want->overwrite);
    assert_int_equal(have->new_file, want->new_file);
    assert_int_equal(have->blanked, want->blanked);
}

/* runs: "0+1 4+2" */
static void check_runs(const struct journal *journal, const char *runs)
{
    char text[200] = "";
    uint64_t first, count;

    for (uint64_t at = 0; journal_next_durable(journal, at, &first, &count); at = first + count)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%u+%u", text[0] ? " " : "",
                 (unsigned)first, (unsigned)count);
    assert_string_equal(text, runs);
}

/* The journal's bytes, and a NUL. */
static char *read_journal(const struct desk *desk, size_t *len)
{
    char *text = calloc(1, 8192);
    int fd = open(desk->path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    assert_true(fd >= 0);
    got = read(fd, text, 8191);
    assert_true(got >= 0 && got < 8191);
    close(fd);
    *len = (size_t)got;
    return text;
}

static unsigned count_lines(const char *text, const char *word)
{
    unsigned count = 0;

    for (; (text = strstr(text, word)); text++)
        count++;
    return count;
}

/* A journal with some of everything. */
static void make_journal(const struct ground *ground, const char *name)
{
    struct journal_facts facts = some_facts(1000);
    struct desk desk;

    open_desk(&desk, ground, name);
    assert_int_equal(begin(&desk, &facts), 0);
    journal_durable(desk.journal, 0, 1);
    assert_int_equal(sync_journal(&desk), 0);
    facts.blanked = true;
    journal_note(desk.journal, &facts);
    journal_durable(desk.journal, 4, 100);
    assert_int_equal(sync_journal(&desk), 0);
    journal_durable(desk.journal, 990, 10);
    close_desk(&desk);
}

/* ---- What is kept ----------------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(1000);
    struct desk desk;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, NULL), 0);
    facts.blanked = true;
    check_facts(journal_facts(desk.journal), &facts);
    check_runs(desk.journal, "0+1 4+100 990+10");

    /* Every kind of fact changes; a text comes, goes, is empty. */
    facts.target_identity = empty;
    facts.temporary = NULL;
    facts.source_stamp.mtime_ns = -1;
    facts.target_session = 99;
    facts.blanked = false;
    journal_note(desk.journal, &facts);
    close_desk(&desk);
    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, NULL), 0);
    check_facts(journal_facts(desk.journal), &facts);
    check_runs(desk.journal, "0+1 4+100 990+10");
    assert_int_equal(desk.notices, 0);
    close_desk(&desk);
}

/* A person can read it, and each fact stands on a line of its own. */
static void test_readable(void **state)
{
    struct ground *ground = *state;
    struct desk desk;
    char *text;
    size_t len;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    text = read_journal(&desk, &len);
    assert_non_null(strstr(text, " lunferry-journal 1\n"));
    assert_non_null(strstr(text, " target nfs://host/a%20b/100%25/new%0Aline/\xc3\xa4\xe2\x82\xac"
                                 ".img\n"));
    assert_non_null(strstr(text, " target-identity\n"));
    assert_non_null(strstr(text, " blanked yes\n"));
    assert_non_null(strstr(text, " durable 4 100\n"));
    free(text);
    close_desk(&desk);
}

/* What comes while an append is under way goes out in one, and neighbours in one line. */
static void test_merging(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(100);
    struct desk desk;
    char *text;
    size_t len;

    open_desk(&desk, ground, "j");
    assert_int_equal(begin(&desk, &facts), 0);
    journal_durable(desk.journal, 50, 1);
    loop_turn(ground->loop, 0);
    for (unsigned i = 0; i < 20; i++)
        journal_durable(desk.journal, 19 - i, 1);
    journal_durable(desk.journal, 30, 2);
    assert_int_equal(sync_journal(&desk), 0);
    text = read_journal(&desk, &len);
    assert_int_equal(count_lines(text, " durable "), 3);
    assert_true(strstr(text, " durable 50 1\n") < strstr(text, " durable 0 20\n"));
    assert_true(strstr(text, " durable 0 20\n") < strstr(text, " durable 30 2\n"));
    free(text);
    close_desk(&desk);
}

/* What journal_sync() has reported is in the file; notes come before what was durable after them. */
static void test_order(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(100);
    struct desk desk;
    char *text;
    size_t len;

    open_desk(&desk, ground, "j");
    assert_int_equal(begin(&desk, &facts), 0);
    facts.holder = identity;
    journal_note(desk.journal, &facts);
    journal_durable(desk.journal, 7, 1);
    assert_int_equal(sync_journal(&desk), 0);
    text = read_journal(&desk, &len);
    assert_non_null(strstr(text, " holder naa.6001405\n"));
    assert_true(strstr(text, " holder naa.6001405\n") < strstr(text, " durable 7 1\n"));
    free(text);
    close_desk(&desk);
}

/* ---- Beginning and ending --------------------------------------------------------------------- */

static void test_none(void **state)
{
    struct ground *ground = *state;
    struct desk desk;

    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, NULL), -ENOENT);
    assert_int_equal(load(&desk, NULL), -ENOENT);
    journal_durable(desk.journal, 1, 1);
    assert_int_equal(sync_journal(&desk), 0);
    assert_int_equal(end(&desk), 0);
    close_desk(&desk);
    open_desk(&desk, ground, "no/such/directory/j");
    assert_int_equal(load(&desk, NULL), -ENOENT);
    close_desk(&desk);
}

static void check_mode(const struct ground *ground, const char *name, unsigned mode)
{
    char *path = ground_path(ground, name);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
    free(path);
}

static void test_directories(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(1);
    struct desk desk;

    open_desk(&desk, ground, "new/deep/j");
    assert_int_equal(load(&desk, NULL), -ENOENT);
    assert_int_equal(begin(&desk, &facts), 0);
    check_mode(ground, "new", 0700);
    check_mode(ground, "new/deep", 0700);
    check_mode(ground, "new/deep/j", 0600);
    close_desk(&desk);

    ground_make(ground, "file", "x", 1);
    open_desk(&desk, ground, "file/j");
    assert_int_equal(begin(&desk, &facts), -ENOTDIR);
    close_desk(&desk);
}

static unsigned count_files(const struct ground *ground)
{
    char command[200], digits[20] = "";
    FILE *pipe;

    snprintf(command, sizeof(command), "find %s -type f | wc -l", ground->dir);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(digits, sizeof(digits), pipe));
    pclose(pipe);
    return (unsigned)atoi(digits);
}

/* A journal that somebody else has made meanwhile stays; one that was loaded is replaced. */
static void test_replacing(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(8);
    struct desk desk;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    assert_int_equal(begin(&desk, &facts), -EEXIST);
    journal_durable(desk.journal, 1, 1);
    assert_int_equal(count_files(ground), 1);

    assert_int_equal(load(&desk, NULL), 0);
    check_runs(desk.journal, "0+1 4+100 990+10");
    facts.lanes = 60;
    assert_int_equal(begin(&desk, &facts), 0);
    check_runs(desk.journal, "");
    journal_durable(desk.journal, 7, 1);
    close_desk(&desk);
    assert_int_equal(count_files(ground), 1);

    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, NULL), 0);
    check_facts(journal_facts(desk.journal), &facts);
    check_runs(desk.journal, "7+1");
    assert_int_equal(end(&desk), 0);
    assert_int_equal(count_files(ground), 0);
    assert_int_equal(begin(&desk, &facts), 0); /* and again */
    journal_durable(desk.journal, 2, 1);
    assert_int_equal(end(&desk), 0);
    assert_int_equal(count_files(ground), 0);
    close_desk(&desk);
}

/* The journal cannot be written any more: told once, and what is there stays as it is. */
static void test_stopping(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(8);
    struct desk desk;

    open_desk(&desk, ground, "j");
    assert_int_equal(begin(&desk, &facts), 0);
    assert_int_equal(unlink(desk.path), 0);
    assert_int_equal(mkdir(desk.path, 0700), 0);
    journal_durable(desk.journal, 1, 1);
    assert_int_equal(sync_journal(&desk), -EISDIR);
    assert_int_equal(desk.notices, 1);
    assert_true(desk.important);
    assert_non_null(strstr(desk.notice, desk.path));
    journal_durable(desk.journal, 2, 1);
    facts.lanes++;
    journal_note(desk.journal, &facts);
    assert_int_equal(sync_journal(&desk), -EISDIR);
    assert_int_equal(desk.notices, 1);
    close_desk(&desk);
}

/* A disk that becomes full in the middle of an append: what was recorded before still counts. */
static void test_full_disk(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(100);
    struct rlimit before, limit;
    struct desk desk;
    size_t len, torn;
    char *text;

    open_desk(&desk, ground, "j");
    assert_int_equal(begin(&desk, &facts), 0);
    journal_durable(desk.journal, 1, 1);
    assert_int_equal(sync_journal(&desk), 0);
    text = read_journal(&desk, &len);
    free(text);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){len + 20, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    journal_durable(desk.journal, 2, 1);
    assert_int_equal(sync_journal(&desk), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(desk.notices, 1);
    text = read_journal(&desk, &torn);
    assert_int_equal(torn, len + 20);
    free(text);
    close_desk(&desk);

    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, NULL), 0);
    assert_int_equal(desk.notices, 1);
    check_runs(desk.journal, "1+1");
    close_desk(&desk);
}

/* ---- Damage ----------------------------------------------------------------------------------- */

static struct digest *digest;

/* What record_read() makes of the first len bytes, which it may change. */
static int read_record(struct record *record, const char *text, size_t len, size_t *lines,
                       struct blk_error *error)
{
    char *copy = malloc(len + 1);
    size_t valid;
    int status;

    memcpy(copy, text, len);
    status = record_read(record, digest, "J", copy, len, &valid, lines, error);
    assert_true(valid <= len);
    free(copy);
    return status;
}

static bool same_granules(const struct granules *a, const struct granules *b)
{
    return a->count == b->count &&
           memcmp(a->words, b->words, (a->count / 64 + 1) * sizeof(a->words[0])) == 0;
}

/* The text up to the line with the byte `at` counts, and no more than that. */
static void check_damaged(const char *damaged, size_t len, const char *text, size_t at)
{
    const char *start = strstr(text, " start\n") + 7, *line = text + at;
    struct record have, want;
    struct blk_error error;
    size_t lines, want_lines;
    int status = read_record(&have, damaged, len, &lines, &error);

    while (line > text && line[-1] != '\n')
        line--;
    if (line < start) {
        assert_int_equal(status, -EBADMSG);
        assert_memory_equal(error.text, "J:", 2);
        assert_int_equal(atoi(error.text + 2), lines + 1);
        record_release(&have);
        return;
    }
    assert_int_equal(status, 0);
    assert_int_equal(read_record(&want, text, (size_t)(line - text), &want_lines, NULL), 0);
    assert_int_equal(lines, want_lines);
    assert_true(same_granules(&have.durable, &want.durable));
    check_facts(&have.facts, &want.facts);
    record_release(&have);
    record_release(&want);
}

static void test_every_truncation(void **state)
{
    struct ground *ground = *state;
    struct desk desk;
    char *text;
    size_t len;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    text = read_journal(&desk, &len);
    for (size_t cut = 0; cut < len; cut++)
        check_damaged(text, cut, text, cut);
    free(text);
    close_desk(&desk);
}

static void test_every_flipped_bit(void **state)
{
    struct ground *ground = *state;
    struct desk desk;
    char *text, *damaged;
    size_t len;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    text = read_journal(&desk, &len);
    damaged = malloc(len);
    for (size_t bit = 0; bit < len * 8; bit++) {
        memcpy(damaged, text, len);
        damaged[bit / 8] = (char)(damaged[bit / 8] ^ 1 << bit % 8);
        check_damaged(damaged, len, text, bit / 8);
    }
    free(damaged);
    free(text);
    close_desk(&desk);
}

/* After a torn tail, whatever its length, the journal goes on. */
static void test_going_on(void **state)
{
    struct ground *ground = *state;
    struct desk desk;
    char *text;
    size_t len;

    make_journal(ground, "j");
    open_desk(&desk, ground, "j");
    text = read_journal(&desk, &len);
    close_desk(&desk);
    for (size_t cut = len - 30; cut <= len; cut++) {
        bool torn = cut < len && text[cut - 1] != '\n';
        bool whole = cut == len;

        ground_make(ground, "j", text, cut);
        open_desk(&desk, ground, "j");
        assert_int_equal(load(&desk, NULL), 0);
        assert_int_equal(desk.notices, torn);
        assert_true(!torn || strstr(desk.notice, "bytes) is not used"));
        journal_durable(desk.journal, 500, 1);
        assert_int_equal(sync_journal(&desk), 0);
        journal_durable(desk.journal, 600, 1);
        close_desk(&desk);
        open_desk(&desk, ground, "j");
        assert_int_equal(load(&desk, NULL), 0);
        check_runs(desk.journal, whole ? "0+1 4+100 500+1 600+1 990+10" : "0+1 4+100 500+1 600+1");
        assert_int_equal(desk.notices, 0);
        close_desk(&desk);
    }
    free(text);
}

/* A journal whose lines are all whole but make no sense: `words` is one line, or two. */
static void check_nonsense(const struct ground *ground, const char *word,
                           const char *const fields[2], bool start, const char *complaint)
{
    struct journal_facts facts = some_facts(8);
    struct journal_text text;
    struct blk_error error;
    struct record record;
    struct desk desk;

    assert_int_equal(record_init(&record, &facts, NULL), 0);
    text_init(&text, digest);
    if (start)
        record_write(&record, &text);
    text_line(&text, word);
    for (unsigned i = 0; i < 2 && fields[i]; i++)
        text_field(&text, fields[i]);
    text_end(&text);
    ground_make(ground, "j", text.bytes, text.len);
    text_release(&text);
    record_release(&record);
    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, &error), -EBADMSG);
    assert_memory_equal(error.text, desk.path, strlen(desk.path));
    if (!strstr(error.text, complaint))
        fail_msg("%s", error.text);
    close_desk(&desk);
}

static void test_nonsense(void **state)
{
    struct ground *ground = *state;
    static const struct {
        const char *word, *fields[2];
        bool start;
        const char *complaint;
    } cases[] = {
        {"durable", {"7", "2"}, true, "j:26: this line of the journal is damaged"},
        {"durable", {"18446744073709551615", "2"}, true, "j:26: "},
        {"durable", {"1", "18446744073709551615"}, true, "j:26: "},
        {"durable", {"1", "-1"}, true, "j:26: "},
        {"durable", {"1", NULL}, true, "j:26: "},
        {"granule", {"524288", NULL}, true, "j:26: "},
        {"blanked", {"perhaps", NULL}, true, "j:26: "},
        {"lanes", {"3x", NULL}, true, "j:26: "},
        {"start", {NULL, NULL}, true, "j:26: "},
        {"news", {"1", NULL}, true, "j:26: "},
        {"lunferry-journal", {"2", NULL}, false, "j:1: the journal has the form 2"},
        {"lunferry-journal", {"x", NULL}, false, "j:1: this is not the journal of a copy"},
        {"lunferry-journal", {"1", NULL}, false, "j:2: this line of the journal is damaged"},
    };

    for (size_t i = 0; i < COUNT(cases); i++)
        check_nonsense(ground, cases[i].word, cases[i].fields, cases[i].start, cases[i].complaint);
}

static void test_foreign_file(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts = some_facts(8);
    struct blk_error error;
    struct desk desk;

    ground_make(ground, "j", "", 0);
    open_desk(&desk, ground, "j");
    assert_int_equal(load(&desk, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "j:1: this is not the journal of a copy"));
    assert_int_equal(begin(&desk, &facts), 0); /* it was found damaged: replaced */
    close_desk(&desk);
}

/* Facts of which no journal can be made. */
static void test_bad_facts(void **state)
{
    struct ground *ground = *state;
    struct journal_facts facts[] = {some_facts(8), some_facts(8), some_facts(8),
                                    some_facts((1 << 20) + 1)};
    struct desk desk;

    facts[0].source = NULL;
    facts[1].granule = 3 << 20;
    facts[2].source_stamp.size = 0;
    open_desk(&desk, ground, "j");
    for (size_t i = 0; i < COUNT(facts); i++)
        assert_int_equal(begin(&desk, &facts[i]), -EINVAL);
    facts[0] = some_facts(1 << 20);
    assert_int_equal(begin(&desk, &facts[0]), 0);
    journal_durable(desk.journal, (1 << 20) - 1, 1);
    check_runs(desk.journal, "1048575+1");
    close_desk(&desk);
    assert_int_equal(count_files(ground), 1);
}

/* ---- The default path ------------------------------------------------------------------------- */

static void test_default_path(void **state)
{
    char path[JOURNAL_PATH], other[JOURNAL_PATH];
    struct blk_error error;

    (void)state;
    setenv("XDG_STATE_HOME", "/x/state", 1);
    setenv("HOME", "/home/me", 1);
    assert_int_equal(journal_default_path(path, "a", "bc", &error), 0);
    assert_memory_equal(path, "/x/state/lunferry/", 18);
    assert_int_equal(strlen(path), 18 + 16 + 8);
    assert_string_equal(path + 18 + 16, ".journal");
    assert_int_equal(journal_default_path(other, "ab", "c", &error), 0);
    assert_string_not_equal(path, other);
    assert_int_equal(journal_default_path(other, "a", "bc", &error), 0);
    assert_string_equal(path, other);

    setenv("XDG_STATE_HOME", "relative", 1);
    assert_int_equal(journal_default_path(path, "a", "b", &error), 0);
    if (geteuid() == 0)
        assert_memory_equal(path, "/var/lib/lunferry/", 18);
    else
        assert_memory_equal(path, "/home/me/.local/state/lunferry/", 31);
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_int_equal(journal_default_path(path, "a", "b", &error), geteuid() == 0 ? 0 : -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_readable, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_merging, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_order, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_none, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_directories, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_replacing, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_stopping, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_going_on, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_foreign_file, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_bad_facts, ground_setup, ground_teardown),
        cmocka_unit_test(test_default_path),
    };
    int status;

    digest = digest_new(NULL);
    status = cmocka_run_group_tests_name("journal", tests, NULL, NULL);
    digest_free(digest);
    return status;
}
