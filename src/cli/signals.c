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
    if (stops != container_of(watch, struct signals, watch)->served || reports)
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
    /* Only the handler writes `stops`. */
    while (signals->served != stops) {
        signals->served++;
        signals->stop(signals, last_stop);
    }
}

/* What was ignored when the program began stays ignored: nohup, a shell's background job. */
static void catch (int number)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART}, before;

    sigemptyset(&action.sa_mask);
    sigaction(number, NULL, &before);
    if (before.sa_handler != SIG_IGN)
        sigaction(number, &action, NULL);
}

void signals_start(struct signals *signals, struct loop *loop)
{
    signals->loop = loop;
    signals->watch.prepare = prepare;
    signals->watch.service = service;
    loop_watch(loop, &signals->watch);
    wake = loop;
    signals->served = 0;
    catch (SIGINT);
    catch (SIGTERM);
    catch (SIGHUP);
    catch (SIGUSR1);
}

void signals_stop(struct signals *signals)
{
    wake = NULL;
    loop_unwatch(signals->loop, &signals->watch);
}
