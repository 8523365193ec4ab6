/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/compare.h>
#include <lunferry/units.h>

#include "cli.h"
#include "json_text.h"

enum { OPT_ALL = 0x100, OPT_STRICT, OPT_JSON, OPT_REQUEST_SIZE };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What counts:", 1},
    {"strict", OPT_STRICT, NULL, 0,
     "Endpoints of different sizes differ (otherwise they are the same if what only the longer one "
     "has is zeros)",
     1},
    {NULL, 0, NULL, 0, "How:", 2},
    {NULL, 'm', "N", 0,
     "Keep up to N chunks in flight, each read from both (8 to 64, by the measured round trip)", 2},
    {"request-size", OPT_REQUEST_SIZE, "SIZE", 0,
     "Bytes of one chunk, a multiple of 4k up to 16M (512k)", 2},
    {NULL, 0, NULL, 0, "What is shown:", 3},
    {"all", OPT_ALL, NULL, 0,
     "Do not end at the first difference; print the START and LENGTH of every range that differs, "
     "in "
     "bytes, a line each",
     3},
    {"json", OPT_JSON, NULL, 0,
     "Print the answer as a JSON object on one line; with --all, one for each range before it", 3},
    {NULL, 'p', NULL, 0, "Show progress and a summary even where stderr is no terminal", 3},
    {NULL, 'q', NULL, 0, "Show errors, and what --all and --json ask for, only", 3},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Reads A and B, neither of which is changed, and says whether they hold the same bytes, or "
    "else "
    "where the first difference is."
    "\v"
    "Endpoints are iscsi:// and nfs:// URLs, paths, null:SIZE, ram:SIZE and random:SIZE; "
    "`lunferry --help` shows their forms. With --all, differing bytes less than 512 bytes apart "
    "make "
    "one range.\n\n"
    "Exit status: 0 the same; 1 different; 2 one of them could not be opened, or usage; 3 reading "
    "failed before there was an answer; 130 and 143 interrupted. SIGUSR1 prints a line of "
    "progress.";

struct compare_command {
    struct run run;
    struct url urls[COMPARE_SIDES];
    const char *texts[COMPARE_SIDES];
    struct compare_options options;
    struct image_options images;
    bool json;
    struct compare_job *job;
    int signal;       /* the first one that came; 0: none */
    int output_error; /* errno of writing to stdout; 0: none */
};

/* ---- Options ---------------------------------------------------------------------------------- */

static void take_endpoint(struct compare_command *command, char *arg, struct argp_state *state)
{
    if (!command->texts[COMPARE_A])
        command->texts[COMPARE_A] = arg;
    else if (!command->texts[COMPARE_B])
        command->texts[COMPARE_B] = arg;
    else
        argp_error(state, "\"%s\" is one argument too many: only A and B", arg);
}

