/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When an acknowledged write is durable; private.h tells the rules. */
#include "private.h"

#include <errno.h>
#include <sys/random.h>

static void end_epoch(struct cache *cache)
{
    if (++cache->epoch == BLK_NO_EPOCH)
        cache->epoch++;
}

/* May something that was acknowledged lie in a volatile cache? */
static bool holds_something(const struct cache *cache)
{
    return cache->on || cache->acknowledged != cache->flushed;
}

int cache_init(struct cache *cache, struct blk_error *error)
{
    *cache = (struct cache){.on = true};
    do {
        if (getrandom(&cache->epoch, sizeof(cache->epoch), 0) != (ssize_t)sizeof(cache->epoch))
            return blk_error_set(error, EIO, "no random numbers");
    } while (cache->epoch == BLK_NO_EPOCH);
    return 0;
}

void cache_new_session(struct cache *cache)
{
    if (holds_something(cache))
        end_epoch(cache);
    cache->on = true;
}

void cache_attention(struct cache *cache, unsigned effects)
{
    if ((effects & SENSE_CACHE_LOST) != 0 && holds_something(cache))
        end_epoch(cache);
    /* A reset brings back the saved mode parameters (SPC-4 5.9), which no other attention need tell. */
    if ((effects & (SENSE_CACHE_LOST | SENSE_MODE_CHANGED)) != 0)
        cache->on = true;
}

void cache_told(struct cache *cache, bool on)
{
    cache->on = on;
}

bool cache_wrote(struct cache *cache, bool forced)
{
    if (!cache->on || forced)
        return true;
    cache->acknowledged++;
    return false;
}

bool cache_needs_flush(const struct cache *cache)
{
    return holds_something(cache);
}

uint64_t cache_flush_begins(const struct cache *cache)
{
    return cache->acknowledged;
}

void cache_flush_ended(struct cache *cache, uint64_t begun)
{
    if (begun > cache->flushed)
        cache->flushed = begun;
}
