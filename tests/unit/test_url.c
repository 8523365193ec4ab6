/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/url.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- What is right ---------------------------------------------------------------------------- */

/* The parts of a URL, written on one line:
 * "scheme user:password [host]:port ... path ?name=value ..." with what is absent left out. */
struct good_case {
    const char *text;
    const char *parts;
    const char *shown; /* url->text; NULL: the same as `text` */
};

static const struct good_case good[] = {
    /* Local paths are taken as they are. */
    {"disk.img", "file disk.img", NULL},
    {"./a:b", "file ./a:b", NULL},
    {"dir/a:b?c=d&e%41@f", "file dir/a:b?c=d&e%41@f", NULL},
    {"/abs", "file /abs", NULL},
    {"//u:p@h/x", "file //u:p@h/x", NULL},
    {"--", "file --", NULL},
    {"-", "stdio -", NULL},
    {"./-", "file ./-", NULL},
    /* With the scheme, options and escapes begin. */
    {"file:rel/path?x", "file rel/path ?x=", NULL},
    {"file:a%20b%3Fc", "file a b?c", NULL},
    {"file:/a:b@c", "file /a:b@c", NULL},
    {"file:///a:b@c/d@e", "file /a:b@c/d@e", NULL},
    {"FILE:///x", "file /x", NULL},
    {"file://localhost/x", "file [localhost]:0 /x", NULL},
    {"null:1G", "null 1G", NULL},
    {"ram:64M", "ram 64M", NULL},
    {"random:1G?seed=7", "random 1G ?seed=7", NULL},
    {"a+b-c.9:x", "a+b-c.9 x", NULL},
    /* Hosts. */
    {"nfs://server/export/a.img", "nfs [server]:0 /export/a.img", NULL},
    {"NFS://Server/x", "nfs [Server]:0 /x", NULL},
    {"nfs://server", "nfs [server]:0 /", NULL},
    {"nfs://server?uid=5", "nfs [server]:0 / ?uid=5", NULL},
    {"nfs://server/", "nfs [server]:0 /", NULL},
    {"nfs://server//x", "nfs [server]:0 //x", NULL},
    {"nfs://10.1.2.3:1/x", "nfs [10.1.2.3]:1 /x", NULL},
    {"nfs://a_b.c-d:65535/x", "nfs [a_b.c-d]:65535 /x", NULL},
    {"nfs://a:02049/x", "nfs [a]:2049 /x", NULL},
    {"nfs://b\xc3\xbc"
     "cher/x",
     "nfs [b\xc3\xbc"
     "cher]:0 /x",
     NULL},
    {"nfs://[::1]/x", "nfs [::1]:0 /x", NULL},
    {"nfs://[2001:DB8::1]:2049/x", "nfs [2001:DB8::1]:2049 /x", NULL},
    {"nfs://[::ffff:1.2.3.4]/x", "nfs [::ffff:1.2.3.4]:0 /x", NULL},
    {"nfs://[fe80::1%25eth0]:20/x", "nfs [fe80::1%eth0]:20 /x", NULL},
    {"iscsi://a:3260,[::2]:3261,c/t/0", "iscsi [a]:3260 [::2]:3261 [c]:0 /t/0", NULL},
    {"iscsi://[::1],[::2]/t/0", "iscsi [::1]:0 [::2]:0 /t/0", NULL},
    /* Users and passwords. */
    {"iscsi://me@h/iqn.2003-01.org.x:d/0", "iscsi me [h]:0 /iqn.2003-01.org.x:d/0", NULL},
    {"iscsi://me:pw@h:3260/t/0", "iscsi me:pw [h]:3260 /t/0", "iscsi://me:***@h:3260/t/0"},
    {"iscsi://me:p%2Fw%3F%40%25@h/t/0", "iscsi me:p/w?@% [h]:0 /t/0", "iscsi://me:***@h/t/0"},
    {"iscsi://me:p@w:q@h/t/0", "iscsi me:p@w:q [h]:0 /t/0", "iscsi://me:***@h/t/0"},
    {"iscsi://me:p,w@a,b/t/0", "iscsi me:p,w [a]:0 [b]:0 /t/0", "iscsi://me:***@a,b/t/0"},
    {"iscsi://me:[x]@[::1]/t/0", "iscsi me:[x] [::1]:0 /t/0", "iscsi://me:***@[::1]/t/0"},
    {"iscsi://m%40e@h/t/0", "iscsi m@e [h]:0 /t/0", NULL},
    /* '@' and ':' that are no password's. */
    {"nfs://h/@snapshots/a@b", "nfs [h]:0 /@snapshots/a@b", NULL},
    {"nfs://[::1]/a@b", "nfs [::1]:0 /a@b", NULL},
    {"nfs://[::1],[::2]/a@b", "nfs [::1]:0 [::2]:0 /a@b", NULL},
    {"nfs://h:2049/a%40b", "nfs [h]:2049 /a@b", NULL},
    {"nfs://h/12:30#a", "nfs [h]:0 /12:30#a", NULL},
    /* Escapes and options. */
    {"nfs://h/%41%7a%7A%c3%BC", "nfs [h]:0 /Azz\xc3\xbc", NULL},
    {"nfs://%68/x", "nfs [h]:0 /x", NULL},
    {"nfs://h/x?uid=5&gid=6", "nfs [h]:0 /x ?uid=5 ?gid=6", NULL},
    {"nfs://h/x?a", "nfs [h]:0 /x ?a=", NULL},
    {"nfs://h/x?a=", "nfs [h]:0 /x ?a=", NULL},
    {"nfs://h/x?a=b=c?d", "nfs [h]:0 /x ?a=b=c?d", NULL},
    {"nfs://h/x?%61%3d=%26+", "nfs [h]:0 /x ?a==&+", NULL},
    {"iscsi://h/t/0?target_password=abc&x=1", "iscsi [h]:0 /t/0 ?target_password=abc ?x=1",
     "iscsi://h/t/0?target_password=***&x=1"},
    {"iscsi://h/t/0?Secret=&SECRET",
     "iscsi [h]:0 /t/0 ?Secret= ?SECRET=", "iscsi://h/t/0?Secret=***&SECRET"},
    /* A forgotten slash: refused later, because there is no host, but redacted now. */
    {"iscsi:/me:pw@h/t/0", "iscsi /me:pw@h/t/0", "iscsi:/me:***@h/t/0"},
    {"me:pw@h/t/0", "me pw@h/t/0", "me:***@h/t/0"},
};