static void check_together(struct argp_state *state, const struct compare_command *command)
{
    if (!command->texts[COMPARE_B])
        argp_error(state, "two endpoints, A and B, are needed");
    if (command->run.show && command->run.quiet)
        argp_error(state, "-p and -q contradict each other");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct compare_command *command = state->input;
    struct compare_options *o = &command->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->settings;
        state->child_inputs[1] = &command->images;
        break;
    case 'm':
        option_number(state, "-m", arg, 1, COMPARE_MAX_DEPTH, &o->depth);
        break;
    case OPT_REQUEST_SIZE:
        option_chunk(state, "--request-size", arg, &o->chunk);
        break;
    case OPT_ALL:
        o->all = true;
        break;
    case OPT_STRICT:
        o->strict = true;
        break;
    case OPT_JSON:
        command->json = true;
        break;
    case 'p':
        command->run.show = true;
        break;
    case 'q':
        command->run.quiet = true;
        break;
    case ARGP_KEY_ARG:
        take_endpoint(command, arg, state);
        break;
    case ARGP_KEY_END:
        check_together(state, command);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {
    {&session_argp, 0, NULL, 10}, {&image_pair_argp, 0, NULL, 5}, {0}};
static const struct argp argp = {options, parse, "A B", doc, children, NULL, NULL};

/* ---- JSON ------------------------------------------------------------------------------------- */

static json_t *json_byte(int byte)
{
    return byte == COMPARE_NO_BYTE ? json_null() : json_integer(byte);
}

/* A line; takes the object over. */
static void print_object(struct compare_command *command, json_t *object)
{
    if (!object || json_dumpf(object, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        if (command->output_error == 0)
            command->output_error = !object ? ENOMEM : errno ? errno : EIO;
    }
    json_decref(object);
}

static json_t *json_end(const struct compare_command *command, const struct compare_result *result,
                        enum compare_side side)
{
    return json_pack("{s:o, s:o}", "endpoint", json_text(command->urls[side].text), "size",
                     result->opened ? json_integer((json_int_t)result->size[side]) : json_null());
}

static void print_json(struct compare_command *command, const struct compare_result *result)
{
    bool answered = result->status == 0;
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:I}", "same", answered ? json_boolean(!result->different) : json_null(),
        "a", json_end(command, result, COMPARE_A), "b", json_end(command, result, COMPARE_B),
        "compared", (json_int_t)result->bytes);

    if (object && result->different && !result->sizes)
        json_object_set_new(object, "first",
                            json_pack("{s:I, s:o, s:o}", "offset", (json_int_t)result->offset, "a",
                                      json_byte(result->byte[COMPARE_A]), "b",
                                      json_byte(result->byte[COMPARE_B])));
    if (object && command->options.all) {
        json_object_set_new(object, "ranges", json_integer((json_int_t)result->ranges));
        json_object_set_new(object, "range-bytes", json_integer((json_int_t)result->range_bytes));
    }
    if (object && !answered)
        json_object_set_new(object, "error", json_text(result->error.text));
    print_object(command, object);
}

/* ---- What is told ----------------------------------------------------------------------------- */

