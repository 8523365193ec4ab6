/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a name in an image leads to, and whether it may: a row for each combination of where the image lies, the
 * name, and what the user allows. */
#include "fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/format/image_names.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct row {
    const char *image, *name;
    const char *allowed[3]; /* ends with NULL */
    /* What it leads to; or NULL: a refusal, with these words in it. */
    const char *leads_to, *words;
    bool bare;
};

#define NFS "nfs://filer/vms/a.qcow2"

static const struct row rows[] = {
    /* Beneath its own directory. */
    {NFS, "b.qcow2", {0}, "nfs://filer/vms/b.qcow2", 0, 0},
    {NFS, "./b.qcow2", {0}, "nfs://filer/vms/b.qcow2", 0, 0},
    {NFS, "c//./d/b.qcow2", {0}, "nfs://filer/vms/c/d/b.qcow2", 0, 0},
    {NFS, "c/../b.qcow2", {0}, "nfs://filer/vms/b.qcow2", 0, 0},
    {NFS, "...", {0}, "nfs://filer/vms/...", 0, 0},
    {NFS, "..b", {0}, "nfs://filer/vms/..b", 0, 0},
    {NFS, "b?uid=0", {0}, "nfs://filer/vms/b%3Fuid=0", 0, 0},
    {NFS, "./nfs:b", {0}, "nfs://filer/vms/nfs:b", 0, 0},
    {NFS "?uid=3", "b", {0}, "nfs://filer/vms/b?uid=3", 0, 0},
    {"nfs://filer//a", "b", {0}, "nfs://filer//b", 0, 0},
    {"nfs://filer//c/a", "b", {0}, "nfs://filer//c/b", 0, 0},
    {"vms/a.qcow2", "b", {0}, "vms/b", 0, 0},
    {"a.qcow2", "b", {0}, "b", 0, 0},
    {"/a.qcow2", "b", {0}, "/b", 0, 0},
    {"a.qcow2", "./nfs:b", {0}, "./nfs:b", 0, 0},
    {"../a.qcow2", "b", {0}, "../b", 0, 0},
    {"a.qcow2", "-", {0}, "-", 0, 0},

    /* Outside of it. */
    {NFS, "../b", {0}, 0, "lies outside of the image's own directory", 0},
    {NFS, "../b", {0}, 0, "--allow-backing=.. allows it", 0},
    {NFS, "c/../../b", {0}, 0, "lies outside", 0},
    {NFS, "c/../../vms/b", {0}, 0, "--allow-backing=c/../../vms allows it", 0},
    {"vms/a.qcow2", "../b", {0}, 0, "lies outside", 0},
    {NFS, "../b", {".."}, "nfs://filer//b", 0, 0},
    {NFS, "../b", {"any"}, "nfs://filer//b", 0, 0},
    {NFS, "../../../b", {"any"}, "nfs://filer//b", 0, 0},
    {"vms/a.qcow2", "../b", {".."}, "vms/../b", 0, 0},
    {"a.qcow2", "../../b", {"any"}, "../../b", 0, 0},
    {NFS, "../base/b", {"../base"}, "nfs://filer/base/b", 0, 0},
    {NFS, "../base", {"../base"}, "nfs://filer//base", 0, 0},
    {NFS, "../base/b", {"../base/"}, "nfs://filer/base/b", 0, 0},
    {NFS, "../base/b", {"x/../../base/."}, "nfs://filer/base/b", 0, 0},
    {NFS, "x/../../base/b", {"../base"}, "nfs://filer/base/b", 0, 0},
    {NFS, "../base/b", {"/base", "nfs://filer/base", "base"}, 0, "lies outside", 0},
    {NFS, "../base-evil/b", {"../base"}, 0, "lies outside", 0},
    {NFS, "../base/../etc/b", {"../base"}, 0, "lies outside", 0},
    {NFS, "../../b", {".."}, 0, "lies outside", 0},
    {NFS, "../b", {"../x", "../b"}, "nfs://filer//b", 0, 0},

    /* From the root: a file of this machine, wherever the image lies. */
    {NFS, "/images/b", {0}, 0, "a path from the root of this machine", 0},
    {NFS, "/images/b", {0}, 0, "--allow-backing=/images allows it", 0},
    {NFS, "/b", {0}, 0, "--allow-backing=/ allows it", 0},
    {"/vms/a.qcow2", "/vms/b", {0}, 0, "a path from the root", 0},
    {NFS, "/images/b", {"/images"}, "/images/b", 0, 0},
    {NFS, "/images/b", {"/"}, "/images/b", 0, 0},
    {NFS, "/images/b", {"file:/images"}, "/images/b", 0, 0},
    {NFS, "file:/images/b", {"/images"}, "/images/b", 0, 0},
    {NFS, "/images/./c/../b", {"/images"}, "/images/b", 0, 0},
    {NFS, "/images/b", {"any"}, "/images/b", 0, 0},
    {NFS, "/images-evil/b", {"/images"}, 0, "a path from the root", 0},
    {NFS, "/images/../etc/shadow", {"/images"}, 0, "a path from the root", 0},
    {NFS, "/../images/b", {"/images"}, "/images/b", 0, 0},
    {NFS, "/images/b", {"images", "..", "nfs://filer/images"}, 0, "a path from the root", 0},

    /* URLs. */
    {NFS,
     "nfs://filer/vms/b",
     {0},
     0,
     "a URL; if that is meant, --allow-backing=nfs://filer/vms allows",
     0},
    {NFS, "nfs://filer/vms/b", {"nfs://filer/vms"}, "nfs://filer/vms/b", 0, 0},
    {NFS, "NFS://FILER/vms/b", {"nfs://filer/vms"}, "NFS://FILER/vms/b", 0, 0},
    {NFS, "nfs://filer/vms/../b", {"nfs://filer/vms"}, 0, "cannot be opened: ", 0},
    {NFS, "nfs://filer/%76ms/%2e%2e/b", {"nfs://filer/vms"}, 0, "cannot be opened: ", 0},
    {NFS, "nfs://other/vms/b", {"nfs://filer/vms", "/vms"}, 0, "a URL", 0},
    {NFS, "nfs://filer:2049/vms/b", {"nfs://filer/vms"}, 0, "a URL", 0},
    {NFS, "nfs://filer/vms/b?uid=0", {"nfs://filer/vms"}, 0, "--allow-backing=PREFIX", 0},
    {NFS, "nfs://filer/vms/b?uid=0", {"nfs://filer/vms?uid=0"}, "nfs://filer/vms/b?uid=0", 0, 0},
    {NFS,
     "iscsi://san/iqn.2001-04.com.example:a/1",
     {"iscsi://san/iqn.2001-04.com.example:a"},
     "iscsi://san/iqn.2001-04.com.example:a/1",
     0,
     0},
    {NFS,
     "iscsi://san/iqn.2001-04.com.example:a/1",
     {"iscsi://me@san/iqn.2001-04.com.example:a"},
     0,
     "a URL",
     0},
    {NFS, "nfs://filer", {"any"}, 0, "cannot be opened: ", 0},
    {NFS, "random:1T", {0}, 0, "--allow-backing=random:1T allows it", 0},
    {NFS, "random:1T", {"random:1T"}, "random:1T", 0, 0},
    {NFS, "random:1T", {"random:1"}, 0, "a URL", 0},

    /* What is QEMU's own. */
    {NFS, "json:{\"driver\":\"file\"}", {"any"}, 0, "in the way of a driver of QEMU", 0},
    {NFS, "JSON:{}", {"any"}, 0, "in the way of a driver", 0},
    {NFS, "nbd://host/x", {"any", "nbd://host"}, 0, "in the way of a driver", 0},
    {NFS, "host_device:/dev/sda", {"any"}, 0, "in the way of a driver", 0},
    {NFS, ":x", {"any"}, 0, "in the way of a driver", 0},
    {NFS, "a-scheme-that-is-longer-than-any-of-ours:x", {"any"}, 0, "in the way of a driver", 0},

    /* Directories. */
    {NFS, "..", {"any"}, 0, "the name of a directory", 0},
    {NFS, "b/..", {0}, 0, "the name of a directory", 0},
    {NFS, ".", {0}, 0, "the name of a directory", 0},
    {NFS, "", {0}, 0, "the name of a directory", 0},

    /* Where nothing lies beside the image. */
    {"iscsi://san/iqn.2001-04.com.example:a/1",
     "2",
     {"any"},
     0,
     "nothing lies beside an image that is not a file",
     true},
    {"iscsi://san/iqn.2001-04.com.example:a/1", "/images/b", {"/images"}, "/images/b", 0, true},
    {"null:1M", "b", {"any"}, 0, "nothing lies beside", false},
    {"/dev/sdb", "sda", {0}, 0, "beside a block device lie other people's disks", true},
    {"/dev/sdb", "sda", {0}, 0, "--allow-backing=sda allows it", true},
    {"/dev/vg/lv1", "lv2", {"lv2"}, "/dev/vg/lv2", 0, true},
    {"/dev/vg/lv1", "lv2", {"any"}, "/dev/vg/lv2", 0, true},
    {"/dev/vg/lv1", "lv2", {"lv3"}, 0, "other people's disks", true},

    /* Nothing in a message that a terminal would obey, and nothing to be copied from it then. */
    {NFS, "../a\033[2J\nb/c", {0}, 0, "\"../a?[2J?b/c\", which lies outside", 0},
    {NFS, "../a\033[2J\nb/c", {0}, 0, "--allow-backing=PREFIX allows it", 0},
    {NFS, "../$(reboot)/c", {0}, 0, "--allow-backing=PREFIX allows it", 0},
};

