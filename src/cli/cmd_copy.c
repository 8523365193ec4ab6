/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/units.h>

#include "cli.h"

enum {
    OPT_IN_ORDER = 0x100,
    OPT_LANES,
    OPT_REQUEST_SIZE,
    OPT_OVERWRITE,
    OPT_SYNC,
    OPT_FLUSH_SIZE,
    OPT_VERIFY,
    OPT_SALVAGE,
    OPT_BAD_BLOCKS,
    OPT_ALLOW_LIVE,
    OPT_RATE_LIMIT,
    OPT_RESUME,
    OPT_JOURNAL,
    OPT_RESERVE,
    OPT_BREAK_RESERVATION,
    OPT_BREAK_LOCK,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is written:", 1},
    {"overwrite", OPT_OVERWRITE, NULL, 0,
     "Replace a file that exists, or what is on a LUN or block device", 1},
    {NULL, 'n', NULL, 0,
     "Write into the file that is there, in place, instead of making a new one beside it (needs "
     "--overwrite; never truncates)",
     1},
    {NULL, 0, NULL, 0, "How:", 2},
    {NULL, 'm', "N", 0,
     "Keep up to N chunks in flight, from their read to their write (8 to 64, by the measured "
     "round trip)",
     2},
    {NULL, 'W', NULL, 0, "Let writes complete out of order (this is the default)", 2},
    {"in-order", OPT_IN_ORDER, NULL, 0,
     "Start each write when all before it are complete (slower; leaves the head of a LUN "
     "unguarded)",
     2},
    {"request-size", OPT_REQUEST_SIZE, "SIZE", 0,
     "Bytes that one chunk moves, a multiple of 4k up to 16M (512k)", 2},
    {"lanes", OPT_LANES, "N", 0,
     "Threads, each with connections of its own to both ends and with -m chunks in flight (1)", 2},
    {"rate-limit", OPT_RATE_LIMIT, "BYTES", 0, "Copy at most so many bytes a second (k, M, G)", 2},
    {NULL, 0, NULL, 0, "Safety:", 3},
    {"verify", OPT_VERIFY, NULL, 0,
     "Read the target back when all is written, and compare SHA-256 digests; what differs is "
     "copied "
     "once more",
     3},
    {"sync", OPT_SYNC, NULL, 0,
     "Have each write made durable by itself (slower; otherwise the target is flushed from time to "
     "time, and what a restart of its server has lost is copied again)",
     3},
    {"flush-size", OPT_FLUSH_SIZE, "SIZE", 0,
     "Flush the target after SIZE written, at the latest (1G at first, then as it pays)", 3},
    {"allow-live", OPT_ALLOW_LIVE, NULL, 0,
     "Only warn when the source has changed while it was copied", 3},
    {"salvage", OPT_SALVAGE, NULL, 0,
     "Where the source cannot be read, write zeros and go on; ends with status 5", 3},
    {"bad-blocks", OPT_BAD_BLOCKS, "FILE", 0,
     "List what could not be read in FILE, a line each: offset and length in bytes (with "
     "--salvage)",
     3},
    {"resume", OPT_RESUME, NULL, 0,
     "Go on with a copy that failed or was killed: what it made durable is not copied again", 3},
    {"journal", OPT_JOURNAL, "FILE", 0,
     "Keep the record that --resume needs in FILE, from the start on; `none': keep none (normally: "
     "in $XDG_STATE_HOME/lunferry, ~/.local/state/lunferry or, for root, /var/lib/lunferry, when a "
     "copy takes more than a few seconds)",
     3},
    {"reserve", OPT_RESERVE, NULL, 0,
     "Take a persistent reservation of the target LUN, so that no other initiator writes to it "
     "meanwhile",
     3},
    {"break-reservation", OPT_BREAK_RESERVATION, "KEY", 0,
     "Take the reservation away from the initiator that holds it under KEY (with --reserve)", 3},
    {"break-lock", OPT_BREAK_LOCK, NULL, 0,
     "Take the lock of the target's name away from another lunferry, which is known to be dead", 3},
    {NULL, 0, NULL, 0, "What is shown:", 4},
    {NULL, 'p', NULL, 0, "Show progress and a summary even where stderr is no terminal", 4},
    {NULL, 'q', NULL, 0, "Show errors only", 4},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Copies the image at SOURCE to TARGET. A new file gets its name only when it is complete and "
    "durable. A LUN or block device must be at least as large as the image; what lies beyond the "
    "image stays as it is; its first MiB is written last, so that an incomplete copy does not "
    "boot. "
    "Connections that are lost are built again. A LUN in use changes unseen: copy a snapshot."
    "\v"
    "Endpoints are iscsi:// and nfs:// URLs, paths, null:SIZE, ram:SIZE and random:SIZE; "
    "`lunferry --help` shows their forms. SIZE takes k, M, G, T, P (powers of 1024).\n\n"
    "Signals: SIGINT and SIGTERM stop the copy, remove the temporary file (unless --resume can go "
    "on "
    "with it), and end with 130 or 143; a second one does not wait for what is on the wire. "
    "SIGUSR1 "
    "prints a line of progress.";

struct copy_command {
    struct run run;
    struct url source, target;
    const char *source_text, *target_text;
    struct copy_options options;
    bool any_order;
    char **argv; /* for the command that resumes */
    const char *bad_blocks_path;
    FILE *bad_blocks;
    struct copy_job *job;
    struct loop_timer patience; /* after the second signal */
    int signal;                 /* the first one that came; 0: none */
    unsigned signal_count;
};

/* ---- Options ---------------------------------------------------------------------------------- */

/* At least 1. */
static void parse_bytes(struct argp_state *state, const char *option, const char *arg,
                        uint64_t *bytes)
{
    struct blk_error error;

    if (units_parse_size(arg, bytes, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
    if (*bytes == 0)
        argp_error(state, "%s: 0 is too little", option);
}

/* As messages show it: up to 16 hexadecimal digits. */
static void parse_key(struct argp_state *state, const char *arg, uint64_t *key)
{
    char *end;

    errno = 0;
    *key = strtoull(arg, &end, 16);
    if (errno != 0 || *end != '\0' || *key == 0 || arg[0] == '-')
        argp_error(state, "--break-reservation: \"%s\" is no key of up to 16 hexadecimal digits",
                   arg);
}

static void check_together(struct argp_state *state, const struct copy_command *command)
{
    const struct copy_options *o = &command->options;

    if (!command->target_text)
        argp_error(state, "a SOURCE and a TARGET are needed");
    if (o->in_order && command->any_order)
        argp_error(state, "-W and --in-order contradict each other");
    if (o->in_order && o->lanes > 1)
        argp_error(state, "--in-order works with one lane only");
    if (o->in_place && !o->overwrite)
        argp_error(state, "-n changes the file that is there: it needs --overwrite too");
    if (o->verify && o->chunk % COPY_VERIFY_CHUNK != 0)
        argp_error(state, "with --verify, --request-size is a multiple of 256k");
    if (command->bad_blocks_path && !o->salvage)
        argp_error(state, "--bad-blocks lists what --salvage finds: it needs that too");
    if (o->break_reservation && !o->reserve)
        argp_error(state, "--break-reservation needs --reserve too");
    if (o->resume && o->in_order)
        argp_error(state, "a copy that is written in order cannot be resumed");
    if (o->resume && o->journal && !o->journal[0])
        argp_error(state, "--resume needs the journal");
    if (command->run.show && command->run.quiet)
        argp_error(state, "-p and -q contradict each other");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct copy_command *command = state->input;
    struct copy_options *o = &command->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->settings;
        break;
    case 'm':
        option_number(state, "-m", arg, 1, COPY_MAX_DEPTH, &o->depth);
        break;
    case 'W':
        command->any_order = true;
        break;
    case OPT_IN_ORDER:
        o->in_order = true;
        break;
    case OPT_LANES:
        option_number(state, "--lanes", arg, 1, COPY_MAX_LANES, &o->lanes);
        break;
    case OPT_REQUEST_SIZE:
        option_chunk(state, "--request-size", arg, &o->chunk);
        break;
    case OPT_OVERWRITE:
        o->overwrite = true;
        break;
    case 'n':
        o->in_place = true;
        break;
    case OPT_SYNC:
        o->sync = true;
        break;
    case OPT_FLUSH_SIZE:
        parse_bytes(state, "--flush-size", arg, &o->flush_bytes);
        break;
    case OPT_VERIFY:
        o->verify = true;
        break;
    case OPT_SALVAGE:
        o->salvage = true;
        break;
    case OPT_BAD_BLOCKS:
        command->bad_blocks_path = arg;
        break;
    case OPT_ALLOW_LIVE:
        o->allow_live = true;
        break;
    case OPT_RATE_LIMIT:
        parse_bytes(state, "--rate-limit", arg, &o->rate);
        break;
    case OPT_RESUME:
        o->resume = true;
        break;
    case OPT_JOURNAL:
        o->journal = strcmp(arg, "none") == 0 ? "" : arg;
        break;
    case OPT_RESERVE:
        o->reserve = true;
        break;
    case OPT_BREAK_RESERVATION:
        parse_key(state, arg, &o->break_reservation);
        break;
    case OPT_BREAK_LOCK:
        o->break_lock = true;
        break;
    case 'p':
        command->run.show = true;
        break;
    case 'q':
        command->run.quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (!command->source_text)
            command->source_text = arg;
        else if (!command->target_text)
            command->target_text = arg;
        else
            argp_error(state, "\"%s\" is one argument too many: only SOURCE and TARGET", arg);
        break;
    case ARGP_KEY_END:
        check_together(state, command);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&session_argp, 0, NULL, 10}, {0}};
static const struct argp argp = {options, parse, "SOURCE TARGET", doc, children, NULL, NULL};

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct copy_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void bad_range(void *opaque, uint64_t offset, uint64_t len)
{
    const struct copy_command *command = opaque;

    if (command->bad_blocks) {
        fprintf(command->bad_blocks, "%" PRIu64 " %" PRIu64 "\n", offset, len);
        fflush(command->bad_blocks);
    } else {
        say("source: %s: %" PRIu64 " bytes at offset %" PRIu64
            " cannot be read; zeros take their place",
            command->source.text, len, offset);
    }
}

static bool open_bad_blocks(struct copy_command *command)
{
    if (!command->bad_blocks_path)
        return true;
    command->bad_blocks = fopen(command->bad_blocks_path, command->options.resume ? "ae" : "wxe");
    if (!command->bad_blocks)
        say("--bad-blocks: %s: %s", command->bad_blocks_path, strerror(errno));
    return command->bad_blocks != NULL;
}

/* False: the list is not all there. */
static bool close_bad_blocks(struct copy_command *command)
{
    bool good;

    if (!command->bad_blocks)
        return true;
    good = ferror(command->bad_blocks) == 0;
    if (fclose(command->bad_blocks) != 0 || !good) {
        say("--bad-blocks: %s could not be written", command->bad_blocks_path);
        return false;
    }
    return true;
}

static void done(struct copy_job *job, void *opaque)
{
    (void)job;
    ((struct copy_command *)opaque)->run.ended = true;
}

static void out_of_patience(struct loop_timer *timer)
{
    struct copy_command *command = container_of(timer, struct copy_command, patience);

    say("interrupted; something does not let go, a temporary file may be left");
    _exit(EXIT_SIGNAL + command->signal);
}

static void on_stop(struct run *run, int number)
{
    struct copy_command *command = container_of(run, struct copy_command, run);

    switch (++command->signal_count) {
    case 1:
        command->signal = number;
        copy_stop(command->job);
        break;
    case 2:
        copy_abort(command->job);
        command->patience.fire = out_of_patience;
        loop_timer_set(command->run.loop, &command->patience,
                       loop_now(command->run.loop) + LOOP_SECOND);
        break;
    default:
        out_of_patience(&command->patience);
    }
}

static const char *phase_name(enum copy_phase phase)
{
    switch (phase) {
    case COPY_OPENING:
        return "opening both ends";
    case COPY_CHECKING:
        return "checking both ends";
    case COPY_PREPARING:
        return "preparing the target";
    case COPY_COPYING:
        return "copying";
    case COPY_FINISHING:
        return "making it durable";
    case COPY_CLOSING:
    case COPY_ENDED:
        return "closing";
    }
    return "?";
}

static void look(const void *job, struct progress_now *now)
{
    struct copy_progress copy;

    copy_progress(job, &copy);
    now->phase = phase_name(copy.phase);
    now->total = copy.total;
    now->done = copy.done;
    now->moved = copy.phase > COPY_COPYING;
    snprintf(now->requests, sizeof(now->requests), "reads %u, writes %u", copy.reading,
             copy.writing);
    if (copy.verified > 0 && copy.verified < copy.total) {
        now->done = copy.verified;
        snprintf(now->requests, sizeof(now->requests), "reading it back");
    }
}

static void summarise(const struct copy_command *command, const struct copy_result *result)
{
    uint64_t ns = loop_now(command->run.loop) - command->run.started;
    double seconds = (double)ns / 1e9;
    char bytes[UNITS_TEXT], speed[UNITS_TEXT];

    if (command->run.quiet || (!command->run.show && !isatty(STDERR_FILENO)))
        return;
    fprintf(stderr, "lunferry: copied %s in %.2f s (%s/s)\n", units_size(bytes, result->bytes),
            seconds, units_size(speed, (uint64_t)((double)result->bytes / seconds)));
    if (result->resumed > 0)
        fprintf(stderr, "lunferry: %s were there from the earlier run\n",
                units_size(bytes, result->resumed));
    if (result->losses > 0 || result->repeated > 0)
        fprintf(stderr, "lunferry: %u lost connections, %" PRIu64 " repeated requests\n",
                result->losses, result->repeated);
    if (result->lost > 0)
        fprintf(stderr, "lunferry: %s copied again, which a restart of the target had lost\n",
                units_size(bytes, result->lost));
    if (command->options.verify)
        fprintf(stderr, "lunferry: all of it was read back and is the same%s\n",
                result->mended > 0 ? ", after some was copied again" : "");
}

/* An argument as a shell takes it. */
static void print_quoted(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";

    if (text[0] != '\0' && text[strspn(text, plain)] == '\0') {
        fputs(text, stderr);
        return;
    }
    fputc('\'', stderr);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stderr);
        else
            fputc(*text, stderr);
    }
    fputc('\'', stderr);
}

