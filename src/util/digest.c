/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/digest.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

struct digest {
    enum { DIGEST_IDLE, DIGEST_OPEN } state;
    EVP_MD *algorithm;
    EVP_MD_CTX *context;
};

/*
 * The first failure is the only one that can be: memory, a configuration without the algorithm, or a
 * self-test of the provider. Once a context has been through EVP_DigestInit_ex(), hashing allocates
 * nothing more, and the calls below are asserted.
 */
static int refuse(struct blk_error *error)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return blk_error_set(error, reason ? EIO : ENOMEM, "SHA-256 is not to be had from OpenSSL: %s",
                         reason ? reason : "out of memory");
}

struct digest *digest_new(struct blk_error *error)
{
    struct digest *digest = calloc(1, sizeof(*digest));

    if (!digest) {
        blk_error_set(error, ENOMEM, "out of memory");
        return NULL;
    }
    digest->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    digest->context = EVP_MD_CTX_new();
    if (!digest->algorithm || !digest->context ||
        EVP_DigestInit_ex2(digest->context, digest->algorithm, NULL) != 1) {
        refuse(error);
        digest_free(digest);
        return NULL;
    }
    assert(EVP_MD_get_size(digest->algorithm) == DIGEST_SIZE);
    return digest;
}

void digest_free(struct digest *digest)
{
    if (!digest)
        return;
    EVP_MD_CTX_free(digest->context);
    EVP_MD_free(digest->algorithm);
    free(digest);
}

/* A wrong digest is worse than no program: these are checked without NDEBUG in mind. */
static void must_succeed(int outcome)
{
    if (outcome != 1)
        __builtin_trap();
}

void digest_begin(struct digest *digest)
{
    must_succeed(EVP_DigestInit_ex2(digest->context, NULL, NULL));
    digest->state = DIGEST_OPEN;
}

void digest_add(struct digest *digest, const void *bytes, size_t len)
{
    assert(digest->state == DIGEST_OPEN);
    must_succeed(EVP_DigestUpdate(digest->context, bytes, len));
}

void digest_end(struct digest *digest, uint8_t result[DIGEST_SIZE])
{
    assert(digest->state == DIGEST_OPEN);
    must_succeed(EVP_DigestFinal_ex(digest->context, result, NULL));
    digest->state = DIGEST_IDLE;
}

void digest_of(struct digest *digest, const void *bytes, size_t len, uint8_t result[DIGEST_SIZE])
{
    digest_begin(digest);
    digest_add(digest, bytes, len);
    digest_end(digest, result);
}

const char *digest_text(char text[DIGEST_TEXT], const uint8_t result[DIGEST_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        text[2 * i] = digits[result[i] >> 4];
        text[2 * i + 1] = digits[result[i] & 15];
    }
    text[2 * DIGEST_SIZE] = '\0';
    return text;
}

/* -1: not a hexadecimal digit. Not isxdigit(), which follows the locale. */
static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int digest_parse(const char *text, uint8_t result[DIGEST_SIZE])
{
    if (strlen(text) != DIGEST_TEXT - 1)
        return -EINVAL;
    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return -EINVAL;
        result[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