static void print_parts(char *buf, size_t size, const struct url *url)
{
    FILE *out = fmemopen(buf, size, "w");

    assert_non_null(out);
    fputs(url->scheme, out);
    if (url->user != NULL)
        fprintf(out, " %s", url->user);
    if (url->password != NULL)
        fprintf(out, ":%s", url->password);
    for (size_t i = 0; i < url->host_count; i++)
        fprintf(out, " [%s]:%u", url->hosts[i].host, url->hosts[i].port);
    fprintf(out, " %s", url->path);
    for (size_t i = 0; i < url->param_count; i++)
        fprintf(out, " ?%s=%s", url->params[i].name, url->params[i].value);
    fclose(out);
}

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        const struct good_case *c = &good[i];
        struct blk_error error = {0};
        struct url url;
        char parts[500];

        if (url_parse(c->text, &url, &error) != 0)
            fail_msg("%s: %s", c->text, error.text);
        print_parts(parts, sizeof parts, &url);
        assert_string_equal(parts, c->parts);
        assert_string_equal(url.text, c->shown != NULL ? c->shown : c->text);
        url_release(&url);
    }
}

/* ---- What is wrong ---------------------------------------------------------------------------- */

struct bad_case {
    const char *text;
    const char *shown; /* as the message quotes it; NULL: the same as `text` */
    const char *what;  /* the rest of the message */
};

#define HOST_CHARACTERS                                                                            \
    "the name of the host has other characters than letters, digits, '.', '-' and '_'"
#define BAD_PORT "the port of the host is not a number from 1 to 65535"
#define BAD_ADDRESS                                                                                \
    "what stands in the brackets of the host is not an IPv6 address, like [2001:db8::1]"
#define BAD_ESCAPE(part)                                                                           \
    "in " part ", a '%' is not followed by two hexadecimal digits; write %25 for '%' itself"
#define NO_SCHEME                                                                                  \
    "what stands before the ':' is no scheme like \"nfs\"; for a file of this name, write ./ in "  \
    "front"