static void explain(const struct row *row, const struct url *url, const struct blk_error *error)
{
    print_error("%s names %s, allowed %s: leads to %s; %s\n", row->image, row->name,
                row->allowed[0] ? row->allowed[0] : "nothing", url->text ? url->text : "nothing",
                error->text);
}

static bool is_right(const struct row *row, int status, const struct url *url,
                     const struct blk_error *error)
{
    if (row->leads_to)
        return status == 0 && strcmp(url->text, row->leads_to) == 0;
    return status < 0 && status == -error->code && strstr(error->text, row->words) &&
           strncmp(error->text, "its backing file ", 17) == 0;
}

static void check(const struct row *row)
{
    struct image_choice choice = {.allowed = row->allowed};
    struct image_name name = {row->name, "backing file", NULL, row->bare, &choice};
    struct blk_error error = {.code = 0};
    struct url image, url;
    int status;

    while (choice.allowed_count < COUNT(row->allowed) && row->allowed[choice.allowed_count])
        choice.allowed_count++;
    assert_int_equal(url_parse(row->image, &image, NULL), 0);
    name.image = &image;
    status = image_name_resolve(&name, &url, &error);
    if (!is_right(row, status, &url, &error)) {
        explain(row, &url, &error);
        fail();
    }
    url_release(&url);
    url_release(&image);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        check(&rows[i]);
}

