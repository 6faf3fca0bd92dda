/* SPDX-License-Identifier: MIT
 *
 * Which entries of apt's sources a guest image is built from.
 */
#include "common/io.h"
#include "daemon/image_priv.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define KEY "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"

static struct strv found;

static size_t parse(const char *text, bool deb822)
{
    struct err e = ERR_INIT;

    strv_done(&found);
    found = STRV_INIT;
    ASSERT_OK(image_sources_parse(text, deb822, "bookworm", &found, &e), e);
    return found.n;
}

static size_t stanza(const char *more)
{
    static char text[4096];

    snprintf(text, sizeof(text), "Types: deb\nURIs: http://mirror.test/debian\n%s%s%s", more,
             strstr(more, "Suites:") ? "" : "Suites: bookworm\n",
             strstr(more, "Components:") ? "" : "Components: main\n");
    return parse(text, true);
}

TEST(stanzas_of_debian_are_taken)
{
    ASSERT_EQ(parse("Types: deb deb-src\n# a comment\nURIs: http://deb.debian.org/debian\n"
                    "Suites: bookworm bookworm-updates bookworm-backports\n"
                    "Components: main contrib\n"
                    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
                    "Types: deb\nURIs: http://deb.debian.org/debian-security\n"
                    "Suites: bookworm-security\nComponents: main", true), 3);
    ASSERT_STREQ(found.items[0], "deb " KEY " http://deb.debian.org/debian bookworm main");
    ASSERT_STREQ(found.items[1], "deb " KEY " http://deb.debian.org/debian bookworm-updates main");
    ASSERT_STREQ(found.items[2],
                 "deb " KEY " http://deb.debian.org/debian-security bookworm-security main");
}

TEST(fields_may_be_folded)
{
    ASSERT_EQ(stanza("Suites: bookworm\n bookworm-updates\n# between\n\tbookworm-security\n"), 3);
    ASSERT_EQ(stanza("Suites:\n bookworm\nComponents:\n main\n"), 1);
    ASSERT_EQ(stanza("Suites: bookworm\nX-Other: a\n Suites: bookworm-updates\n"), 1);
    ASSERT_STREQ(found.items[0], "deb " KEY " http://mirror.test/debian bookworm main");
}

TEST(what_is_disabled_is_not_taken)
{
    ASSERT_EQ(stanza("Enabled: no\n"), 0);
    ASSERT_EQ(stanza("Enabled: false\n"), 0);
    ASSERT_EQ(stanza("enabled:  No\r\n"), 0);
    ASSERT_EQ(stanza("Enabled: yes\n"), 1);
    ASSERT_EQ(stanza("Enabled: yes # not now, nobody\n"), 1);
    ASSERT_EQ(parse("# deb http://deb.debian.org/debian bookworm main\n", false), 0);
}

TEST(only_whole_names_of_debians_keyrings_count)
{
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp\n"), 1);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/debian-archive-bookworm-stable.gpg\n"), 1);
    ASSERT_EQ(stanza("Signed-By: /etc/apt/trusted.gpg.d/debian-archive-bookworm-automatic.asc\n"),
              1);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/not-debian-archive-keyring.gpg\n"), 0);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg.evil\n"), 0);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/debian-archive-evil.gpg\n"), 0);
    ASSERT_EQ(stanza("Signed-By: /home/x/debian-archive-keyring.gpg\n"), 0);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/../debian-archive-keyring.gpg\n"), 0);
    ASSERT_EQ(stanza("Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
                     " /usr/share/keyrings/other.gpg\n"), 0);
    ASSERT_EQ(stanza("Signed-By: 0123456789ABCDEF0123456789ABCDEF01234567\n"), 0);
}

TEST(a_key_written_out_is_anothers)
{
    ASSERT_EQ(stanza("Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n"
                     " mQINBdebian-archive-keyring.gpg\n -----END PGP PUBLIC KEY BLOCK-----\n"), 0);
}

TEST(others_repositories_are_passed_over)
{
    ASSERT_EQ(parse("deb https://packages.other.test/debian/12/prod bookworm main\n", false), 0);
    ASSERT_EQ(parse("deb https://debian.org.other.test/x bookworm main\n", false), 0);
    ASSERT_EQ(parse("deb https://evildebian.org/x bookworm main\n", false), 0);
    ASSERT_EQ(parse("deb [signed-by=/etc/apt/keyrings/x.asc] https://x.test/linux/debian bookworm "
                    "main\n", false), 0);
    ASSERT_EQ(parse("deb https://x.test/debian bookworm-pgdg main\n", false), 0);
    ASSERT_EQ(parse("deb https://x.test/debian bookworm stable\n", false), 0);
    ASSERT_EQ(parse("deb cdrom:[Debian] bookworm main\n", false), 0);
    ASSERT_EQ(parse("deb [arch=arm64] http://deb.debian.org/debian bookworm main\n", false), 0);
    ASSERT_EQ(parse("deb-src http://deb.debian.org/debian bookworm main\n", false), 0);
}

TEST(lines_and_their_options)
{
    ASSERT_EQ(parse("deb http://snapshot.debian.org/archive/debian/20250520T000000Z/ bookworm "
                    "main contrib # comment\r\n"
                    "deb [ arch=amd64,i386 check-valid-until=no trusted=yes "
                    "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] "
                    "http://any.test/proxy bookworm-security main", false), 2);
    ASSERT_CONTAINS(found.items[0], "deb " KEY " http://snapshot.debian.org/archive/");
    ASSERT_STREQ(found.items[1],
                 "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg "
                 "check-valid-until=no] http://any.test/proxy bookworm-security main");
    ASSERT_EQ(parse("deb\n\ndeb [\ndeb [] \ndeb x\n", false), 0);
}

static void put(const char *name, const char *text)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path(name), text, strlen(text), 0644, &e), e);
}

TEST(a_host_without_debian_is_an_error_whatever_is_in_the_list)
{
    struct err e = ERR_INIT;

    strv_done(&found);
    ASSERT_SYS(mkdir(test_path("etc"), 0755));
    ASSERT_SYS(mkdir(test_path("etc/apt"), 0755));
    ASSERT_SYS(mkdir(test_path("etc/apt/sources.list.d"), 0755));
    put("etc/apt/sources.list.d/other.list", "deb https://x.test/apt bookworm main\n");
    put("etc/apt/sources.list.d/debian.sources.save",
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n");
    ASSERT_OK(strv_add(&found, "mmdebstrap", &e), e);
    ASSERT_ERR(image_sources_read(test_dir(), "bookworm", &found, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(found.n, 1);
    put("etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n");
    e = ERR_INIT;
    ASSERT_OK(image_sources_read(test_dir(), "bookworm", &found, &e), e);
    ASSERT_EQ(found.n, 2);
}