static void print_resume(const struct copy_command *command)
{
    fputs("lunferry: go on with: lunferry copy", stderr);
    if (!command->options.resume)
        fputs(" --resume", stderr);
    for (char **arg = command->argv + 1; *arg; arg++) {
        fputc(' ', stderr);
        if (*arg == command->source_text)
            print_quoted(command->source.text);
        else if (*arg == command->target_text)
            print_quoted(command->target.text);
        else
            print_quoted(*arg);
    }
    fputc('\n', stderr);
}

/* What the user finds there now. */
static const char *aftermath(const struct copy_result *result)
{
    if (!result->touched)
        return "nothing was changed";
    if (result->kept)
        return "the file of that name, if there was one, is as it was";
    return "the target is not complete";
}

static int report(const struct copy_command *command, const struct copy_result *result)
{
    bool interrupted = command->signal && result->error.code == ECANCELED;
    char bad[UNITS_TEXT];

    if (result->status == 0) {
        summarise(command, result);
        if (result->bad == 0)
            return EXIT_DONE;
        say("%s of the source could not be read and are zeros in the target",
            units_size(bad, result->bad));
        return EXIT_SALVAGED;
    }
    say("%s; %s", interrupted ? "interrupted" : result->error.text, aftermath(result));
    if (result->resumable) {
        say("what was copied so far is kept");
        print_resume(command);
    }
    if (interrupted)
        return EXIT_SIGNAL + command->signal;
    return result->touched ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
}

