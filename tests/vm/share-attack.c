/* SPDX-License-Identifier: MIT
 *
 * Run by root of a guest in its workspace; static, as no guest has a compiler. Prints what it saw.
 *
 *     exchange A B N    the names A and B change places N times
 *     look PATH N TEXT  opens PATH N times: how often that worked, and how often TEXT was in it
 *     hold DIR N        makes N files in DIR and keeps them all open: how many, and the first error
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int exchange(const char *a, const char *b, long n)
{
    long done = 0;

    while (done < n && renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0)
        done++;
    printf("%ld %s\n", done, done < n ? strerror(errno) : "ok");
    return 0;
}

static int look(const char *path, long n, const char *text)
{
    long opened = 0, found = 0;

    for (long i = 0; i < n; i++) {
        char content[4096] = "";
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

        if (fd < 0)
            continue;
        opened++;
        if (read(fd, content, sizeof(content) - 1) > 0 && strstr(content, text))
            found++;
        close(fd);
    }
    printf("%ld %ld\n", opened, found);
    return 0;
}

static int hold(const char *dir, long n)
{
    struct rlimit limit = { .rlim_cur = (rlim_t)n + 64, .rlim_max = (rlim_t)n + 64 };
    char name[4096];
    long made = 0;

    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        perror("setrlimit");
        return 1;
    }
    for (; made < n; made++) {
        snprintf(name, sizeof(name), "%s/%ld", dir, made);
        if (open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600) < 0)
            break;
    }
    printf("%ld %s\n", made, made < n ? strerror(errno) : "ok");
    fflush(stdout);
    pause();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "exchange") == 0)
        return exchange(argv[2], argv[3], strtol(argv[4], NULL, 10));
    if (argc == 5 && strcmp(argv[1], "look") == 0)
        return look(argv[2], strtol(argv[3], NULL, 10), argv[4]);
    if (argc == 4 && strcmp(argv[1], "hold") == 0)
        return hold(argv[2], strtol(argv[3], NULL, 10));
    fprintf(stderr, "see the top of share-attack.c\n");
    return 2;
}
