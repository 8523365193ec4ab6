/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"copy", cmd_copy, "copy an image from one endpoint to another"},
    {"compare", cmd_compare, "say whether two endpoints hold the same bytes"},
    {"checksum", cmd_checksum, "take one digest of an endpoint, or check it by a digest file"},
    {"map", cmd_map, "say where an endpoint has data and where it has zeros"},
    {"measure", cmd_measure, "say how long the file of a new image would be"},
    {"info", cmd_info, "open an endpoint and tell what was negotiated"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
    size_t count;
    const struct blk_driver *const *drivers;

    printf("lunferry copies disk images between NFS servers, iSCSI LUNs and local files, in user "
           "space.\n\nUsage: lunferry COMMAND [OPTION...] ENDPOINT...\n\nCommands:\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    printf("\nEndpoints:\n");
    drivers = blk_drivers(&count);
    for (size_t i = 0; i < count; i++)
        endpoint_print_syntax(drivers[i]);
    printf(
        "\n`lunferry COMMAND --help` tells a command's options. Exit status: 0 done; 1 compare or "
        "checksum\nfound a difference; 2 nothing was touched (usage, a refusal, an endpoint that "
        "does not "
        "open);\n3 failed after writing began, or in the middle of reading; 5 done, but for what "
        "the "
        "source\nhas lost (--salvage); 130 and 143 interrupted.\n");
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* A descriptor that is closed is taken by the next file that is opened: what is written to stdout would
 * go there. What stands in for it can be used for nothing. */
static void hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return;
    }
}

int main(int argc, char **argv)
{
    const struct command *command;
    int status;

    hold_standard_descriptors();
    arguments_hide(argc, argv);
    /* A server that goes away, or a file that must not grow, is an error of the requests that meet
     * it, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0 ||
                      strcmp(argv[1], "help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help();
        return EXIT_DONE;
    }
    if (argc >= 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        printf("lunferry %s\n", LUNFERRY_VERSION);
        return EXIT_DONE;
    }
    command = argc >= 2 ? find(argv[1]) : NULL;
    if (!command) {
        if (argc >= 2)
            say("there is no command \"%s\"; `lunferry --help` lists them", argv[1]);
        else
            say("no command given; `lunferry --help` lists them");
        return EXIT_UNTOUCHED;
    }
    status = command->run(argc - 1, argv + 1);
    arguments_forget();
    return status;
}
