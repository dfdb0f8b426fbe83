// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Runs every script of a directory against the ledger of wire.c. The grammar,
 * and what each word means, is auth/testdata/README.md; anything else in a
 * script is an error.
 */
#include <dirent.h>
#include "test.h"

#define MS 1000000LL

static struct nsrq_ledger ledger;
static struct nsrq_now now;
static long long real0, boot0, at, steps_of_clock;	/* ms */
static u64 draws;
static int events, answers;

/* What is parsed of an event. */
static char *word[24];
static int words, next;

static long long integer(const char *s)
{
	char *end;
	long long v;

	errno = 0;
	v = strtoll(s, &end, 10);
	if (errno || end == s || *end)
		die("bad number %s", s);
	return v;
}

static void set_clocks(void)
{
	long long real = real0 + at + steps_of_clock;

	now.real = real > 0 ? real * MS : 0;
	now.boot = (boot0 + at) * MS;
}

static char *arg(void)
{
	if (next >= words || !strcmp(word[next], "=>"))
		die("an argument is missing");
	return word[next++];
}

/* The value of the argument name=value, which stands here. */
static char *value_of(const char *name)
{
	char *s = arg();
	size_t n = strlen(name);

	if (strncmp(s, name, n) || s[n] != '=' || !s[n + 1])
		die("%s where %s= belongs", s, name);
	return s + n + 1;
}

static u8 letter(void)
{
	char *s = arg();

	if (s[0] < 'A' || s[0] > 'Z' || s[1])
		die("%s is not a capital letter", s);
	return s[0];
}

static u64 handle(u8 name)
{
	u8 id[NSRQ_KEY_ID_SIZE] = { name };

	return nsrq_find(&ledger, id, NULL);
}

static u64 a_time(char *s)
{
	char *plus = strchr(s, '+');
	u64 ns = 0;
	size_t n;

	if (!strcmp(s, "0"))
		return 0;
	if (!strcmp(s, "max"))
		return ~0ULL;
	if (*s != '@')
		die("bad time %s", s);
	if (plus) {
		*plus++ = 0;
		n = strlen(plus);
		if (n < 3 || strcmp(plus + n - 2, "ns"))
			die("bad nanoseconds %s", plus);
		plus[n - 2] = 0;
		ns = number(plus);
		plus[n - 2] = 'n';
	}
	ns += (real0 + integer(s + 1)) * MS;
	if (plus)
		plus[-1] = '+';
	return ns;
}

static u64 key_set(const char *s)
{
	u64 set = 0;

	if (!strcmp(s, "-"))
		return 0;
	for (; *s; s++) {
		if (*s == 'L') {
			set |= NSRQ_READ_LOG;
			continue;
		}
		if (!nsrq_is_sysrq_key(*s))
			die("%c is not a SysRq key", *s);
		set |= 1ULL << (*s <= '9' ? *s - '0' : *s - 'a' + 10);
	}
	return set;
}

static u64 number_of(const u8 *challenge)
{
	CHECK(get_unaligned_be64(challenge) == 0);
	return get_unaligned_be64(challenge + 8);
}

#define PIECES 10	/* in kinds */

/* Compares a decision with the words after =>. */
static void compare(const struct nsrq_decision *d)
{
	bool repeat = false, rehearsed = false, dry = false, trusted = false;
	static const char *const kinds[] = {
		"status", "accepted", "stale", "policy", "masked", "vetoed",
		"busy", "malformed", "pending", "silence", "pieces",
	};
	static const char *const voices[] = { "nobody", "daemon", "kernel" };
	u64 c = 0, mask = 0, age = d->age;
	int by = d->answer.by;
	int kind, got;
	u8 flags;

	answers++;
	if (next + 1 >= words || strcmp(word[next++], "=>"))
		die("an expectation is missing");
	kind = ONE_OF(word[next++], kinds);
	for (; next < words; next++) {
		char *w = word[next];
		bool *flag = !strcmp(w, "repeat") ? &repeat :
			     !strcmp(w, "rehearsed") ? &rehearsed :
			     !strcmp(w, "dry-run") ? &dry :
			     !strcmp(w, "trusted") ? &trusted : NULL;

		if (kind > NSRQ_MALFORMED &&
		    (kind != PIECES || strncmp(w, "c=", 2)))
			die("%s after a word that stands alone", w);
		if (flag && *flag)
			die("%s stands twice", w);
		if (flag)
			*flag = true;
		else if (!strncmp(w, "c=", 2))
			c = number(w + 2);
		else if (!strncmp(w, "mask=", 5))
			mask = number(w + 5);
		else if (!strncmp(w, "age=", 4))
			age = number(w + 4);
		else if (!strncmp(w, "by=", 3))
			by = ONE_OF(w + 3, voices);
		else
			die("unknown word %s", w);
	}
	got = d->pending ? 8 : d->silent ? 9 : d->pieces ? PIECES :
	      d->answer.result;
	CHECK(!d->pending || d->silent);
	if (got != kind)
		die("%s (%s), want %s", kinds[got], nsrq_reason_name(d->reason),
		    kinds[kind]);
	if ((d->run || d->cut) && d->answer.result != NSRQ_ACCEPTED)
		die("not accepted, and yet to be run");
	CHECK(!d->pieces || (!d->silent && !d->run && !d->cut));
	if (kind == PIECES && number_of(d->challenge) != c)
		die("challenge %llu, want %llu", number_of(d->challenge), c);
	if (kind > NSRQ_MALFORMED)
		return;
	flags = repeat | rehearsed << 1 | dry << 2 | trusted << 3;
	if (d->answer.flags != flags)
		die("flags %d, want %d", d->answer.flags, flags);
	if (d->answer.mask != mask)
		die("mask %d, want %llu", d->answer.mask, mask);
	if (number_of(d->challenge) != c)
		die("challenge %llu, want %llu", number_of(d->challenge), c);
	if (d->answer.by != by)
		die("by %s, want %s", voices[d->answer.by], voices[by]);
	if (d->age != age)
		die("age %d, want %llu", d->age, age);
}

