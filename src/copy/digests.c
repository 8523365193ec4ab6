/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "digests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/block.h>
#include <lunferry/units.h>

#include "zeros.h"

#define WORDS (DIGEST_SIZE / sizeof(uint64_t))

struct sum {
    uint64_t words[WORDS]; /* the lowest first */
};

struct state {
    uint32_t taken, checked; /* blocks in the sums */
    bool differed;
};

struct digests {
    uint64_t size, granule, count;
    struct sum *taken, *checked;
    struct state *states;
};

struct digests *digests_new(uint64_t size, uint64_t granule)
{
    struct digests *digests = calloc(1, sizeof(*digests));

    assert(size > 0 && granule % DIGESTS_BLOCK == 0);
    if (!digests)
        return NULL;
    digests->size = size;
    digests->granule = granule;
    if (size == BLK_SIZE_UNKNOWN)
        return digests;
    digests->count = (size - 1) / granule + 1;
    digests->taken = calloc(digests->count, sizeof(*digests->taken));
    digests->checked = calloc(digests->count, sizeof(*digests->checked));
    digests->states = calloc(digests->count, sizeof(*digests->states));
    if (!digests->taken || !digests->checked || !digests->states) {
        digests_free(digests);
        return NULL;
    }
    return digests;
}

/* The same list with zeros behind it, or NULL, and then it is as it was. */
static void *lengthen(void *list, size_t each, uint64_t old, uint64_t count)
{
    unsigned char *longer = realloc(list, count * each);

    if (longer)
        memset(longer + old * each, 0, (count - old) * each);
    return longer;
}

bool digests_reach(struct digests *digests, uint64_t end)
{
    uint64_t old = digests->count, count = (end - 1) / digests->granule + 1;
    struct sum *taken, *checked;
    struct state *states;

    if (count <= old)
        return true;
    count *= 2;
    taken = lengthen(digests->taken, sizeof(*taken), old, count);
    digests->taken = taken ? taken : digests->taken;
    checked = lengthen(digests->checked, sizeof(*checked), old, count);
    digests->checked = checked ? checked : digests->checked;
    states = lengthen(digests->states, sizeof(*states), old, count);
    digests->states = states ? states : digests->states;
    if (!taken || !checked || !states)
        return false;
    digests->count = count;
    return true;
}

void digests_end(struct digests *digests, uint64_t size)
{
    assert(size > 0 && (size - 1) / digests->granule < digests->count);
    digests->size = size;
}

void digests_free(struct digests *digests)
{
    if (!digests)
        return;
    free(digests->taken);
    free(digests->checked);
    free(digests->states);
    free(digests);
}

static uint32_t blocks_of(const struct digests *digests, uint64_t granule)
{
    uint64_t len = min_u64(digests->granule, digests->size - granule * digests->granule);

    return (uint32_t)((len - 1) / DIGESTS_BLOCK + 1);
}

static void add_block(struct sum *sum, struct digest *digest, uint64_t offset,
                      const unsigned char *bytes, uint64_t len)
{
    uint64_t place = offset / DIGESTS_BLOCK, words[WORDS], carry = 0;
    uint8_t result[DIGEST_SIZE];

    if (zeros_only(bytes, len))
        return;
    digest_begin(digest);
    digest_add(digest, &place, sizeof(place));
    digest_add(digest, bytes, len);
    digest_end(digest, result);
    memcpy(words, result, sizeof(words));
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t with_carry = sum->words[i] + carry;

        carry = with_carry < carry;
        sum->words[i] = with_carry + words[i];
        carry += sum->words[i] < words[i];
    }
}

/* One block more of those that were taken; its granule. */
static uint64_t count_taken(struct digests *digests, uint64_t offset)
{
    uint64_t granule = offset / digests->granule;

    assert(digests->states[granule].taken < blocks_of(digests, granule));
    digests->states[granule].taken++;
    return granule;
}

void digests_take(struct digests *digests, struct digest *digest, uint64_t offset,
                  const unsigned char *bytes, uint64_t len)
{
    for (uint64_t done = 0; done < len; done += DIGESTS_BLOCK)
        add_block(&digests->taken[count_taken(digests, offset + done)], digest, offset + done,
                  bytes + done, min_u64(len - done, DIGESTS_BLOCK));
}

void digests_take_zeros(struct digests *digests, uint64_t offset, uint64_t len)
{
    for (uint64_t done = 0; done < len; done += DIGESTS_BLOCK)
        count_taken(digests, offset + done);
}

bool digests_known(const struct digests *digests, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / digests->granule; i * digests->granule < offset + len; i++) {
        if (digests->states[i].taken < blocks_of(digests, i))
            return false;
    }
    return true;
}

void digests_forget(struct digests *digests, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / digests->granule; i * digests->granule < offset + len; i++) {
        digests->states[i].taken = 0;
        digests->taken[i] = (struct sum){{0}};
    }
}

static void complete(struct digests *digests, uint64_t granule,
                     void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque)
{
    struct state *state = &digests->states[granule];
    bool again = state->differed;
    bool same = memcmp(&digests->taken[granule], &digests->checked[granule],
                       sizeof(digests->taken[granule])) == 0;

    state->checked = 0;
    digests->checked[granule] = (struct sum){{0}};
    if (same)
        return;
    state->differed = true;
    differs(opaque, granule * digests->granule, again);
}

static void count_checked(struct digests *digests, uint64_t offset,
                          void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque)
{
    uint64_t granule = offset / digests->granule;

    if (++digests->states[granule].checked == blocks_of(digests, granule))
        complete(digests, granule, differs, opaque);
}

void digests_check(struct digests *digests, struct digest *digest, uint64_t offset,
                   const unsigned char *bytes, uint64_t len,
                   void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque)
{
    for (uint64_t done = 0; done < len; done += DIGESTS_BLOCK) {
        add_block(&digests->checked[(offset + done) / digests->granule], digest, offset + done,
                  bytes + done, min_u64(len - done, DIGESTS_BLOCK));
        count_checked(digests, offset + done, differs, opaque);
    }
}

void digests_check_zeros(struct digests *digests, uint64_t offset, uint64_t len,
                         void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque)
{
    for (uint64_t done = 0; done < len; done += DIGESTS_BLOCK)
        count_checked(digests, offset + done, differs, opaque);
}