/* A name of the greatest length, of characters of three bytes: the message is whole. */
static void test_long_name(void **state)
{
    struct image_choice choice = {.allowed_count = 0};
    struct image_name name = {NULL, "data file", NULL, false, &choice};
    struct blk_error error;
    struct url image, url;
    char text[1024] = "../";

    (void)state;
    for (size_t at = 3; at + 3 < sizeof(text); at += 3)
        memcpy(text + at, "\xe2\x82\xac", 4);
    assert_int_equal(url_parse(NFS, &image, NULL), 0);
    name.name = text;
    name.image = &image;
    assert_int_equal(image_name_resolve(&name, &url, &error), -EPERM);
    assert_non_null(strstr(error.text, "\xe2\x82\xac...\", which lies outside"));
    assert_non_null(strstr(error.text, "--allow-backing=.. allows it"));
    url_release(&url);
    url_release(&image);
}

static void test_formats(void **state)
{
    static const struct {
        const char *url;
        enum image_format format;
    } names[] = {
        {"a.qcow2", IMAGE_QCOW2},
        {"nfs://f/a.QCOW2?uid=0", IMAGE_QCOW2},
        {"a.qcow", IMAGE_QCOW},
        {"a.img", IMAGE_BY_NAME},
        {"qcow2", IMAGE_BY_NAME},
        {"a.qcow2/b", IMAGE_BY_NAME},
        {"a.qcow2.bak", IMAGE_BY_NAME},
        {"a.qcow22", IMAGE_BY_NAME},
        {"nfs://f/a%2Eqcow2", IMAGE_QCOW2},
        {"null:1M", IMAGE_BY_NAME},
    };
    enum image_format format = IMAGE_BY_NAME;

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct url url;

        assert_int_equal(url_parse(names[i].url, &url, NULL), 0);
        assert_int_equal(image_format_of(&url), names[i].format);
        url_release(&url);
    }
    for (enum image_format each = IMAGE_RAW; each <= IMAGE_QCOW; each++) {
        assert_true(image_format_parse(image_format_name(each), &format));
        assert_int_equal(format, each);
    }
    assert_false(image_format_parse("vmdk", &format));
    assert_false(image_format_parse("", &format));
}