/* status, run, log and malformed */
static void request(const char *verb)
{
	struct nsrq_request p = { .op = NSRQ_OP_RUN };
	struct nsrq_decision d;
	u8 draw[NSRQ_CHALLENGE_SIZE] = {};
	u8 key = letter();
	char *s, *flag;
	u64 source;

	if (!strcmp(verb, "status")) {
		p.op = NSRQ_OP_STATUS;
		memset(p.id, '#', sizeof(p.id));
	} else {
		memset(p.id, letter(), sizeof(p.id));
	}
	p.time = a_time(value_of("time"));
	if (!strcmp(verb, "malformed"))
		p.malformed = NSRQ_FIELD_FLAGS;
	if (!strcmp(verb, "log")) {
		p.op = NSRQ_OP_LOG;
		p.pieces = 1;
	}
	if (!strcmp(verb, "run") || !strcmp(verb, "log")) {
		s = value_of("c");
		if (!strcmp(s, "x"))
			p.challenge[0] = 0xff;
		else
			put_unaligned_be64(number(s), p.challenge + 8);
	}
	if (!strcmp(verb, "run")) {
		s = value_of("steps");
		if (strcmp(s, "-"))
			for (; *s; s++) {
				if (!nsrq_is_sysrq_key(*s) || p.count == NSRQ_MAX_STEPS)
					die("bad steps");
				p.steps[p.count++].key = *s;
			}
		if (next < words && !strncmp(word[next], "flags=", 6)) {
			s = strdup(value_of("flags"));
			for (flag = strtok(s, ","); flag; flag = strtok(NULL, ",")) {
				static const char *const flags[] = {
					"rehearse", "drill", "now",
				};

				p.flags |= 1 << ONE_OF(flag, flags);
			}
			free(s);
		}
	}
	source = number(value_of("from"));
	put_unaligned_be64(draws + 1, draw + 8);
	nsrq_judge(&ledger, &now, handle(key), &p, source, draw, &d);
	if (!memcmp(d.challenge, draw, sizeof(draw)))
		draws++;
	compare(&d);
}

