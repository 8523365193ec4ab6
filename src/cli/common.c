/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the subcommands share: messages, endpoints, session options. */
#include <argp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <lunferry/driver.h>
#include <lunferry/units.h>

#include "cli.h"

#define DEFAULT_TIMEOUT (30 * LOOP_SECOND)

void make_printable(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
    }
}

void say(const char *format, ...)
{
    char text[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    make_printable(text);
    /* The bar, if there is one, is drawn anew below. */
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    fprintf(stderr, "lunferry: %s\n", text);
}

bool endpoint_parse(const char *text, struct url *url)
{
    struct blk_error error;

    if (url_parse(text, url, &error) < 0 || blk_check_url(url, &error) < 0) {
        say("%s", error.text);
        return false;
    }
    return true;
}

void endpoint_print_syntax(const struct blk_driver *driver)
{
    printf("  %s\n", driver->syntax);
    for (const struct url_option *option = driver->options; option && option->name; option++)
        printf("      %s=%s\n", option->name, option->help);
}

enum { OPT_TIMEOUT = 0x200, OPT_INITIATOR };

static const struct argp_option session_options[] = {
    {"timeout", OPT_TIMEOUT, "S", 0,
     "A connection on which nothing moved for S seconds is dead (30)", 10},
    {"initiator-name", OPT_INITIATOR, "IQN", 0,
     "iSCSI initiator name (InitiatorName in /etc/iscsi/initiatorname.iscsi, else made from the "
     "machine id)",
     10},
    {0},
};

static error_t parse_session(int key, char *arg, struct argp_state *state)
{
    struct blk_settings *settings = state->input;
    struct blk_error error;

    switch (key) {
    case OPT_TIMEOUT:
        if (units_parse_seconds(arg, &settings->timeout, &error) < 0)
            argp_error(state, "--timeout: %s", error.text);
        return 0;
    case OPT_INITIATOR:
        settings->initiator_name = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp session_argp = {session_options, parse_session, NULL, NULL, NULL, NULL, NULL};

void settings_init(struct blk_settings *settings)
{
    *settings = (struct blk_settings){.timeout = DEFAULT_TIMEOUT};
}