/* ---- The backing name of an image that is to be made ------------------------------------------- */

static const struct {
    const char *image, *name;
    const char *leads_to, *recorded; /* NULL: a refusal, with the words */
    const char *words;
} made[] = {
    {NFS, "b.qcow2", "nfs://filer/vms/b.qcow2", "b.qcow2", 0},
    {NFS, "../b", "nfs://filer//b", "../b", 0},
    {NFS, "../base/b", "nfs://filer/base/b", "../base/b", 0},
    {"vms/a.qcow2", "b", "vms/b", "b", 0},
    {"vms/a.qcow2", "/base/b", "/base/b", "/base/b", 0},
    /* Beneath the image's directory: relative, so that both can be moved. */
    {NFS, "nfs://filer/vms/b.qcow2", "nfs://filer/vms/b.qcow2", "b.qcow2", 0},
    {NFS, "nfs://filer/vms/c/b", "nfs://filer/vms/c/b", "c/b", 0},
    {"/vms/a", "/vms/c/b", "/vms/c/b", "c/b", 0},
    {"/vms/a", "file:/vms/b", "file:/vms/b", "b", 0},
    /* Not beneath it, or not of the same kind. */
    {NFS, "nfs://filer/vms-2/b", "nfs://filer/vms-2/b", "nfs://filer/vms-2/b", 0},
    {NFS, "nfs://other/vms/b", "nfs://other/vms/b", "nfs://other/vms/b", 0},
    {NFS, "nfs://filer/vms/b?uid=3", "nfs://filer/vms/b?uid=3", "nfs://filer/vms/b?uid=3", 0},
    {NFS, "nfs://filer/vms/nfs:b", "nfs://filer/vms/nfs:b", "nfs://filer/vms/nfs:b", 0},
    {NFS, "/vms/b", "/vms/b", "/vms/b", 0},
    {"a", "/b", "/b", "/b", 0},
    {"iscsi://filer/iqn.a/1", "nfs://filer/vms/b", "nfs://filer/vms/b", "nfs://filer/vms/b", 0},
    {NFS, "iscsi://u@filer/iqn.a/1", "iscsi://u@filer/iqn.a/1", "iscsi://u@filer/iqn.a/1", 0},
    /* Refused. */
    {"iscsi://filer/iqn.a/1", "b", 0, 0, "a relative name"},
    {NFS, "json:{}", 0, 0, "in the way of a driver of QEMU"},
    {NFS, "c/..", 0, 0, "the name of a directory"},
    {NFS, "iscsi://u:secret@filer/iqn.a/1", 0, 0, "would hold a password"},
};

static void test_made(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(made); i++) {
        struct url image, url, expected;
        struct blk_error error;
        char *recorded;
        int status;

        assert_int_equal(url_parse(made[i].image, &image, &error), 0);
        status = image_backing_name(&image, made[i].name, &url, &recorded, &error);
        if (!made[i].leads_to) {
            assert_int_equal(status, -EINVAL);
            if (!strstr(error.text, made[i].words) || strstr(error.text, "secret"))
                fail_msg("%s: %s", made[i].name, error.text);
        } else {
            if (status < 0)
                fail_msg("%s: %s", made[i].name, error.text);
            assert_int_equal(url_parse(made[i].leads_to, &expected, &error), 0);
            assert_string_equal(url.scheme, expected.scheme);
            assert_string_equal(url.path, expected.path);
            assert_string_equal(recorded, made[i].recorded);
            url_release(&expected);
        }
        free(recorded);
        url_release(&url);
        url_release(&image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_made),
    };

    return cmocka_run_group_tests_name("image_names", tests, NULL, NULL);
}
