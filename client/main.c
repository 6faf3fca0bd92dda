/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/opts.h"
#include "client/out.h"
#include "client/tty.h"
#include "common/auto.h"
#include "common/jfield.h"
#include "common/name.h"
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <string.h>

/* Closed standard fds would be given to sockets, and output would go there. */
static void open_standard_fds(void)
{
    int fd = open("/dev/null", O_RDWR);

    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    fd_close(fd);
}

static int show_help(const struct command *c, struct err *e)
{
    autosbuf struct sbuf b = SBUF(64 * 1024);

    if (c)
        help_command(&b, c);
    else
        help_overview(&b);
    return b.failed ? err_nomem(e) : out_write(b.data, b.len, e);
}

static int run_command(struct app *app, const struct command *c, int argc, char **argv,
                       struct opts_global *g, struct err *e)
{
    autofree void *opts = calloc(1, c->opts_size + 1);
    autofree char **args = calloc((size_t)argc + 1, sizeof(*args));
    size_t n = 0;
    int r = -1;

    if (!opts || !args)
        return err_nomem(e);
    app->command = c;
    if (opts_parse(c, argc, argv, g, opts, args, &n, e) == 0) {
        app->debug = g->debug;
        if (g->help)
            r = show_help(c, e);
        else if (host_init(&app->host, g->host, e) == 0)
            r = c->run(app, opts, args, n, e);
    }
    opts_done(c, opts);
    return r;
}

/* What is sent is JSON, hence Unicode. Anything else would have to be changed on the way, and a
 * command that is not the one that was typed is worse than none. */
static int check_text(int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++)
        if (!utf8_valid(argv[i], strlen(argv[i]))) {
            err_set(e, ERR_USAGE, "argument %d is not UTF-8 text: '%.80s'", i, argv[i]);
            return err_hint(e, "make such bytes inside, for example: sh -c 'ls \"$(printf ...)\"'");
        }
    return 0;
}

static int run(struct app *app, int argc, char **argv, struct err *e)
{
    struct opts_global g = { 0 };
    int rest = 0, used = 0;

    if (check_text(argc, argv, e) < 0)
        return -1;
    if (opts_parse_global(argc - 1, argv + 1, &g, &rest, e) < 0)
        return -1;
    argc -= rest + 1;
    argv += rest + 1;
    if (g.version) {
        printf("sbx %s\n", SBX_VERSION);
        return 0;
    }
    if (argc == 0 || (argc == 1 && g.help && command_is_group(argv[0]))) {
        if (g.help)
            return show_help(NULL, e);
        autosbuf struct sbuf b = SBUF(64 * 1024);
        help_overview(&b);
        fputs(sbuf_str(&b), stderr);
        return EXIT_OURS;
    }
    if (command_is_group(argv[0]) && (argc == 1 || strcmp(argv[1], "--help") == 0 ||
                                      strcmp(argv[1], "-h") == 0)) {
        autosbuf struct sbuf b = SBUF(64 * 1024);
        help_group(&b, argv[0]);
        if (argc > 1)
            return out_write(sbuf_str(&b), b.len, e);
        fputs(sbuf_str(&b), stderr);
        return EXIT_OURS;
    }
    const struct command *c = command_find(argc, argv, &used, e);
    return c ? run_command(app, c, argc - used, argv + used, &g, e) : -1;
}

int main(int argc, char **argv)
{
    struct app app = { 0 };
    struct err e = ERR_INIT;

    open_standard_fds();
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)        /* text of the API is UTF-8 whatever the locale says */
        setlocale(LC_CTYPE, "C.UTF-8");
    json_init();
    int status = run(&app, argc, argv, &e);
    if (status >= 0 && out_flush(&e) < 0)
        status = -1;
    tty_restore();
    client_free(app.client);
    host_done(&app.host);
    if (app.interrupted)
        return 128 + app.interrupted;
    if (status >= 0)
        return status;
    report(&e);
    return err_exit_status(e.code);
}