#define NO_OPTION_NAME "an option has no name; options are written ?name=value&name=value"
#define AMBIGUOUS                                                                                  \
    "a '/' or '?' stands between a ':' and an '@'; if a password is meant, write %2F for '/' and " \
    "%3F for '?' in it, else write %40 for '@'"

static const struct bad_case bad[] = {
    /* Schemes. */
    {"2024:x", NULL, NO_SCHEME},
    {":x", NULL, NO_SCHEME},
    {"a b:x", NULL, NO_SCHEME},
    {"null:", NULL, "nothing follows \"null:\""},
    {"RAM:?x=1", NULL, "nothing follows \"ram:\""},
    {"file:", NULL, "nothing follows \"file:\""},
    {"file://", NULL, "nothing follows \"file:\""},
    /* Hosts. */
    {"iscsi://[::1/x", NULL, "the IPv6 address is not closed with ']'"},
    {"nfs://", NULL, "the host is missing"},
    {"nfs:///x", NULL, "the host is missing"},
    {"nfs://?x", NULL, "the host is missing"},
    {"nfs://me@/x", NULL, "the host is missing"},
    {"nfs://:5/x", NULL, "the host is missing before its ':'"},
    {"nfs://a,/x", NULL, "host 2 of 2 is missing"},
    {"nfs://,a/x", NULL, "host 1 of 2 is missing"},
    {"nfs://a,:3,c/x", NULL, "host 2 of 3 is missing before its ':'"},
    {"nfs://a b/x", NULL, HOST_CHARACTERS},
    {"nfs://a%2Fb/x", NULL, HOST_CHARACTERS},
    {"nfs://a#b/x", NULL, HOST_CHARACTERS},
    {"nfs://a]/x", NULL, HOST_CHARACTERS},
    {"nfs://a%/x", NULL, BAD_ESCAPE("the host")},
    {"nfs://a%00/x", NULL, "the host must not contain %00"},
    {"nfs://::1/x", NULL,
     "the host has more than one ':'; an IPv6 address stands in brackets, like "
     "[2001:db8::1]:3260"},
    {"nfs://[]/x", NULL, BAD_ADDRESS},
    {"nfs://[1.2.3.4]/x", NULL, BAD_ADDRESS},
    {"nfs://[:::1]/x", NULL, BAD_ADDRESS},
    {"nfs://[host]/x", NULL, BAD_ADDRESS},
    {"nfs://[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]/x", NULL, BAD_ADDRESS},
    {"nfs://[fe80::1%25]/x", NULL,
     "the zone of the IPv6 address is not a name; write it like [fe80::1%25eth0]"},
    {"nfs://[fe80::1%eth0]/x", NULL, BAD_ESCAPE("the host")},
    {"nfs://[::1]5/x", NULL, "after the ']' of an IPv6 address only ':' and a port may follow"},
    /* Ports. */
    {"nfs://a:0/x", NULL, BAD_PORT},
    {"nfs://a:65536/x", NULL, BAD_PORT},
    {"nfs://a:18446744073709551617/x", NULL, BAD_PORT},
    {"nfs://a:-1/x", NULL, BAD_PORT},
    {"nfs://a:http/x", NULL, BAD_PORT},
    {"nfs://a:1%31/x", NULL, BAD_PORT},
    {"nfs://[::1]:0/x", NULL, BAD_PORT},
    {"nfs://a,b:0/x", NULL, "the port of host 2 of 2 is not a number from 1 to 65535"},
    {"nfs://a:/x", NULL,
     "the port of the host is missing after ':'; without one, leave out the ':' too"},
    {"nfs://[::1]:/x", NULL,
     "the port of the host is missing after ':'; without one, leave out the ':' too"},
    /* Users and passwords. */
    {"iscsi://@h/x", NULL,
     "there is no user name before the '@'; write user@host, or the host alone"},
    {"iscsi://:pw@h/x", "iscsi://:***@h/x",
     "there is no user name before the '@'; write user@host, or the host alone"},
    {"iscsi://me:@h/x", "iscsi://me:***@h/x",
     "the password is empty; without one, write user@host"},
    {"iscsi://m%e@h/x", NULL, BAD_ESCAPE("the user name")},
    {"iscsi://m%00e@h/x", NULL, "the user name must not contain %00"},
    {"iscsi://me:p%w@h/x", "iscsi://me:***@h/x", BAD_ESCAPE("the password")},
    {"iscsi://me:p%00w@h/x", "iscsi://me:***@h/x", "the password must not contain %00"},
    {"iscsi://me:pw@h:0/x", "iscsi://me:***@h:0/x", BAD_PORT},
    {"iscsi://me:pw@[::1/x", "iscsi://me:***@[::1/x", "the IPv6 address is not closed with ']'"},
    /* Passwords in which characters were not escaped: nothing of them is shown. */
    {"iscsi://me:p/w@h/x", "iscsi://me:***@h/x", AMBIGUOUS},
    {"iscsi://me:p?w@h/x", "iscsi://me:***@h/x", AMBIGUOUS},
    {"iscsi://me:1/w@h/x", "iscsi://me:***@h/x", AMBIGUOUS},
    {"iscsi://me:p@w/q@h/x", "iscsi://me:***@h/x", AMBIGUOUS},
    {"iscsi://me:[::1]/w@h/x", "iscsi://me:***@h/x", AMBIGUOUS},
    {"iscsi://[me:p]w/q@h/x", "iscsi://[me:***@h/x", AMBIGUOUS},
    {"iscsi://[me:p/w]:q@h/x", "iscsi://[me:***@h/x", AMBIGUOUS},
    {"iscsi://me[a:b]:p/w@h/x", "iscsi://me[a:***@h/x", AMBIGUOUS},
    {"iscsi://[me:p/w]@h/x", "iscsi://[me:***@h/x", AMBIGUOUS},
    {"iscsi:///me:pw@h/x", "iscsi:///me:***@h/x", AMBIGUOUS},
    {"iscsi:///pw@h/x", NULL, "the host is missing"},
    {"nfs://h:2049/a@b", "nfs://h:***@b", AMBIGUOUS},
    {"file://me:pw@h/a@b", "file://me:***@b", AMBIGUOUS},
    /* Escapes and options. */
    {"nfs://h/a%", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a%4", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a%4?", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a%zz", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a%+1", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a%00", NULL, "the path must not contain %00"},
    {"file:a%", NULL, BAD_ESCAPE("the path")},
    {"nfs://h/a?%x=1", NULL, BAD_ESCAPE("an option's name")},
    {"nfs://h/a?x=%1", NULL, BAD_ESCAPE("an option's value")},
    {"nfs://h/a?x=%00", NULL, "an option's value must not contain %00"},
    {"nfs://h/a?", NULL, NO_OPTION_NAME},
    {"nfs://h/a?x=1&", NULL, NO_OPTION_NAME},
    {"nfs://h/a?x=1&&y=2", NULL, NO_OPTION_NAME},
    {"nfs://h/a?=1", NULL, NO_OPTION_NAME},
    {"nfs://h/a?passwd=x&=1", "nfs://h/a?passwd=***&=1", NO_OPTION_NAME},
    /* Nothing that a terminal would obey. */
    {"nfs://\033[1m\177\n/x", "nfs://?[1m?\?/x", HOST_CHARACTERS},
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        const struct bad_case *c = &bad[i];
        struct blk_error error = {0};
        struct url url;
        char expected[500];
        int status = url_parse(c->text, &url, &error);

        if (status != -EINVAL)
            fail_msg("%s: status %d", c->text, status);
        snprintf(expected, sizeof expected, "\"%s\": %s", c->shown != NULL ? c->shown : c->text,
                 c->what);
        assert_string_equal(error.text, expected);
        assert_int_equal(error.code, EINVAL);
        assert_int_equal(error.retry, BLK_FATAL);
        url_release(&url);
        /* Nobody has to want the sentence. */
        assert_int_equal(url_parse(c->text, &url, NULL), -EINVAL);
        url_release(&url);
    }
}

