/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where secrets come from, in which order, and that no message shows one. */
#include "ground.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/secret.h>

#include "drivers/iscsi/private.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Files ------------------------------------------------------------------------------------ */

static int from_file(const struct ground *ground, const char *bytes, size_t len, char *buf,
                     size_t size, struct blk_error *error)
{
    char *path = ground_path(ground, "secret");
    int status;

    ground_make(ground, "secret", bytes, len);
    status = secret_from_file(path, "CHAP password", buf, size, error);
    free(path);
    return status;
}

static void test_file(void **state)
{
    static const struct {
        const char *bytes, *secret;
    } good[] = {
        {"hunter2", "hunter2"},
        {"hunter2\n", "hunter2"},
        {"hunter2\r\nmore", "hunter2"},
        {" a b \n\n", " a b "},
        {"p\xc3\xa4ss%3f@:\n", "p\xc3\xa4ss%3f@:"},
        {"123456789012345", "123456789012345"},
    };
    static const struct {
        const char *bytes, *complaint;
    } bad[] = {
        {"", "is empty"},
        {"\n", "is empty"},
        {"\nhunter2\n", "is empty"},
        {"hunter2hunter2hu\n", "is longer than 15 bytes"},
    };
    struct ground *ground = *state;
    struct blk_error error;
    char buf[16], *many = calloc(1, 5000);

    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(from_file(ground, good[i].bytes, strlen(good[i].bytes), buf, 16, &error),
                         0);
        assert_string_equal(buf, good[i].secret);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(from_file(ground, bad[i].bytes, strlen(bad[i].bytes), buf, 16, &error),
                         -EINVAL);
        assert_string_equal(buf, "");
        assert_non_null(strstr(error.text, bad[i].complaint));
        assert_null(strstr(error.text, "hunter2"));
    }
    memset(many, 'x', 5000);
    assert_int_equal(from_file(ground, many, 5000, buf, 16, &error), -EINVAL);
    assert_int_equal(from_file(ground, "hun\0ter2", 8, buf, 16, &error), -EINVAL);
    assert_non_null(strstr(error.text, "zero byte"));
    assert_int_equal(secret_from_file("/no/such", "CHAP password", buf, 16, &error), -ENOENT);
    assert_string_equal(error.text,
                        "cannot read the CHAP password from '/no/such': No such file or directory");
    assert_int_equal(secret_from_file(ground->dir, "CHAP password", buf, 16, &error), -EISDIR);
    free(many);
}

static void test_credential(void **state)
{
    struct ground *ground = *state;
    struct blk_error error;
    char buf[16] = "x";

    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(secret_from_credential("pw", "it", buf, 16, &error), 0);
    assert_string_equal(buf, "");
    setenv("CREDENTIALS_DIRECTORY", ground->dir, 1);
    assert_int_equal(secret_from_credential("pw", "it", buf, 16, &error), 0);
    assert_string_equal(buf, "");
    ground_make(ground, "lunferry.pw", "hunter2\n", 8);
    assert_int_equal(secret_from_credential("pw", "it", buf, 16, &error), 0);
    assert_string_equal(buf, "hunter2");
    ground_make(ground, "lunferry.pw", "", 0);
    assert_int_equal(secret_from_credential("pw", "it", buf, 16, &error), -EINVAL);
    setenv("CREDENTIALS_DIRECTORY", "relative", 1);
    assert_int_equal(secret_from_credential("pw", "it", buf, 16, &error), 0);
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void test_exposed(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "secret");

    ground_make(ground, "secret", "x", 1);
    chmod(path, 0644);
    assert_true(secret_file_is_exposed(path));
    chmod(path, 0640);
    assert_false(secret_file_is_exposed(path));
    assert_false(secret_file_is_exposed("/no/such"));
    assert_false(secret_file_is_exposed("/dev/null"));
    free(path);
}

