/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/map.h>
#include <lunferry/measure.h>
#include <lunferry/units.h>

#include "cli.h"

enum { OPT_JSON = 0x100 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is shown:", 1},
    {"json", OPT_JSON, NULL, 0,
     "Print a JSON object: required and fully-allocated, in bytes, as `qemu-img measure' prints "
     "them",
     1},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Says how long the file of a new image with the contents of SOURCE would be, without reading "
    "any "
    "of its data. Nothing is changed."
    "\v"
    "SOURCE is an iscsi:// or nfs:// URL, a path, null:SIZE, ram:SIZE or random:SIZE; "
    "`lunferry --help` shows their forms. The required size is what the data takes that `lunferry "
    "map' shows, in whole clusters, with all metadata; the fully allocated size is what the image "
    "can grow to. What is found only by reading counts as data: zeros in the data, what -c "
    "saves, and what BASE of -B has already. A source that does not tell where its data is has "
    "data everywhere, and stderr says so.\n\n"
    "Exit status: 0 done; 2 it could not be opened, or no such image can be made, or usage; 3 the "
    "source did not tell to the end; 130 and 143 interrupted.";

struct measure_command {
    struct run run;
    struct url url;
    const char *text;
    struct map_options options;
    struct image_options images;
    struct target_options target;
    bool json;
    struct map_job *job;
    struct measure measure;
    bool started;           /* `measure` is */
    struct blk_error error; /* why it could not be */
    int signal;             /* the first one that came; 0: none */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct measure_command *command = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &command->options.settings;
        state->child_inputs[1] = &command->images;
        state->child_inputs[2] = &command->target;
        break;
    case OPT_JSON:
        command->json = true;
        break;
    case ARGP_KEY_ARG:
        if (command->text)
            argp_error(state, "\"%s\" is one argument too many: only SOURCE", arg);
        command->text = arg;
        break;
    case ARGP_KEY_END:
        if (!command->text)
            argp_error(state, "a SOURCE is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {
    {&session_argp, 0, NULL, 10}, {&image_argp, 0, NULL, 5}, {&target_argp, 0, NULL, 6}, {0}};
static const struct argp argp = {options, parse, "SOURCE", doc, children, NULL, NULL};

/* ---- What is printed -------------------------------------------------------------------------- */

/* Once the size is known. False: there is no such image; command->error says why. */
static bool start(struct measure_command *command)
{
    if (!command->started && command->error.code == 0)
        command->started = measure_start(&command->measure, &command->target.layout,
                                         map_result(command->job)->size, &command->error) == 0;
    return command->started;
}

static void on_run(void *opaque, const struct map_run *run)
{
    struct measure_command *command = opaque;

    if (!start(command))
        map_stop(command->job);
    else if (!run->zeros)
        measure_data(&command->measure, run->offset, run->len);
}

static void print(const struct measure_command *command)
{
    struct measure_result result;
    char required[UNITS_TEXT], full[UNITS_TEXT];

    measure_end(&command->measure, &result);
    if (command->json)
        printf("{\"required\": %" PRIu64 ", \"fully-allocated\": %" PRIu64 "}\n", result.required,
               result.fully_allocated);
    else
        printf("required size: %" PRIu64 " (%s)\nfully allocated size: %" PRIu64 " (%s)\n",
               result.required, units_size(required, result.required), result.fully_allocated,
               units_size(full, result.fully_allocated));
}

static void explain(const struct measure_command *command, const struct map_result *result)
{
    const struct image_layout *layout = &command->target.layout;

    if (layout->format == IMAGE_RAW)
        return;
    if (!result->tells && result->size > 0)
        say("%s does not tell where its data is: %s of it counts as data", command->url.text,
            result->zeros.bytes > 0 ? "the rest" : "all");
    if (layout->compress)
        say("what -c saves is not known before it is done: this is without it, and the most that "
            "it "
            "can be");
    if (layout->backing)
        say("what %s has already is not known before it is read: this is without it, and the most "
            "that it can be",
            layout->backing);
}

static int report(struct measure_command *command, const struct map_result *result)
{
    if (result->opened && !start(command)) {
        say("%s", command->error.text);
        return EXIT_UNTOUCHED;
    }
    if (result->status < 0) {
        bool interrupted = command->signal && result->error.code == ECANCELED;

        say("%s", interrupted ? "interrupted" : result->error.text);
        if (interrupted)
            return EXIT_SIGNAL + command->signal;
        return result->opened ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
    }
    errno = 0;
    print(command);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        say("writing to stdout failed: %s", strerror(errno ? errno : EIO));
        return EXIT_INCOMPLETE;
    }
    explain(command, result);
    return EXIT_DONE;
}

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct measure_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void done(struct map_job *job, void *opaque)
{
    (void)job;
    ((struct measure_command *)opaque)->run.ended = true;
}

static void look(const void *job, struct progress_now *now)
{
    static const char *const phases[] = {"opening", "asking where the data is", "closing",
                                         "closing"};

    *now = (struct progress_now){.phase = phases[map_phase(job)]};
}

/* Nothing is left behind: the second one may end it at once. */
static void on_stop(struct run *run, int number)
{
    struct measure_command *command = container_of(run, struct measure_command, run);

    if (command->signal)
        _Exit(EXIT_SIGNAL + command->signal);
    command->signal = number;
    map_stop(command->job);
}

static int run(struct measure_command *command)
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

int cmd_measure(int argc, char **argv)
{
    struct measure_command command = {
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
    argv[0] = (char *)(uintptr_t) "lunferry measure";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    command.options.url = &command.url;
    command.options.image = command.images.choices[0];
    if (endpoint_parse(command.text, &command.url) &&
        target_options_complete(&command.target, NULL))
        status = run(&command);
    url_release(&command.url);
    image_options_release(&command.images);
    return status;
}
