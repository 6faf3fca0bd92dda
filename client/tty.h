/* SPDX-License-Identifier: MIT
 *
 * tty: the terminal. There is one per process, so its state is here and not in an object.
 * tty_restore() is the only way back: it is called on every way out, by atexit() and by handlers of
 * deadly signals too, does nothing the second time, and is safe in a signal handler.
 *
 * Programs in the guest switch on modes of the terminal (other screen, mouse, bracketed paste).
 * They switch them off again when they end, but not when the connection does: tty_watch() notes
 * what is on, and tty_restore() puts it back.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raw mode on fd, saved for tty_restore(). */
int tty_raw(int fd, struct err *e);
void tty_restore(void);
/* After a stop: raw again if this process is in the foreground. */
void tty_resume(void);
/* Size of the first of stdout, stdin, stderr that is a terminal. false: none, or it does not know.
 * */
bool tty_size(uint16_t *ret_rows, uint16_t *ret_cols);
/* Output on its way to the terminal, in pieces of any length. */
void tty_watch(const uint8_t *data, size_t len);

#define DETACH_KEYS_DEFAULT "ctrl-p,ctrl-q"
#define DETACH_KEYS_MAX 8

/* "ctrl-p,ctrl-q": letters or ctrl- and one of a-z @ [ \ ] ^ _, with commas. "" is no keys. */
struct detach_keys {
    uint8_t key[DETACH_KEYS_MAX];
    size_t n;
    size_t matched;     /* how many of them were just typed */
};

int detach_keys_parse(const char *text, struct detach_keys *ret, struct err *e);
/* Copies typed bytes to `out` (room for len + DETACH_KEYS_MAX), holding back a beginning of the
 * sequence until it is clear what it is. true: the sequence is complete; the rest is not copied. */
bool detach_keys_filter(struct detach_keys *d, const uint8_t *in, size_t len, uint8_t *out,
                        size_t *ret_out);
