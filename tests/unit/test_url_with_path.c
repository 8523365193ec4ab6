/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another path at the same endpoint, and how it is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <lunferry/url.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct row {
    const char *url, *path, *text;
} rows[] = {
    {"nfs://filer/a/b.img", "/a/c.img", "nfs://filer/a/c.img"},
    {"nfs://filer:2050/a/b?uid=0&gid=7", "/c d%?e#f",
     "nfs://filer:2050/c%20d%25%3Fe%23f?uid=0&gid=7"},
    {"nfs://[fe80::1]/a", "/ä", "nfs://[fe80::1]/%C3%A4"},
    {"iscsi://me:secret@san,other:3261/iqn.2001-04.com.example:a/1", "/iqn.x/2",
     "iscsi://me:***@san,other:3261/iqn.x/2"},
    {"a/b.img", "a/c?d%41", "a/c?d%41"},
    {"file:/a/b%20c", "/a/b c", "/a/b c"},
    {"file:///a/b", "/c", "/c"},
    {"a", "nfs:x", "./nfs:x"},
    {"random:1M?seed=2", "2M", "random:2M?seed=2"},
};

static void check_same(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_string_equal(a, b);
}

/* Written, and read again, it is the same. */
static void check_again(const struct url *other, const char *password)
{
    struct url again;

    assert_int_equal(url_parse(other->text, &again, NULL), 0);
    assert_string_equal(again.path + (strncmp(again.path, "./", 2) == 0 ? 2 : 0), other->path);
    check_same(again.user, other->user);
    check_same(other->password, password);
    assert_int_equal(again.host_count, other->host_count);
    for (size_t i = 0; i < again.host_count; i++) {
        assert_string_equal(again.hosts[i].host, other->hosts[i].host);
        assert_int_equal(again.hosts[i].port, other->hosts[i].port);
    }
    assert_int_equal(again.param_count, other->param_count);
    for (size_t i = 0; i < again.param_count; i++) {
        assert_string_equal(again.params[i].name, other->params[i].name);
        assert_string_equal(again.params[i].value, other->params[i].value);
    }
    url_release(&again);
}

static void test_with_path(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct row *row = &rows[i];
        struct url url, other;

        assert_int_equal(url_parse(row->url, &url, NULL), 0);
        assert_int_equal(url_with_path(&url, row->path, &other), 0);
        assert_string_equal(other.scheme, url.scheme);
        assert_string_equal(other.path, row->path);
        assert_string_equal(other.text, row->text);
        check_again(&other, url.password);
        url_release(&url);
        url_release(&other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_path),
    };

    return cmocka_run_group_tests_name("url_with_path", tests, NULL, NULL);
}
