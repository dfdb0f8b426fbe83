/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What the test programs share. Each is one source file and wire.c. */
#ifndef NSRQ_TEST_H
#define NSRQ_TEST_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "../wire.h"

/* What is being read, for messages. */
static const char *where = "";
static int where_line;

__attribute__((noreturn, format(printf, 1, 2)))
static inline void die(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s:", where);
	if (where_line)
		fprintf(stderr, "%d:", where_line);
	fputc(' ', stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

#define CHECK(cond) do { if (!(cond)) die("%s:%d: not so: %s", \
			__FILE__, __LINE__, #cond); } while (0)

static inline int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads lower-case hexadecimal up to the end of s; at most max bytes. */
static inline size_t unhex(const char *s, u8 *out, size_t max)
{
	size_t n;

	for (n = 0; *s; n++, s += 2) {
		if (n == max || nibble(s[0]) < 0 || nibble(s[1]) < 0)
			die("bad hexadecimal, or more than %zu bytes: %s", max, s);
		out[n] = nibble(s[0]) << 4 | nibble(s[1]);
	}
	return n;
}

static inline void unhex_exactly(const char *s, u8 *out, size_t len)
{
	if (unhex(s, out, len) != len)
		die("%s is not %zu bytes", s, len);
}

static inline u64 number(const char *s)
{
	char *end;
	u64 v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno || *s < '0' || *s > '9' || *end)
		die("bad number %s", s);
	return v;
}

static inline s32 one_of(const char *word, const char *const *words, s32 n)
{
	s32 i;

	for (i = 0; i < n; i++)
		if (words[i] && !strcmp(word, words[i]))
			return i;
	die("unknown word %s", word);
}

#define ONE_OF(word, words) one_of(word, words, (s32)ARRAY_SIZE(words))

static const char *const result_names[] = {
	"status", "accepted", "stale", "policy", "masked", "vetoed", "busy",
	"malformed",
};

static const char *const field_names[] = {
	"ok", "op", "id", "body-reserved", "flags", "step-count", "step-key",
	"step-reserved", "step-unused", "pauses", "status-fields", "log-fields",
};

#endif
