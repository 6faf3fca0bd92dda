/* SPDX-License-Identifier: MIT
 *
 * replay: main() of a fuzz target without an engine. Runs each file of the folder given and, for
 * each, a number of mutations that are the same in every run (SBX_FUZZ_ROUNDS, 200 unless told).
 * Speaks TAP; a target that aborts ends the run; its input is in ./crash-<target> then.
 */
#include "tests/fuzz/fuzz.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define INPUT_MAX ((size_t)1 << 20)

static const uint8_t *current;      /* what the target is running on, for the crash file */
static size_t current_len;
static char crash_file[64];

static void save_input(int sig)
{
    int fd = open(crash_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    static const char text[] = "# the input is in ./crash-<target>\n";

    if (fd >= 0 && write(fd, current, current_len) == (ssize_t)current_len)
        (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    signal(sig, SIG_DFL);
    raise(sig);
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* One small change: a byte, a bit, a cut, a piece doubled, a piece of numbers or brackets. */
static size_t mutate(uint8_t *data, size_t n, size_t cap, uint32_t *state)
{
    static const char *const words[] = { "0", "-1", "4294967296", "9223372036854775807", "[", "{",
                                         "\"", "\\u0000", "\xff", "null", "1e9", ",", "\n" };
    uint32_t r = next_random(state);
    size_t at = n > 0 ? next_random(state) % n : 0, len;

    switch (r % 6) {
    case 0:
        if (n > 0)
            data[at] = (uint8_t)(r >> 8);
        return n;
    case 1:
        if (n > 0)
            data[at] ^= (uint8_t)(1u << (r >> 8) % 8);
        return n;
    case 2:
        return at;
    case 3: /* take out a piece */
        len = n > at ? (r >> 8) % (n - at) % 16 + 1 : 0;
        if (n == 0)
            return 0;
        memmove(data + at, data + at + len, n - at - len);
        return n - len;
    case 4: /* double a piece */
        len = n > at ? (r >> 8) % (n - at) % 64 + 1 : 0;
        if (n == 0 || n + len > cap)
            return n;
        memmove(data + at + len, data + at, n - at);
        return n + len;
    default: { /* put a word in */
        const char *word = words[(r >> 8) % ARRAY_SIZE(words)];

        len = strlen(word);
        if (n + len > cap)
            return n;
        memmove(data + at + len, data + at, n - at);
        memcpy(data + at, word, len);
        return n + len;
    }
    }
}

/* In a block of its own size, so that the address sanitizer sees a read past the end. */
static void run(const uint8_t *data, size_t n)
{
    autofree uint8_t *exact = malloc(n > 0 ? n : 1);

    if (!exact)
        abort();
    memcpy(exact, data, n);
    current = exact;
    current_len = n;
    LLVMFuzzerTestOneInput(exact, n);
}

static void run_seed(const char *seed, size_t n, uint64_t rounds)
{
    size_t cap = n * 2 + 256;
    autofree uint8_t *work = malloc(cap);
    uint32_t state = 2463534242u ^ (uint32_t)n;

    if (!work)
        abort();
    run((const uint8_t *)seed, n);
    for (uint64_t i = 0; i < rounds; i++) {
        size_t len = n;

        memcpy(work, seed, n);
        for (uint32_t k = next_random(&state) % 4 + 1; k > 0; k--)
            len = mutate(work, len, cap, &state);
        run(work, len);
    }
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    const char *rounds_text = getenv("SBX_FUZZ_ROUNDS");
    uint64_t rounds = 200;
    struct dirent **names;
    int n;

    if (argc != 2 || (rounds_text && !parse_u64(rounds_text, 0, UINT32_MAX, &rounds))) {
        fprintf(stderr, "usage: [SBX_FUZZ_ROUNDS=N] %s FOLDER\n", argv[0]);
        return 2;
    }
    autoclose int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    n = scandir(argv[1], &names, visible, by_name);
    if (dir < 0 || n < 0) {
        printf("Bail out! cannot read %s\n", argv[1]);
        return 1;
    }
    snprintf(crash_file, sizeof(crash_file), "crash-%.48s", program_invocation_short_name);
    signal(SIGABRT, save_input);
    signal(SIGSEGV, save_input);
    printf("TAP version 13\n1..%d\n", n);
    fflush(stdout);
    run((const uint8_t *)"", 0);
    for (int i = 0; i < n; i++) {
        autofree char *data = NULL;
        struct err e = ERR_INIT;
        size_t len = 0;

        if (io_read_file_at(dir, names[i]->d_name, INPUT_MAX, &data, &len, &e) < 0) {
            printf("not ok %d - %s\n# %s\n", i + 1, names[i]->d_name, e.msg);
            return 1;
        }
        printf("# %s\n", names[i]->d_name);
        fflush(stdout);
        run_seed(data, len, rounds);
        printf("ok %d - %s\n", i + 1, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return 0;
}
