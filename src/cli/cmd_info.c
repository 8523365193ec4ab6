/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const char doc[] =
    "Opens ENDPOINT for reading, says what it is and what was negotiated, and closes it.";

struct info_command {
    struct url url;
    const char *text;
    struct blk_settings settings;
    struct loop *loop;
    struct signals signals;
    struct blk_dev *dev;
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

static const struct argp_child children[] = {{&session_argp, 0, NULL, 10}, {0}};
static const struct argp argp = {NULL, parse, "ENDPOINT", doc, children, NULL, NULL};

static void print_fact(struct blk_report *report, const char *key, const char *label,
                       const char *value)
{
    char text[512];

    (void)report;
    (void)key;
    snprintf(text, sizeof(text), "%s", value);
    make_printable(text);
    printf("%-22s %s\n", label, text);
}

static void task_done(struct blk_task *task)
{
    ((struct info_command *)task->opaque)->ended = true;
}

static void on_stop(struct signals *signals, int number)
{
    struct info_command *command = container_of(signals, struct info_command, signals);

    if (command->signal)
        _Exit(EXIT_SIGNAL + command->signal);
    command->signal = number;
    if (command->dev)
        blk_cancel_all(command->dev);
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

static int run(struct info_command *command)
{
    struct blk_open_args args = {.url = &command->url, .settings = &command->settings};
    struct blk_report report = {.fact = print_fact};
    struct blk_dev *dev;
    int status = EXIT_DONE;

    command->loop = loop_new();
    command->task = (struct blk_task){.done = task_done, .opaque = command};
    command->dev = command->loop ? blk_open(command->loop, &args, &command->task) : NULL;
    if (!command->dev) {
        say("out of memory");
        loop_free(command->loop);
        return EXIT_UNTOUCHED;
    }
    command->signals.stop = on_stop;
    command->signals.report = on_report;
    signals_start(&command->signals, command->loop);
    wait_for(command);
    if (command->task.status == 0) {
        blk_describe(command->dev, &report);
    } else {
        say("%s", command->task.error.text);
        status = command->signal ? EXIT_SIGNAL + command->signal : EXIT_UNTOUCHED;
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        say("writing to stdout failed: %s", strerror(errno));
        status = EXIT_UNTOUCHED;
    }
    dev = command->dev;
    command->dev = NULL; /* a signal has nothing to cancel any more */
    blk_close(dev, &command->task);
    wait_for(command);
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
    return status;
}