static void test_empty(void **state)
{
    struct blk_error error = {0};
    struct url url;

    (void)state;
    assert_int_equal(url_parse("", &url, &error), -EINVAL);
    assert_string_equal(error.text,
                        "an empty name; write a path or a URL, like nfs://host/export/file");
    url_release(&url);
}

/* ---- Lengths ---------------------------------------------------------------------------------- */

static void test_longest(void **state)
{
    struct blk_error error = {0};
    struct url url;
    char text[8194] = "nfs://h/";

    (void)state;
    memset(text + 8, 'x', 8192 - 8);
    assert_int_equal(url_parse(text, &url, &error), 0);
    assert_int_equal(strlen(url.path), 8192 - 7);
    url_release(&url);

    text[8192] = 'x';
    assert_int_equal(url_parse(text, &url, &error), -EINVAL);
    assert_string_equal(error.text,
                        "a path or URL of 8193 bytes is too long: at most 8192 are possible");
    url_release(&url);
}

static void test_long_host(void **state)
{
    struct blk_error error = {0};
    struct url url;
    char text[300] = "nfs://";

    (void)state;
    memset(text + 6, 'x', 255);
    assert_int_equal(url_parse(text, &url, &error), 0);
    url_release(&url);

    text[6 + 255] = 'x';
    assert_int_equal(url_parse(text, &url, &error), -EINVAL);
    assert_non_null(strstr(error.text, "xxx...\": the name of the host is longer than 255 bytes"));
    url_release(&url);
}