static void test_scrub(void **state)
{
    char text[] = "iscsi://me:hunter2@h/x", tight[] = "me:a@h";

    (void)state;
    secret_scrub(text, "iscsi://me:***@h/x");
    assert_memory_equal(text, "iscsi://me:***@h/x\0\0\0\0", sizeof(text));
    secret_scrub(tight, "me:***@h");
    assert_string_equal(tight, "me:***");
}

static void test_guard(void **state)
{
    struct rlimit limit;

    (void)state;
    assert_int_equal(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    secret_guard();
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
    assert_true(limit.rlim_cur == 0 && limit.rlim_max == 0);
    /* Reading one is enough. */
    assert_int_equal(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    secret_from_file("/dev/null", "it", (char[8]){0}, 8, NULL);
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
}

/* ---- CHAP's sources --------------------------------------------------------------------------- */

/* Each source that is not taken away holds a password that names it; they go, the first one first. */
static void test_order(void **state)
{
    static const char *const want[] = {"of-option", "of-url", "of-global", "of-variable",
                                       "of-credential"};
    struct ground *ground = *state;
    char *path = ground_path(ground, "option"), *global = ground_path(ground, "global");
    struct login login = {.password_file = global};
    struct secrets secrets;
    struct url url;
    char text[200];

    ground_make(ground, "option", "of-option\n", 10);
    ground_make(ground, "global", "of-global\n", 10);
    ground_make(ground, "lunferry.chap-password", "of-credential\n", 14);
    setenv("CREDENTIALS_DIRECTORY", ground->dir, 1);
    setenv("LIBISCSI_CHAP_PASSWORD", "of-variable", 1);
    for (size_t i = 0; i < COUNT(want); i++) {
        if (i == 3)
            login.password_file = NULL;
        if (i == 4)
            setenv("LIBISCSI_CHAP_PASSWORD", "", 1);
        snprintf(text, sizeof(text), "iscsi://me%s@h/iqn.a:b/0%s%s", i < 2 ? ":of-url" : "",
                 i == 0 ? "?password-file=" : "", i == 0 ? path : "");
        assert_int_equal(url_parse(text, &url, NULL), 0);
        assert_int_equal(secrets_load(&secrets, &url, &login, NULL), 0);
        assert_string_equal(secrets.user, "me");
        assert_string_equal(secrets.password, want[i]);
        secrets_wipe(&secrets);
        url_release(&url);
    }
    unsetenv("LIBISCSI_CHAP_PASSWORD");
    unsetenv("CREDENTIALS_DIRECTORY");
    free(path);
    free(global);
}

static void test_names(void **state)
{
    struct ground *ground = *state;
    char *global = ground_path(ground, "global");
    struct login login = {.password_file = global};
    struct secrets secrets;
    struct blk_error error;
    struct url url;

    /* The file of --password-file is not for endpoints without a user. */
    ground_make(ground, "global", "pw\n", 3);
    assert_int_equal(url_parse("iscsi://h/iqn.a:b/0", &url, NULL), 0);
    assert_int_equal(secrets_load(&secrets, &url, &login, NULL), 0);
    assert_string_equal(secrets.user, "");
    assert_string_equal(secrets.password, "");

    /* All four from systemd. */
    ground_make(ground, "lunferry.chap-user", "me\n", 3);
    ground_make(ground, "lunferry.chap-password", "mine\n", 5);
    ground_make(ground, "lunferry.chap-mutual-user", "you\n", 4);
    ground_make(ground, "lunferry.chap-mutual-password", "yours\n", 6);
    setenv("CREDENTIALS_DIRECTORY", ground->dir, 1);
    login.password_file = NULL;
    assert_int_equal(secrets_load(&secrets, &url, &login, NULL), 0);
    assert_string_equal(secrets.user, "me");
    assert_string_equal(secrets.password, "mine");
    assert_string_equal(secrets.mutual_user, "you");
    assert_string_equal(secrets.mutual_password, "yours");

    unsetenv("CREDENTIALS_DIRECTORY");
    setenv("LIBISCSI_CHAP_PASSWORD", "alone-hunter2", 1);
    assert_int_equal(secrets_load(&secrets, &url, &login, &error), -EINVAL);
    assert_null(strstr(error.text, "hunter2"));
    unsetenv("LIBISCSI_CHAP_PASSWORD");
    secrets_wipe(&secrets);
    url_release(&url);
    free(global);
}

/* ---- Messages --------------------------------------------------------------------------------- */

/* However wrong the URL is, neither its text nor what is said of it has the password: not as it was
 * written, not decoded. */
static void test_urls(void **state)
{
    static const char *const secrets[] = {
        "hunter2",     "hun%74er2",  "%68unter2", "hun/hunter2", "hun?hunter2",     "hun@hunter2",
        "hun:hunter2", "%zzhunter2", "hunter2%",  "[hunter2]",   "hunter2,hunter2", "%00hunter2"};
    static const char *const forms[] = {
        "iscsi://me:%s@h/iqn.a:b/0",
        "iscsi://me:%s@h:99999/iqn.a:b/0",
        "iscsi://me:%s@[::1/iqn.a:b/0",
        "iscsi://me:%s@/iqn.a:b/0",
        "iscsi://me:%s@h/not-a-name/0",
        "iscsi://me:%s@h/iqn.a:b/x",
        "iscsi://me:%s@h/iqn.a:b/0?unknown=1",
        "iscsi://me:%s@h/iqn.a:b/0?user=a&user=b",
        "iscsi://me:%s@h/iqn.a:b/0?header-digest=x",
        "iscsi://:%s@h/iqn.a:b/0",
        "iscsi:///me:%s@h/iqn.a:b/0",
        "iscsi:/me:%s@h/iqn.a:b/0",
        "iscsi:me:%s@h/iqn.a:b/0",
        "iscsi//me:%s@h/iqn.a:b/0",
        "iscs://me:%s@h/iqn.a:b/0",
        "ISCSI://me:%s@h/iqn.a:b/0",
        " iscsi://me:%s@h/iqn.a:b/0",
        "--x=iscsi://me:%s@h/iqn.a:b/0",
        "nfs://me:%s@h/a/b",
        "me:%s@h",
        "iscsi://h/iqn.a:b/0?password=%s",
        "iscsi://h/iqn.a:b/0?target_password=%s&x",
        "iscsi://h/iqn.a:b/0?chap-secret=%s",
        "iscsi://h/iqn.a:b/0?x=1&secret=%s&passwd=hunter2",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(forms); i++) {
        for (size_t j = 0; j < COUNT(secrets); j++) {
            struct blk_error error = {0};
            char text[200];
            struct url url;

            /* Behind '&' or '?' in a query, what follows is another option. */
            if (i >= COUNT(forms) - 4 && strchr(secrets[j], '?'))
                continue;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof(text), forms[i], secrets[j]);
#pragma GCC diagnostic pop
            if (url_parse(text, &url, &error) == 0)
                blk_check_url(&url, &error);
            assert_non_null(url.text);
            if (strstr(url.text, "hunter2") || strstr(error.text, "hunter2") ||
                strstr(url.text, "er2") || strstr(error.text, "er2"))
                fail_msg("%s: \"%s\": %s", text, url.text, error.text);
            url_release(&url);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_credential, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_exposed, ground_setup, ground_teardown),
        cmocka_unit_test(test_scrub),
        cmocka_unit_test(test_guard),
        cmocka_unit_test_setup_teardown(test_order, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_names, ground_setup, ground_teardown),
        cmocka_unit_test(test_urls),
    };
    int status;

    unsetenv("LIBISCSI_CHAP_USERNAME");
    unsetenv("LIBISCSI_CHAP_TARGET_USERNAME");
    unsetenv("LIBISCSI_CHAP_TARGET_PASSWORD");
    status = cmocka_run_group_tests_name("secret", tests, NULL, NULL);
    /* The leak sanitizer wants to look into the process. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    return status;
}