static void range(void *opaque, uint64_t offset, uint64_t len)
{
    struct compare_command *command = opaque;

    if (command->output_error)
        return;
    errno = 0;
    /* The bar, if there is one, is drawn anew below. */
    if (isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (command->json)
        print_object(command, json_pack("{s:I, s:I}", "start", (json_int_t)offset, "length",
                                        (json_int_t)len));
    else if (printf("%" PRIu64 " %" PRIu64 "\n", offset, len) < 0)
        command->output_error = errno ? errno : EIO;
    /* The list is all that was wanted. */
    if (command->output_error)
        compare_stop(command->job);
}

static const char *byte_text(char text[48], int byte, uint64_t size)
{
    if (byte == COMPARE_NO_BYTE)
        snprintf(text, 48, "ends after %" PRIu64 " bytes", size);
    else
        snprintf(text, 48, "has 0x%02x", (unsigned)byte);
    return text;
}

static void describe_difference(char *text, size_t len, const struct compare_command *command,
                                const struct compare_result *result)
{
    char a[48], b[48], count[100] = "";

    if (result->sizes) {
        snprintf(text, len, "different sizes: A has %" PRIu64 " bytes, B has %" PRIu64,
                 result->size[COMPARE_A], result->size[COMPARE_B]);
        return;
    }
    if (command->options.all)
        snprintf(count, sizeof(count), "%" PRIu64 " range%s, %" PRIu64 " bytes; the first ",
                 result->ranges, result->ranges == 1 ? "" : "s", result->range_bytes);
    snprintf(text, len, "different: %sat offset %" PRIu64 ", where A %s and B %s", count,
             result->offset, byte_text(a, result->byte[COMPARE_A], result->size[COMPARE_A]),
             byte_text(b, result->byte[COMPARE_B], result->size[COMPARE_B]));
}

static void describe_same(char *text, size_t len, const struct compare_result *result)
{
    uint64_t a = result->size[COMPARE_A], b = result->size[COMPARE_B];

    if (a == b)
        snprintf(text, len, "the same: %" PRIu64 " bytes", a);
    else
        snprintf(text, len,
                 "the same: %" PRIu64 " bytes; %" PRIu64 " more, which only %s has, are "
                 "zeros",
                 min_u64(a, b), a > b ? a - b : b - a, a > b ? "A" : "B");
}

/* On stdout, unless that is for the list. */
static void print_answer(const struct compare_command *command, const struct compare_result *result)
{
    char text[300];

    if (command->run.quiet)
        return;
    if (result->different)
        describe_difference(text, sizeof(text), command, result);
    else
        describe_same(text, sizeof(text), result);
    if (command->options.all)
        say("%s", text);
    else
        puts(text);
}

static void summarise(const struct compare_command *command, const struct compare_result *result)
{
    double seconds = (double)(loop_now(command->run.loop) - command->run.started) / 1e9;
    char bytes[UNITS_TEXT], speed[UNITS_TEXT];

    if (command->run.quiet || (!command->run.show && !isatty(STDERR_FILENO)))
        return;
    say("compared %s in %.2f s (%s/s from each)", units_size(bytes, result->bytes), seconds,
        units_size(speed, (uint64_t)((double)result->bytes / seconds)));
}

static int report(struct compare_command *command, const struct compare_result *result)
{
    bool interrupted = command->signal && result->error.code == ECANCELED;

    errno = 0;
    if (command->json && !command->output_error)
        print_json(command, result);
    else if (result->status == 0)
        print_answer(command, result);
    if ((fflush(stdout) != 0 || ferror(stdout)) && !command->output_error)
        command->output_error = errno ? errno : EIO;
    if (command->output_error) {
        say("writing to stdout failed: %s", strerror(command->output_error));
        return EXIT_INCOMPLETE;
    }
    if (result->status < 0) {
        say("%s", interrupted ? "interrupted" : result->error.text);
        if (interrupted)
            return EXIT_SIGNAL + command->signal;
        return result->opened ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
    }
    summarise(command, result);
    return result->different ? EXIT_DIFFERENT : EXIT_DONE;
}

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct compare_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void done(struct compare_job *job, void *opaque)
{
    (void)job;
    ((struct compare_command *)opaque)->run.ended = true;
}

static void look(const void *job, struct progress_now *now)
{
    static const char *const phases[] = {"opening both ends", "comparing", "closing", "closing"};
    struct compare_progress progress;

    compare_progress(job, &progress);
    now->phase = phases[progress.phase];
    now->total = progress.total;
    now->done = progress.done;
    now->moved = false;
    snprintf(now->requests, sizeof(now->requests), "reads %u", progress.reading);
}

/* Nothing is left behind: the second one may end it at once. */
static void on_stop(struct run *run, int number)
{
    struct compare_command *command = container_of(run, struct compare_command, run);

    if (command->signal)
        _Exit(EXIT_SIGNAL + command->signal);
    command->signal = number;
    compare_stop(command->job);
}

static int run(struct compare_command *command)
{
    int status;

    if (!run_open(&command->run))
        return EXIT_UNTOUCHED;
    command->job = compare_start(command->run.loop, &command->options);
    if (!command->job) {
        say("out of memory");
        loop_free(command->run.loop);
        return EXIT_UNTOUCHED;
    }
    command->run.shown = (struct progress_source){look, command->job};
    command->run.stop = on_stop;
    run_until_ended(&command->run);
    status = report(command, compare_result(command->job));
    compare_free(command->job);
    loop_free(command->run.loop);
    return status;
}

int cmd_compare(int argc, char **argv)
{
    struct compare_command command = {
        .options =
            {
                .chunk = COMPARE_DEFAULT_CHUNK,
                .range = range,
                .notice = notice,
                .done = done,
                .opaque = &command,
            },
    };
    int status = EXIT_UNTOUCHED;
    bool good = true;

    settings_init(&command.options.settings);
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry compare";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    /* Both, so that both faults are told at once. */
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        good &= endpoint_parse(command.texts[side], &command.urls[side]);
        command.options.urls[side] = &command.urls[side];
        command.options.images[side] = command.images.choices[side];
    }
    if (good)
        status = run(&command);
    for (unsigned side = 0; side < COMPARE_SIDES; side++)
        url_release(&command.urls[side]);
    image_options_release(&command.images);
    return status;
}