/* A long URL is cut in messages, between characters, so that there is room for what is wrong. */
static void test_long_quote(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        struct blk_error error = {0};
        struct url url;
        char text[1000] = "nfs://h:0/xxxx", *quote_end;

        text[10 + shift] = '\0';
        while (strlen(text) < 900)
            strcat(text, "\xe2\x82\xac");
        assert_int_equal(url_parse(text, &url, &error), -EINVAL);
        quote_end = strstr(error.text, "...\": the port");
        assert_non_null(quote_end);
        assert_in_range(quote_end - error.text, 150, 170);
        assert_memory_equal(quote_end - 3, "\xe2\x82\xac", 3);
        url_release(&url);
    }
}

/* The text for messages may be longer than the text, and every host and option counts. */
static void test_many_parts(void **state)
{
    struct url url;
    char text[4000] = "iscsi://a", query[4000] = "x:?secret=";

    (void)state;
    for (size_t i = 0; i < 999; i++)
        strcat(text, ",a");
    assert_int_equal(url_parse(text, &url, NULL), 0);
    assert_int_equal(url.host_count, 1000);
    url_release(&url);

    query[1] = ':';
    memmove(query + 3, query + 2, strlen(query + 2) + 1);
    query[2] = 'y';
    for (size_t i = 0; i < 400; i++)
        strcat(query, "&secret=");
    assert_int_equal(url_parse(query, &url, NULL), 0);
    assert_int_equal(url.param_count, 401);
    assert_int_equal(strlen(url.text), strlen(query) + 3 * 401);
    url_release(&url);
}

/* Every prefix of every text, and every text with one byte changed: whatever comes out, no memory
 * error, no undefined behaviour, and never a piece of the password. */
static void check_any(const char *text)
{
    struct blk_error error = {0};
    struct url url;
    int status = url_parse(text, &url, &error);

    assert_true(status == 0 || (status == -EINVAL && error.text[0] != '\0'));
    assert_null(strstr(error.text, "hunter"));
    if (url.text != NULL && strchr(text, '@') != NULL)
        assert_null(strstr(url.text, "hunter"));
    url_release(&url);
}

static void test_mutations(void **state)
{
    static const char secret[] = "iscsi://me:hunter/hun?ter,[hunter]@[::1]:3260,b/t/0?a=b";
    static const char bytes[] = "/?@:,[]%&=#0a \xff";
    char text[sizeof secret];

    (void)state;
    for (size_t len = 0; len < sizeof secret; len++) {
        memcpy(text, secret, len);
        text[len] = '\0';
        /* Before the '@' is there, nobody can know. */
        if (len == 0 || strchr(text, '@') != NULL)
            check_any(text);
    }
    /* Without "scheme:" it is a local path, and without its ':' and '@' no password. */
    for (size_t i = strlen("iscsi:"); i < sizeof secret - 1; i++) {
        for (size_t j = 0; j < sizeof bytes - 1; j++) {
            if (secret[i] == '@' || i == strlen("iscsi://me"))
                continue;
            memcpy(text, secret, sizeof secret);
            text[i] = bytes[j];
            check_any(text);
        }
    }
}

/* ---- Options ---------------------------------------------------------------------------------- */

static const struct url_option nfs_options[] = {
    {"nfsport", "N: the port of the NFS service"},
    {"uid", "N: the user"},
    {NULL, NULL},
};

