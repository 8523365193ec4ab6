/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/driver.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

static struct resolve *from_work(struct loop_work *work)
{
    return container_of(work, struct resolve, work);
}

static bool is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    /* A zone id ("fe80::1%eth0") is getaddrinfo's business. */
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static size_t count_addresses(const struct addrinfo *list)
{
    size_t count = 0;

    for (; list; list = list->ai_next)
        count++;
    return count;
}

static void look_up(struct loop_work *work)
{
    struct resolve *resolve = from_work(work);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;

    resolve->gai_error = getaddrinfo(resolve->host, NULL, &hints, &list);
    if (resolve->gai_error != 0)
        return;
    resolve->addresses = calloc(count_addresses(list) + 1, sizeof(*resolve->addresses));
    for (const struct addrinfo *ai = list; ai && resolve->addresses; ai = ai->ai_next) {
        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, resolve->addresses[resolve->count],
                        sizeof(*resolve->addresses), NULL, 0, NI_NUMERICHOST) == 0)
            resolve->count++;
    }
    freeaddrinfo(list);
}

static void looked_up(struct loop_work *work)
{
    struct resolve *resolve = from_work(work);

    if (resolve->gai_error != 0)
        resolve->status =
            blk_error_set(&resolve->error, EHOSTUNREACH, "the name \"%s\" does not resolve: %s",
                          resolve->host, gai_strerror(resolve->gai_error));
    else if (resolve->count == 0)
        resolve->status = blk_error_set(&resolve->error, EHOSTUNREACH,
                                        "the name \"%s\" has no usable address", resolve->host);
    resolve->done(resolve);
}

static void report(struct loop_call *call)
{
    struct resolve *resolve = container_of(call, struct resolve, call);

    resolve->done(resolve);
}

void resolve_start(struct loop *loop, struct resolve *resolve, const char *host)
{
    resolve->loop = loop;
    resolve->status = 0;
    resolve->gai_error = 0;
    resolve->count = 0;
    resolve->addresses = NULL;
    blk_error_clear(&resolve->error);
    resolve->work.run = look_up;
    resolve->work.done = looked_up;
    resolve->call.run = report;
    resolve->call.pending = false;
    resolve->host = strdup(host);
    if (resolve->host && is_numeric(host)) {
        resolve->addresses = calloc(1, sizeof(*resolve->addresses));
        if (resolve->addresses) {
            strncpy(resolve->addresses[0], host, sizeof(resolve->addresses[0]) - 1);
            resolve->count = 1;
            loop_defer(loop, &resolve->call);
            return;
        }
    } else if (resolve->host && loop_offload(loop, &resolve->work) == 0) {
        return;
    }
    resolve->status = blk_error_set(&resolve->error, ENOMEM, "out of memory");
    loop_defer(loop, &resolve->call);
}

void resolve_free(struct resolve *resolve)
{
    free(resolve->addresses);
    free(resolve->host);
    resolve->addresses = NULL;
    resolve->host = NULL;
    resolve->count = 0;
}
