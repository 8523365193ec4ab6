/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "cli.h"

static void on_stop(struct signals *signals, int number)
{
    struct run *run = container_of(signals, struct run, signals);

    run->stop(run, number);
}

static void on_report(struct signals *signals)
{
    struct run *run = container_of(signals, struct run, signals);

    progress_report(run->loop, &run->shown, run->started);
}

bool run_open(struct run *run)
{
    run->loop = loop_new();
    if (!run->loop) {
        say("no event loop: %s", strerror(errno));
        return false;
    }
    run->started = loop_now(run->loop);
    return true;
}

void run_until_ended(struct run *run)
{
    struct progress *progress = NULL;

    run->signals.stop = on_stop;
    run->signals.report = on_report;
    signals_start(&run->signals, run->loop);
    if (!run->quiet)
        progress = progress_start(run->loop, &run->shown, run->show);
    while (!run->ended)
        loop_turn(run->loop, LOOP_NEVER);
    progress_end(progress);
    signals_stop(&run->signals);
}

void run_notice(const struct run *run, bool important, const char *text)
{
    if (important || !run->quiet)
        say("%s", text);
}
