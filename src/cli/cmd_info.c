/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "info_report.h"

enum { OPT_JSON = 0x100 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is shown:", 1},
    {"json", OPT_JSON, NULL, 0,
     "Print a JSON object: the same facts by their keys, bytes as numbers, and what is behind the "
     "image as an object in `backing'",
     1},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] = "Opens ENDPOINT for reading, says what it is and what was negotiated, "
                          "and closes it. Of a qcow2 "
                          "image, the whole backing chain.";

struct info_command {
    struct url url;
    const char *text;
    struct blk_settings settings;
    struct image_options images;
    bool json;
    struct loop *loop;
    struct signals signals;
    struct image image;
    struct blk_dev *dev; /* of the image, once it is open */
    struct blk_task task;
    bool ended;
    int signal;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct info_command *command = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &command->settings;
        state->child_inputs[1] = &command->images;
        return 0;
    case OPT_JSON:
        command->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (command->text)
            argp_error(state, "\"%s\" is one argument too many: only ENDPOINT", arg);
        command->text = arg;
        return 0;
    case ARGP_KEY_END:
        if (!command->text)
            argp_error(state, "an ENDPOINT is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&session_argp, 0, NULL, 10}, {&image_argp, 0, NULL, 5}, {0}};
static const struct argp argp = {options, parse, "ENDPOINT", doc, children, NULL, NULL};

static void opened(struct image *image, int status)
{
    struct info_command *command = image->opaque;

    (void)status;
    command->dev = image->dev;
    command->ended = true;
}

static void closed(struct blk_task *task)
{
    ((struct info_command *)task->opaque)->ended = true;
}

static void on_stop(struct signals *signals, int number)
{
    struct info_command *command = container_of(signals, struct info_command, signals);

    if (command->signal)
        _Exit(EXIT_SIGNAL + command->signal);
    command->signal = number;
    image_cancel(&command->image);
}

static void on_report(struct signals *signals)
{
    (void)signals;
}

static void wait_for(struct info_command *command)
{
    while (!command->ended)
        loop_turn(command->loop, LOOP_NEVER);
    command->ended = false;
}

static void close_image(struct info_command *command)
{
    if (command->dev) {
        command->task = (struct blk_task){.done = closed, .opaque = command};
        blk_close(command->dev, &command->task);
        wait_for(command);
    }
    image_release(&command->image);
}

static int report(struct info_command *command)
{
    int error = 0;

    if (command->dev) {
        error = info_report(&command->image, command->json);
    } else {
        say("%s", command->image.error.text);
        return command->signal ? EXIT_SIGNAL + command->signal : EXIT_UNTOUCHED;
    }
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && !error)
        error = errno ? errno : EIO;
    if (!error)
        return EXIT_DONE;
    say("writing to stdout failed: %s", strerror(error));
    return EXIT_UNTOUCHED;
}

static int run(struct info_command *command)
{
    int status;

    command->loop = loop_new();
    if (!command->loop) {
        say("out of memory");
        return EXIT_UNTOUCHED;
    }
    command->image = (struct image){
        .loop = command->loop,
        .args =
            {
                .url = &command->url,
                .choice = command->images.choices[0],
                .settings = &command->settings,
            },
        .done = opened,
        .opaque = command,
    };
    image_open(&command->image);
    command->signals.stop = on_stop;
    command->signals.report = on_report;
    signals_start(&command->signals, command->loop);
    wait_for(command);
    status = report(command);
    close_image(command);
    signals_stop(&command->signals);
    loop_free(command->loop);
    return status;
}

int cmd_info(int argc, char **argv)
{
    struct info_command command = {0};
    int status = EXIT_UNTOUCHED;

    settings_init(&command.settings);
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry info";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    if (endpoint_parse(command.text, &command.url))
        status = run(&command);
    url_release(&command.url);
    image_options_release(&command.images);
    return status;
}
