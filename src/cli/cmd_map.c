/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/map.h>
#include <lunferry/units.h>

#include "cli.h"

enum { OPT_JSON = 0x100 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is shown:", 1},
    {"json", OPT_JSON, NULL, 0,
     "Print a JSON array instead of the table, one object on a line for each range: start, length, "
     "depth, present, zero, data, compressed and, where it is known, offset as `qemu-img map' "
     "prints "
     "them, and kind (\"data\" or \"zeros\")",
     1},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Says where ENDPOINT has data and where it reads as zeros, without reading any of it. Nothing "
    "is changed."
    "\v"
    "ENDPOINT is an iscsi:// or nfs:// URL, a path, null:SIZE, ram:SIZE or random:SIZE; "
    "`lunferry --help` shows their forms. START and LENGTH are bytes. Of a qcow2 image, DEPTH is "
    "0 for what is in it, 1 for what is in its backing image, and so on, and OFFSET where it lies "
    "in that one's file; what is in none of them has no DEPTH. Whatever is not known to be "
    "zeros counts as data; an endpoint that does not tell has data everywhere, and stderr says "
    "so.\n\n"
    "Exit status: 0 done; 2 it could not be opened, or usage; 3 the map is not complete, and a "
    "JSON array does not end; 130 and 143 interrupted.";

struct map_command {
    struct run run;
    struct url url;
    const char *text;
    struct map_options options;
    struct image_options images;
    bool json;
    struct map_job *job;
    uint64_t lines;   /* ranges that were printed */
    int signal;       /* the first one that came; 0: none */
    int output_error; /* errno of writing to stdout; 0: none */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct map_command *command = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &command->options.settings;
        state->child_inputs[1] = &command->images;
        break;
    case OPT_JSON:
        command->json = true;
        break;
    case ARGP_KEY_ARG:
        if (command->text)
            argp_error(state, "\"%s\" is one argument too many: only ENDPOINT", arg);
        command->text = arg;
        break;
    case ARGP_KEY_END:
        if (!command->text)
            argp_error(state, "an ENDPOINT is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {
    {&session_argp, 0, NULL, 10}, {&image_argp, 0, NULL, 5}, {0}};
static const struct argp argp = {options, parse, "ENDPOINT", doc, children, NULL, NULL};

/* ---- What is printed -------------------------------------------------------------------------- */

static void print(struct map_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void print(struct map_command *command, const char *format, ...)
{
    va_list args;

    if (command->output_error)
        return;
    errno = 0;
    va_start(args, format);
    if (vprintf(format, args) < 0)
        command->output_error = errno ? errno : EIO;
    va_end(args);
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

/* Numbers and words of ours: nothing in it needs to be escaped. */
static void print_object(struct map_command *command, const struct map_run *run)
{
    print(command,
          "%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, "
          "\"zero\": %s, \"data\": %s, \"compressed\": %s, ",
          command->lines == 0 ? "[" : ",\n", run->offset, run->len, run->depth,
          truth(run->allocated), truth(run->zeros), truth(!run->zeros), truth(run->compressed));
    if (run->host_offset != BLK_NO_OFFSET)
        print(command, "\"offset\": %" PRIu64 ", ", run->host_offset);
    print(command, "\"kind\": \"%s\"}", run->zeros ? "zeros" : "data");
}

static void print_row(struct map_command *command, const struct map_run *run)
{
    bool layered = map_result(command->job)->format != IMAGE_RAW;
    char size[UNITS_TEXT], depth[16] = "-", offset[24] = "-";

    if (command->lines == 0)
        print(command, "%20s %20s %11s%s  %s\n", "START", "LENGTH", "SIZE",
              layered ? "  DEPTH               OFFSET" : "", "KIND");
    print(command, "%20" PRIu64 " %20" PRIu64 " %11s", run->offset, run->len,
          units_size(size, run->len));
    if (layered) {
        if (run->allocated)
            snprintf(depth, sizeof(depth), "%u", run->depth);
        if (run->host_offset != BLK_NO_OFFSET)
            snprintf(offset, sizeof(offset), "%" PRIu64, run->host_offset);
        else if (run->compressed)
            snprintf(offset, sizeof(offset), "compressed");
        print(command, "  %5s %20s", depth, offset);
    }
    print(command, "  %s\n", run->zeros ? "zeros" : "data");
}

static void on_run(void *opaque, const struct map_run *run)
{
    struct map_command *command = opaque;

    if (command->output_error)
        return;
    /* The phase, if it is shown, is drawn anew below. */
    if (isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (command->json)
        print_object(command, run);
    else
        print_row(command, run);
    command->lines++;
    /* The list is all that was wanted. */
    if (command->output_error)
        map_stop(command->job);
}

static void print_total(struct map_command *command, const char *kind,
                        const struct map_total *total, const char *end)
{
    char size[UNITS_TEXT];

    print(command, "%s: %" PRIu64 " bytes (%s) in %" PRIu64 " range%s%s", kind, total->bytes,
          units_size(size, total->bytes), total->runs, total->runs == 1 ? "" : "s", end);
}

/* What follows the ranges of a map that is complete. */
static void print_end(struct map_command *command, const struct map_result *result)
{
    if (command->json) {
        print(command, "%s]\n", command->lines == 0 ? "[" : "");
        return;
    }
    print_total(command, "data", &result->data, "; ");
    print_total(command, "zeros", &result->zeros, "\n");
}

static void explain(const struct map_command *command, const struct map_result *result)
{
    char holes[120] = "";

    if (result->tells || result->size == 0)
        return;
    if (result->used < result->size)
        snprintf(holes, sizeof(holes),
                 ", although it takes only %" PRIu64 " bytes: it is sparse, or compressed",
                 result->used);
    say("%s does not tell where its data is: %s of it counts as data%s", command->url.text,
        result->zeros.bytes > 0 ? "the rest" : "all", holes);
}

static int report(struct map_command *command, const struct map_result *result)
{
    bool interrupted = command->signal && result->error.code == ECANCELED;

    if (result->status == 0)
        print_end(command, result);
    errno = 0;
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
    explain(command, result);
    return EXIT_DONE;
}

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct map_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void done(struct map_job *job, void *opaque)
{
    (void)job;
    ((struct map_command *)opaque)->run.ended = true;
}

/* Extents come at no speed that would tell when they end. */
static void look(const void *job, struct progress_now *now)
{
    static const char *const phases[] = {"opening", "asking where the data is", "closing",
                                         "closing"};

    *now = (struct progress_now){.phase = phases[map_phase(job)]};
}

/* Nothing is left behind: the second one may end it at once. */
static void on_stop(struct run *run, int number)
{
    struct map_command *command = container_of(run, struct map_command, run);

    if (command->signal)
        _Exit(EXIT_SIGNAL + command->signal);
    command->signal = number;
    map_stop(command->job);
}

static int run(struct map_command *command)
{
    int status;

    if (!run_open(&command->run))
        return EXIT_UNTOUCHED;
    command->job = map_start(command->run.loop, &command->options);
    if (!command->job) {
        say("out of memory");
        loop_free(command->run.loop);
        return EXIT_UNTOUCHED;
    }
    command->run.shown = (struct progress_source){look, command->job};
    command->run.stop = on_stop;
    run_until_ended(&command->run);
    status = report(command, map_result(command->job));
    map_free(command->job);
    loop_free(command->run.loop);
    return status;
}

int cmd_map(int argc, char **argv)
{
    struct map_command command = {
        .options =
            {
                .run = on_run,
                .notice = notice,
                .done = done,
                .opaque = &command,
            },
    };
    int status = EXIT_UNTOUCHED;

    settings_init(&command.options.settings);
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry map";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    command.options.url = &command.url;
    command.options.image = command.images.choices[0];
    if (endpoint_parse(command.text, &command.url))
        status = run(&command);
    url_release(&command.url);
    image_options_release(&command.images);
    return status;
}
