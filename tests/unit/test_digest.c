/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include <lunferry/digest.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static int setup(void **state)
{
    struct blk_error error;

    *state = digest_new(&error);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    digest_free(*state);
    return 0;
}

/* FIPS 180-4's examples, and the empty message, as sha256sum knows them. */
static const struct {
    const char *message, *text;
} known[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void test_known_digests(void **state)
{
    uint8_t result[DIGEST_SIZE];
    char text[DIGEST_TEXT];

    for (size_t i = 0; i < COUNT(known); i++) {
        digest_of(*state, known[i].message, strlen(known[i].message), result);
        assert_string_equal(digest_text(text, result), known[i].text);
    }
}

static void test_a_million_letters(void **state)
{
    static char letters[1000];
    uint8_t result[DIGEST_SIZE];
    char text[DIGEST_TEXT];

    memset(letters, 'a', sizeof(letters));
    digest_begin(*state);
    for (unsigned i = 0; i < 1000; i++)
        digest_add(*state, letters, sizeof(letters));
    digest_end(*state, result);
    assert_string_equal(digest_text(text, result),
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* However a message is cut, its digest is the same. */
static void test_pieces_add_up(void **state)
{
    unsigned char message[200];
    uint8_t whole[DIGEST_SIZE], pieces[DIGEST_SIZE];

    for (size_t i = 0; i < sizeof(message); i++)
        message[i] = (unsigned char)(7 * i);
    digest_of(*state, message, sizeof(message), whole);
    for (size_t cut = 0; cut <= sizeof(message); cut++) {
        digest_begin(*state);
        digest_add(*state, message, cut);
        digest_add(*state, message + cut, sizeof(message) - cut);
        digest_end(*state, pieces);
        assert_memory_equal(pieces, whole, DIGEST_SIZE);
    }
}

/* A message that was given up does not show in the next one. */
static void test_begins_anew(void **state)
{
    uint8_t first[DIGEST_SIZE], second[DIGEST_SIZE];

    digest_of(*state, "abc", 3, first);
    digest_begin(*state);
    digest_add(*state, "something else", 14);
    digest_of(*state, "abc", 3, second);
    assert_memory_equal(first, second, DIGEST_SIZE);
}

static void test_two_at_once(void **state)
{
    struct blk_error error;
    struct digest *other = digest_new(&error);
    uint8_t result[DIGEST_SIZE];
    char text[DIGEST_TEXT];

    assert_non_null(other);
    digest_begin(*state);
    digest_add(*state, "a", 1);
    digest_begin(other);
    digest_add(other, "x", 1);
    digest_add(*state, "bc", 2);
    digest_end(*state, result);
    assert_string_equal(digest_text(text, result), known[1].text);
    digest_free(other);
}

static void test_text_and_back(void **state)
{
    uint8_t result[DIGEST_SIZE], back[DIGEST_SIZE];
    char text[DIGEST_TEXT];

    (void)state;
    for (unsigned i = 0; i < DIGEST_SIZE; i++)
        result[i] = (uint8_t)(i * 37 + 9);
    digest_text(text, result);
    assert_int_equal(digest_parse(text, back), 0);
    assert_memory_equal(back, result, DIGEST_SIZE);
    for (char *c = text; *c; c++) {
        if (*c >= 'a' && *c <= 'f')
            *c = (char)(*c - 'a' + 'A');
    }
    assert_int_equal(digest_parse(text, back), 0);
    assert_memory_equal(back, result, DIGEST_SIZE);
    /* Every place is looked at, and so is the length. */
    for (size_t i = 0; i < DIGEST_TEXT - 1; i++) {
        char kept = text[i];

        text[i] = i % 2 ? 'g' : '/';
        assert_int_equal(digest_parse(text, back), -EINVAL);
        text[i] = kept;
    }
    text[DIGEST_TEXT - 2] = '\0';
    assert_int_equal(digest_parse(text, back), -EINVAL);
    assert_int_equal(digest_parse("", back), -EINVAL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_known_digests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_million_letters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_add_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_begins_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_and_back, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
