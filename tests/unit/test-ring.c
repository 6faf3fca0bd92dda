/* SPDX-License-Identifier: MIT */
#include "daemon/ring.h"
#include "tests/harness/test.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 100000

static int open_dir(void)
{
    return ASSERT_SYS(open(test_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static struct ring *open_ring(int fd)
{
    struct err e = ERR_INIT;
    struct ring *r = NULL;
    ASSERT_EQ(ring_open(fd, "r.out", SIZE, &r, &e), 0);
    return r;
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 7 + offset / 251);
}

static void put(struct ring *r, uint64_t offset, size_t len)
{
    struct err e = ERR_INIT;
    uint8_t *p = malloc(len ? len : 1);
    for (size_t i = 0; i < len; i++)
        p[i] = byte_at(offset + i);
    ASSERT_EQ(ring_write(r, offset, p, len, &e), 0);
    free(p);
}

static void check_all(struct ring *r, uint64_t from, uint64_t lost_wanted)
{
    struct err e = ERR_INIT;
    uint8_t buf[7777];
    uint64_t offset = from, lost, lost_sum = 0;
    int64_t n;
    while ((n = ring_read(r, &offset, buf, sizeof(buf), &lost, &e)) > 0) {
        lost_sum += lost;
        for (int64_t i = 0; i < n; i++)
            ASSERT_EQ(buf[i], byte_at(offset - (uint64_t)n + (uint64_t)i));
    }
    ASSERT_EQ(n, 0);
    ASSERT_EQ(offset, ring_end(r));
    ASSERT_EQ(lost_sum, lost_wanted);
}

TEST(an_empty_ring_has_nothing)
{
    struct err e = ERR_INIT;
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    uint8_t buf[8];
    uint64_t offset = 0, lost = 9;
    ASSERT_EQ(ring_start(r), 0u);
    ASSERT_EQ(ring_end(r), 0u);
    ASSERT_EQ(ring_read(r, &offset, buf, sizeof(buf), &lost, &e), 0);
    ASSERT_EQ(lost, 0u);
    ring_free(r);
    ring_free(NULL);
    close(fd);
}

TEST(what_is_written_is_read_around_the_end)
{
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    static const size_t sizes[] = { 1, 3, 32768, 32769, 50000, 99999, 100000, 65536, 17 };
    uint64_t end = 0;
    for (size_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            put(r, end, sizes[i]);
            end += sizes[i];
            uint64_t start = end > SIZE ? end - SIZE : 0;
            ASSERT_EQ(ring_end(r), end);
            ASSERT_EQ(ring_start(r), start);
            check_all(r, 0, start);
            check_all(r, start, 0);
        }
    }
    ring_free(r);
    close(fd);
}

TEST(one_write_larger_than_the_ring_keeps_its_tail)
{
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    put(r, 0, 3 * SIZE + 12345);
    ASSERT_EQ(ring_end(r), 3u * SIZE + 12345);
    check_all(r, 0, 2 * SIZE + 12345);
    ring_free(r);
    close(fd);
}

TEST(known_bytes_are_skipped_and_gaps_refused)
{
    struct err e = ERR_INIT;
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    put(r, 0, 1000);
    ASSERT_EQ(ring_write(r, 0, "XXXX", 4, &e), 0); /* not taken a second time */
    put(r, 500, 1000);                             /* half known, half new */
    put(r, 1500, 0);
    ASSERT_EQ(ring_end(r), 1500u);
    check_all(r, 0, 0);
    ASSERT_EQ(ring_write(r, 1501, "x", 1, &e), -1);
    ASSERT_EQ(e.code, ERR_GUEST);
    e = ERR_INIT;
    ASSERT_EQ(ring_write(r, UINT64_MAX, "xx", 2, &e), -1);
    ASSERT_EQ(e.code, ERR_GUEST);
    ASSERT_EQ(ring_end(r), 1500u);
    ring_free(r);
    close(fd);
}

TEST(a_ring_survives_being_closed)
{
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    put(r, 0, SIZE + 5000);
    ring_free(r);
    r = open_ring(fd);
    ASSERT_EQ(ring_end(r), SIZE + 5000u);
    put(r, SIZE + 5000, 321);
    check_all(r, 0, 5321);
    ring_free(r);
    close(fd);
}

/* Killed between data and header: the header's promise still holds, the data comes again. */
TEST(data_without_its_header_does_no_harm)
{
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    put(r, 0, 2 * SIZE);
    ring_free(r);
    int file = openat(fd, "r.out", O_RDWR);
    uint8_t junk[32768];
    memset(junk, 0xee, sizeof(junk));
    /* where the next piece would have gone: 2 * SIZE modulo the circle */
    off_t at = 64 + 2 * SIZE % (SIZE + 32768);
    size_t first = SIZE + 32768 - 2 * SIZE % (SIZE + 32768);
    if (first > sizeof(junk))
        first = sizeof(junk);
    ASSERT_EQ(pwrite(file, junk, first, at), (ssize_t)first);
    ASSERT_EQ(pwrite(file, junk, sizeof(junk) - first, 64), (ssize_t)(sizeof(junk) - first));
    close(file);
    r = open_ring(fd);
    check_all(r, 0, SIZE);
    ring_free(r);
    close(fd);
}

TEST(foreign_or_damaged_files_are_refused)
{
    struct err e = ERR_INIT;
    struct ring *r = NULL;
    int fd = open_dir();
    ASSERT_EQ(mkdirat(fd, "d", 0700), 0);
    ASSERT_EQ(ring_open(fd, "d", SIZE, &r, &e), -1);
    e = ERR_INIT;
    ASSERT_EQ(symlinkat("r.out", fd, "l"), 0);
    ASSERT_EQ(ring_open(fd, "l", SIZE, &r, &e), -1);
    e = ERR_INIT;
    int file = openat(fd, "short", O_RDWR | O_CREAT, 0600);
    ASSERT_EQ(write(file, "abc", 3), 3);
    close(file);
    ASSERT_EQ(ring_open(fd, "short", SIZE, &r, &e), -1);
    e = ERR_INIT;
    ring_free(open_ring(fd));
    ASSERT_EQ(ring_open(fd, "r.out", SIZE * 2, &r, &e), -1); /* made for another size */
    struct stat st;
    ASSERT_EQ(fstatat(fd, "r.out", &st, 0), 0);
    ASSERT_EQ(st.st_mode & 07777, 0600u);
    close(fd);
}

static void *writer(void *arg)
{
    struct ring *r = arg;
    for (uint64_t at = 0; at < 20 * SIZE; at += 1000)
        put(r, at, 1000);
    return NULL;
}

TEST(reader_and_writer_at_once)
{
    struct err e = ERR_INIT;
    int fd = open_dir();
    struct ring *r = open_ring(fd);
    pthread_t th;
    ASSERT_EQ(pthread_create(&th, NULL, writer, r), 0);
    uint8_t buf[4096];
    uint64_t offset = 0, lost;
    while (offset < 20 * SIZE) {
        int64_t n = ring_read(r, &offset, buf, sizeof(buf), &lost, &e);
        ASSERT_TRUE(n >= 0);
        for (int64_t i = 0; i < n; i++)
            ASSERT_EQ(buf[i], byte_at(offset - (uint64_t)n + (uint64_t)i));
    }
    pthread_join(th, NULL);
    ring_free(r);
    close(fd);
}

TEST(a_parked_ring_is_read_without_a_descriptor)
{
    struct err e = ERR_INIT;
    int fd = open_dir(), before = test_count_fds();
    struct ring *r = open_ring(fd);
    put(r, 0, SIZE + 500);
    ring_park(r);
    ring_park(r);
    ASSERT_EQ(test_count_fds(), before);
    check_all(r, 0, 500);
    ASSERT_ERR(ring_write(r, SIZE + 500, "x", 1, &e), e, ERR_INTERNAL);
    ASSERT_SYS(unlinkat(fd, "r.out", 0));
    uint8_t buf[8];
    uint64_t offset = 1000, lost;
    ASSERT_ERR(ring_read(r, &offset, buf, sizeof(buf), &lost, &e), e, ERR_OFFSET_GONE);
    ring_free(r);
    close(fd);
}
