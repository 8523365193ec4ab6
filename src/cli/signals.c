/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "cli.h"

/* What a signal handler can reach has to be global. */
static struct loop *volatile wake;
static volatile sig_atomic_t stops, last_stop, reports;

static void handle(int number)
{
    int saved = errno;

    if (number == SIGUSR1) {
        reports = reports + 1;
    } else {
        last_stop = number;
        stops = stops + 1;
    }
    if (wake)
        loop_wake(wake);
    errno = saved;
}

static void prepare(struct loop_watch *watch, struct loop_interest *interest)
{
    (void)watch;
    if (stops || reports)
        interest->deadline = 0;
}

static void service(struct loop_watch *watch, short revents)
{
    struct signals *signals = container_of(watch, struct signals, watch);

    (void)revents;
    if (reports) {
        reports = 0;
        signals->report(signals);
    }
    while (stops > 0) {
        stops = stops - 1;
        signals->stop(signals, last_stop);
    }
}

void signals_start(struct signals *signals, struct loop *loop)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};

    signals->loop = loop;
    signals->watch.prepare = prepare;
    signals->watch.service = service;
    loop_watch(loop, &signals->watch);
    wake = loop;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

void signals_stop(struct signals *signals)
{
    wake = NULL;
    loop_unwatch(signals->loop, &signals->watch);
}