static int run(struct copy_command *command)
{
    int status;

    if (!run_open(&command->run))
        return EXIT_UNTOUCHED;
    command->job = copy_start(command->run.loop, &command->options);
    if (!command->job) {
        say("out of memory");
        loop_free(command->run.loop);
        return EXIT_UNTOUCHED;
    }
    command->run.shown = (struct progress_source){look, command->job};
    command->run.stop = on_stop;
    run_until_ended(&command->run);
    loop_timer_cancel(command->run.loop, &command->patience);
    status = report(command, copy_result(command->job));
    copy_free(command->job);
    loop_free(command->run.loop);
    return status;
}

int cmd_copy(int argc, char **argv)
{
    struct copy_command command = {
        .options =
            {
                .lanes = 1,
                .chunk = COPY_DEFAULT_CHUNK,
                .notice = notice,
                .bad_range = bad_range,
                .done = done,
                .opaque = &command,
            },
    };
    mode_t mask = umask(0);
    int status = EXIT_UNTOUCHED;
    bool source_good, target_good;

    umask(mask);
    command.options.mode = 0666 & ~mask;
    settings_init(&command.options.settings);
    command.argv = argv;
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry copy";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    /* Both, so that both faults are told at once. */
    source_good = endpoint_parse(command.source_text, &command.source);
    target_good = endpoint_parse(command.target_text, &command.target);
    if (source_good && target_good && open_bad_blocks(&command)) {
        command.options.source = &command.source;
        command.options.target = &command.target;
        status = run(&command);
    }
    if (!close_bad_blocks(&command) && (status == EXIT_DONE || status == EXIT_SALVAGED))
        status = EXIT_INCOMPLETE;
    url_release(&command.source);
    url_release(&command.target);
    return status;
}