static void event(void)
{
	static const char *const settles[] = { "taken", "vetoed", "deadline" };
	static const char *const on_off[] = { "off", "on" };
	const char *verb = arg();
	struct nsrq_decision d;
	u8 id[NSRQ_ID_SIZE];
	u64 s;
	u8 k;

	events++;
	set_clocks();
	if (!strcmp(verb, "begin")) {
		nsrq_begin(&ledger, &now);
	} else if (!strcmp(verb, "install")) {
		struct nsrq_key key = { .id = { letter() } };

		CHECK(nsrq_install(&ledger, &now, &key, key_set(arg())));
	} else if (!strcmp(verb, "remove")) {
		nsrq_remove(&ledger, &now, handle(letter()));
	} else if (!strcmp(verb, "sync")) {
		bool on = ONE_OF(arg(), on_off);

		s = now.real - now.boot;
		if (on && next < words)
			s += integer(value_of("asked")) * MS;
		nsrq_synchronised(&ledger, &now, on, s);
	} else if (!strcmp(verb, "step")) {
		char *ms = arg();

		if (*ms != '+' && *ms != '-')
			die("bad step %s", ms);
		steps_of_clock += integer(ms);
	} else if (!strcmp(verb, "status") || !strcmp(verb, "run") ||
		   !strcmp(verb, "log") || !strcmp(verb, "malformed")) {
		request(verb);
	} else if (!strcmp(verb, "settle")) {
		k = letter();
		memset(id, letter(), sizeof(id));
		if (nsrq_settle(&ledger, &now, handle(k), id,
				ONE_OF(arg(), settles), &d)) {
			compare(&d);
		} else {
			CHECK(d.silent && !d.run);
			answers++;
			if (next + 2 != words || strcmp(word[next + 1], "late"))
				die("late, want another answer");
			next += 2;
		}
	} else if (!strcmp(verb, "finish")) {
		k = letter();
		memset(id, letter(), sizeof(id));
		nsrq_finish(&ledger, &now, handle(k), id);
	} else if (!strcmp(verb, "floor")) {
		struct nsrq_account *a = nsrq_account(&ledger, handle(letter()));

		CHECK(a && next + 2 == words && !strcmp(word[next], "=>"));
		s = a_time(word[next + 1]);
		if (a->floor != s)
			die("floor %llu, want %llu", a->floor, s);
		next += 2;
		answers++;
	} else if (!strcmp(verb, "cut")) {
		struct nsrq_account *a = nsrq_account(&ledger, handle(letter()));
		bool final = false;
		int i;

		memset(id, letter(), sizeof(id));
		for (i = 0; a && i < NSRQ_ANSWERS; i++)
			if (a->entries[i].state == NSRQ_STATE_FINAL &&
			    !memcmp(a->entries[i].id, id, sizeof(id)))
				final = true;
		if (!final)
			die("not final");
		answers++;
	} else {
		die("unknown event %s", verb);
	}
	if (next != words)
		die("%s is too much", word[next]);
}

static void one_line(char *line)
{
	long long times = 1, every = 0, ms, i;
	char *s, *slash;
	int first;

	words = 0;
	for (s = strtok(line, " "); s; s = strtok(NULL, " ")) {
		if (words == (int)ARRAY_SIZE(word))
			die("too many words");
		word[words++] = s;
	}
	next = 0;
	ms = number(arg());
	if (ms < at)
		die("the time falls");
	if (next < words && word[next][0] == 'x') {
		s = arg() + 1;
		slash = strchr(s, '/');
		if (!slash)
			die("bad repetition");
		*slash = 0;
		times = number(s);
		every = number(slash + 1);
	}
	first = next;
	for (i = 0; i < times; i++) {
		at = ms + i * every;
		next = first;
		event();
	}
}

static char *header(char **text, const char *name)
{
	char *line = *text, *end = strchr(line, '\n');
	size_t n = strlen(name);

	where_line++;
	if (!end || strncmp(line, name, n) || strncmp(line + n, ": ", 2))
		die("the header %s belongs here", name);
	*end = 0;
	*text = end + 1;
	return line + n + 2;
}

static void script(char *text)
{
	static const char *const executors[] = { NULL, "daemon", "kernel" };
	static const char *const no_yes[] = { "no", "yes" };
	char *line, *end, *sysrq;

	memset(&ledger, 0, sizeof(ledger));
	at = steps_of_clock = draws = 0;
	where_line = 0;
	header(&text, "comment");
	real0 = number(header(&text, "real"));
	boot0 = number(header(&text, "boot"));
	ledger.executor = ONE_OF(header(&text, "executor"), executors);
	sysrq = header(&text, "sysrq");
	ledger.sysrq = strcmp(sysrq, "none") ? (s32)number(sysrq) : -1;
	ledger.dry_run = ONE_OF(header(&text, "dry-run"), no_yes);
	where_line++;
	if (*text++ != '\n')
		die("no empty line after the header");
	for (line = text; *line; line = end + 1) {
		where_line++;
		end = strchr(line, '\n');
		if (!end || end - line > 159 || end == line)
			die("line is empty, too long or without an end");
		*end = 0;
		if (*line != '#')
			one_line(line);
	}
	where_line = 0;
}

int main(int argc, char **argv)
{
	static char text[65536];
	struct dirent *entry;
	char path[4096];
	int scripts = 0;
	size_t n;
	FILE *f;
	DIR *dir;

	if (argc != 2 || sodium_init() < 0 || !(dir = opendir(argv[1]))) {
		fprintf(stderr, "usage: ledger DIRECTORY\n");
		return 2;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		where = path;
		f = fopen(path, "r");
		if (!f)
			die("%s", strerror(errno));
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
		text[n] = 0;
		script(text);
		scripts++;
	}
	closedir(dir);
	printf("ledger: %d scripts, %d events, %d answers\n", scripts, events, answers);
	return scripts < 60;
}