static const struct url_option long_options[] = {
    {"a", "N: a very long text, longer than any message should be, which says in many words "
          "what might have been said in few, and goes on after that"},
    {"b", "N: a very long text, longer than any message should be, which says in many words "
          "what might have been said in few, and goes on after that"},
    {"c", "N: a very long text, longer than any message should be, which says in many words "
          "what might have been said in few, and goes on after that"},
    {NULL, NULL},
};

struct option_case {
    const char *text;
    const struct url_option *known;
    const char *error; /* NULL: accepted */
};

static const struct option_case options[] = {
    {"nfs://h/x", NULL, NULL},
    {"nfs://h/x", nfs_options, NULL},
    {"nfs://h/x?uid=1&nfsport=2", nfs_options, NULL},
    {"nfs://h/x?%75id=1", nfs_options, NULL},
    {"nfs://h/x?foo=1", nfs_options,
     "unknown option \"foo\"; \"nfs\" knows nfsport=N: the port of the NFS service; "
     "uid=N: the user"},
    {"nfs://h/x?UID=1", nfs_options,
     "unknown option \"UID\"; \"nfs\" knows nfsport=N: the port of the NFS service; "
     "uid=N: the user"},
    {"nfs://h/x?ui%0A=1", nfs_options,
     "unknown option \"ui?\"; \"nfs\" knows nfsport=N: the port of the NFS service; "
     "uid=N: the user"},
    {"nfs://h/x?foo=1", long_options, "unknown option \"foo\"; \"nfs\" knows a, b, c"},
    {"null:1G?seed=1", NULL, "unknown option \"seed\": \"null\" takes no options"},
    {"null:1G?seed=1", &nfs_options[2], "unknown option \"seed\": \"null\" takes no options"},
    {"nfs://h/x?uid=1&uid=1", nfs_options,
     "\"nfs://h/x?uid=1&uid=1\": the option \"uid\" is given twice"},
    {"nfs://h/x?uid=1&nfsport=3&uid=1", nfs_options,
     "\"nfs://h/x?uid=1&nfsport=3&uid=1\": the option \"uid\" is given twice"},
};

static void test_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(options); i++) {
        const struct option_case *c = &options[i];
        struct blk_error error = {0};
        struct url url;
        int status;

        assert_int_equal(url_parse(c->text, &url, NULL), 0);
        status = url_check_options(&url, c->known, &error);
        assert_int_equal(status, c->error != NULL ? -EINVAL : 0);
        assert_string_equal(error.text, c->error != NULL ? c->error : "");
        url_release(&url);
    }
}

static void test_param(void **state)
{
    struct url url;

    (void)state;
    assert_int_equal(url_parse("nfs://h/x?uid=1&gid=&flag", &url, NULL), 0);
    assert_string_equal(url_param(&url, "uid"), "1");
    assert_string_equal(url_param(&url, "gid"), "");
    assert_string_equal(url_param(&url, "flag"), "");
    assert_null(url_param(&url, "ui"));
    url_release(&url);
}

static void test_param_number(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
        const char *error;
    } cases[] = {
        {"nfs://h/x", 77, NULL},
        {"nfs://h/x?uid=1", 1, NULL},
        {"nfs://h/x?uid=10", 10, NULL},
        {"nfs://h/x?uid", 0, "\"nfs://h/x?uid\": the option \"uid\" needs a number from 1 to 10"},
        {"nfs://h/x?uid=11", 0,
         "\"nfs://h/x?uid=11\": the option \"uid\": \"11\" is out of range: it must be from 1 to "
         "10"},
        {"nfs://h/x?uid=me", 0,
         "\"nfs://h/x?uid=me\": the option \"uid\": \"me\" is not a whole decimal number"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct blk_error error = {0};
        struct url url;
        uint64_t value = 0;
        int status;

        assert_int_equal(url_parse(cases[i].text, &url, NULL), 0);
        status = url_param_number(&url, "uid", 1, 10, 77, &value, &error);
        assert_int_equal(status, cases[i].error != NULL ? -EINVAL : 0);
        assert_string_equal(error.text, cases[i].error != NULL ? cases[i].error : "");
        assert_int_equal(value, cases[i].value);
        url_release(&url);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_bad),
        cmocka_unit_test(test_empty),        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_long_host),    cmocka_unit_test(test_long_quote),
        cmocka_unit_test(test_many_parts),   cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_options),      cmocka_unit_test(test_param),
        cmocka_unit_test(test_param_number),
    };

    return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
