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

enum { OPT_IN_ORDER = 0x100, OPT_LANES, OPT_REQUEST_SIZE, OPT_OVERWRITE };

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
    {NULL, 0, NULL, 0, "What is shown:", 3},
    {NULL, 'p', NULL, 0, "Show progress and a summary even where stderr is no terminal", 3},
    {NULL, 'q', NULL, 0, "Show errors only", 3},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Copies the image at SOURCE to TARGET. A new file gets its name only when it is complete and "
    "durable. A LUN or block device must be at least as large as the image; what lies beyond the "
    "image stays as it is; its first MiB is written last, so that an incomplete copy does not boot."
    "\v"
    "Endpoints are iscsi:// and nfs:// URLs, paths, null:SIZE, ram:SIZE and random:SIZE; "
    "`lunferry --help` shows their forms. SIZE takes k, M, G, T, P (powers of 1024).\n\n"
    "Signals: SIGINT and SIGTERM stop the copy, remove the temporary file, and end with 130 or "
    "143; "
    "a second one does not wait for what is on the wire. SIGUSR1 prints a line of progress.";

struct copy_command {
    struct loop *loop;
    struct url source, target;
    const char *source_text, *target_text;
    struct copy_options options;
    bool show, quiet, any_order;
    struct copy_job *job;
    struct signals signals;
    struct loop_timer patience; /* after the second signal */
    int signal;                 /* the first one that came; 0: none */
    unsigned signal_count;
    uint64_t started;
    bool ended;
};

/* ---- Options ---------------------------------------------------------------------------------- */

static void parse_number(struct argp_state *state, const char *option, const char *arg,
                         uint64_t min, uint64_t max, unsigned *number)
{
    struct blk_error error;
    uint64_t value = 0;

    if (units_parse_number(arg, min, max, &value, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
    *number = (unsigned)value;
}

static void parse_chunk(struct argp_state *state, const char *arg, uint32_t *chunk)
{
    struct blk_error error;
    uint64_t value = 0;

    if (units_parse_size(arg, &value, &error) < 0)
        argp_error(state, "--request-size: %s", error.text);
    if (value == 0 || value % 4096 != 0 || value > COPY_MAX_CHUNK)
        argp_error(state, "--request-size: %s is no multiple of 4k between 4k and 16M", arg);
    *chunk = (uint32_t)value;
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
    if (command->show && command->quiet)
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
        parse_number(state, "-m", arg, 1, COPY_MAX_DEPTH, &o->depth);
        break;
    case 'W':
        command->any_order = true;
        break;
    case OPT_IN_ORDER:
        o->in_order = true;
        break;
    case OPT_LANES:
        parse_number(state, "--lanes", arg, 1, COPY_MAX_LANES, &o->lanes);
        break;
    case OPT_REQUEST_SIZE:
        parse_chunk(state, arg, &o->chunk);
        break;
    case OPT_OVERWRITE:
        o->overwrite = true;
        break;
    case 'n':
        o->in_place = true;
        break;
    case 'p':
        command->show = true;
        break;
    case 'q':
        command->quiet = true;
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

    if (important || !command->quiet)
        say("%s", text);
}

static void done(struct copy_job *job, void *opaque)
{
    (void)job;
    ((struct copy_command *)opaque)->ended = true;
}

static void out_of_patience(struct loop_timer *timer)
{
    struct copy_command *command = container_of(timer, struct copy_command, patience);

    say("interrupted; something does not let go, a temporary file may be left");
    _exit(EXIT_SIGNAL + command->signal);
}

static void on_stop(struct signals *signals, int number)
{
    struct copy_command *command = container_of(signals, struct copy_command, signals);

    switch (++command->signal_count) {
    case 1:
        command->signal = number;
        copy_stop(command->job);
        break;
    case 2:
        copy_abort(command->job);
        command->patience.fire = out_of_patience;
        loop_timer_set(command->loop, &command->patience, loop_now(command->loop) + LOOP_SECOND);
        break;
    default:
        out_of_patience(&command->patience);
    }
}

static void on_report(struct signals *signals)
{
    struct copy_command *command = container_of(signals, struct copy_command, signals);

    progress_report(command->loop, command->job, command->started);
}

static void summarise(const struct copy_command *command, const struct copy_result *result)
{
    uint64_t ns = loop_now(command->loop) - command->started;
    double seconds = (double)ns / 1e9;
    char bytes[UNITS_TEXT], speed[UNITS_TEXT];

    if (command->quiet || (!command->show && !isatty(STDERR_FILENO)))
        return;
    fprintf(stderr, "lunferry: copied %s in %.2f s (%s/s)\n", units_size(bytes, result->bytes),
            seconds, units_size(speed, (uint64_t)((double)result->bytes / seconds)));
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

    if (result->status == 0) {
        summarise(command, result);
        return EXIT_DONE;
    }
    say("%s; %s", interrupted ? "interrupted" : result->error.text, aftermath(result));
    if (interrupted)
        return EXIT_SIGNAL + command->signal;
    return result->touched ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
}

static int run(struct copy_command *command)
{
    struct progress *progress = NULL;
    int status;

    command->loop = loop_new();
    if (!command->loop) {
        say("no event loop: %s", strerror(errno));
        return EXIT_UNTOUCHED;
    }
    command->started = loop_now(command->loop);
    command->job = copy_start(command->loop, &command->options);
    if (!command->job) {
        say("out of memory");
        loop_free(command->loop);
        return EXIT_UNTOUCHED;
    }
    command->signals.stop = on_stop;
    command->signals.report = on_report;
    signals_start(&command->signals, command->loop);
    if (!command->quiet)
        progress = progress_start(command->loop, command->job, command->show);
    while (!command->ended)
        loop_turn(command->loop, LOOP_NEVER);
    progress_end(progress);
    signals_stop(&command->signals);
    loop_timer_cancel(command->loop, &command->patience);
    status = report(command, copy_result(command->job));
    copy_free(command->job);
    loop_free(command->loop);
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
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry copy";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    /* Both, so that both faults are told at once. */
    source_good = endpoint_parse(command.source_text, &command.source);
    target_good = endpoint_parse(command.target_text, &command.target);
    if (source_good && target_good) {
        command.options.source = &command.source;
        command.options.target = &command.target;
        status = run(&command);
    }
    url_release(&command.source);
    url_release(&command.target);
    return status;
}
