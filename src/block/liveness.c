/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dead-session rule; include/lunferry/driver.h tells it. */
#include <lunferry/driver.h>

#include <linux/tcp.h> /* glibc's netinet/tcp.h ends before tcpi_bytes_acked */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* Has a byte moved since the last look? A connection that was replaced counts as movement. */
static bool moved(struct liveness *live)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    int fd = live->fd(live);
    bool changed;

    memset(&info, 0, sizeof(info));
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return false;
    changed = info.tcpi_bytes_acked != live->acked || info.tcpi_bytes_received != live->received;
    live->acked = info.tcpi_bytes_acked;
    live->received = info.tcpi_bytes_received;
    return changed;
}

static void look(struct loop_timer *timer)
{
    struct liveness *live = container_of(timer, struct liveness, timer);
    uint64_t now = loop_now(live->loop);

    if (moved(live) || !live->busy(live))
        live->quiet_since = now;
    if (now - live->quiet_since >= live->timeout) {
        live->dead(live);
        return;
    }
    loop_timer_set(live->loop, timer, now + live->timeout / 3);
    if (now > live->quiet_since)
        live->ping(live);
}

void liveness_start(struct liveness *live)
{
    uint64_t now = loop_now(live->loop);

    live->timer.fire = look;
    live->quiet_since = now;
    live->acked = live->received = 0;
    loop_timer_set(live->loop, &live->timer, now + live->timeout / 3);
}

void liveness_stop(struct liveness *live)
{
    loop_timer_cancel(live->loop, &live->timer);
}
