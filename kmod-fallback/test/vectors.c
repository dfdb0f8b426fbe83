// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Reads every file of a directory of vectors and checks wire.c against it.
 * Requests are opened; replies are opened by this file and, where they are
 * good, sealed by wire.c with the same nonce: the packets must be equal. With
 * a second directory it also writes the packets there, for fuzzers to begin with.
 */
#include <dirent.h>
#include "test.h"

#define MAX_HEADERS 24

static struct header {
	char *name, *value;
	bool used;
} headers[MAX_HEADERS];

static int n_headers;
static u8 packet[4096];
static size_t packet_len;

static char *get(const char *name)
{
	int i;

	for (i = 0; i < n_headers; i++) {
		if (strcmp(headers[i].name, name))
			continue;
		headers[i].used = true;
		return headers[i].value;
	}
	die("header %s is missing", name);
}

static void expect(const char *name, const char *got)
{
	const char *want = get(name);

	if (strcmp(want, got))
		die("%s is %s, want %s", name, got, want);
}

static void expect_number(const char *name, u64 got)
{
	char buf[24];

	sprintf(buf, "%llu", got);
	expect(name, buf);
}

static void expect_hex(const char *name, const u8 *got, size_t len, bool none)
{
	static char buf[2 * NSRQ_TEXT_SIZE + 1];
	bool zero = true;
	size_t i;

	buf[0] = 0;
	for (i = 0; i < len; i++) {
		sprintf(buf + 2 * i, "%02x", got[i]);
		zero = zero && !got[i];
	}
	expect(name, none && zero ? "none" : buf);
}

static void expect_flags(u8 flags, const char *const *names, int n)
{
	char buf[64] = "";
	int i;

	for (i = 0; i < n; i++)
		if (flags >> i & 1)
			sprintf(buf + strlen(buf), "%s%s", *buf ? "," : "", names[i]);
	CHECK(flags >> n == 0);
	expect("flags", *buf ? buf : "none");
}

static void read_key(struct nsrq_key *key)
{
	unhex_exactly(get("key-id"), key->id, sizeof(key->id));
	unhex_exactly(get("request-key"), key->request, sizeof(key->request));
	unhex_exactly(get("reply-key"), key->reply, sizeof(key->reply));
}

static void request(const char *want)
{
	static const char *const wants[] = {
		"length", "magic", "version", "type", "reserved",
		"unknown-key", "forged", "malformed", "ok",
	};
	static const char *const flag_names[] = { "rehearse", "drill", "now" };
	struct nsrq_ledger l = {};
	struct nsrq_now now = {};
	struct nsrq_key key, found;
	struct nsrq_request r;
	enum nsrq_reason reason;
	char steps[128] = "";
	u8 *exact;
	int i;

	ONE_OF(want, wants);
	read_key(&key);
	nsrq_begin(&l, &now);
	CHECK(nsrq_install(&l, &now, &key, 0) == 1);

	/* A buffer of just this length, for the sanitizer to watch. */
	exact = malloc(packet_len);
	memcpy(exact, packet, packet_len);
	reason = nsrq_check(exact, packet_len);
	if (!reason && !nsrq_find(&l, exact + NSRQ_OFF_KEY_ID, &found))
		reason = NSRQ_REASON_UNKNOWN_KEY;
	if (!reason)
		reason = nsrq_open(&r, exact, &found);
	free(exact);
	if (strcmp(nsrq_reason_name(reason), want))
		die("reason %s, want %s", nsrq_reason_name(reason), want);
	if (reason == NSRQ_REASON_MALFORMED) {
		struct nsrq_request only = {
			.malformed = r.malformed, .time = r.time,
		};

		/* Nothing that is out of bounds may be left to be used. */
		memcpy(only.id, r.id, sizeof(only.id));
		CHECK(!memcmp(&only, &r, sizeof(r)));
	}
	if (reason == NSRQ_REASON_MALFORMED)
		expect("malformed", field_names[r.malformed]);
	if (reason)
		return;

	expect("op", r.op == NSRQ_OP_RUN ? "run" :
		     r.op == NSRQ_OP_LOG ? "log" : "status");
	expect_number("time", r.time);
	expect_hex("id", r.id, sizeof(r.id), false);
	expect_hex("challenge", r.challenge, sizeof(r.challenge), true);
	expect_flags(r.flags, flag_names, 3);
	if (r.op == NSRQ_OP_LOG) {
		expect_number("from", r.from);
		expect_number("pieces", r.pieces);
		return;
	}
	for (i = 0; i < r.count; i++) {
		const struct nsrq_step *s = &r.steps[i];
		char *end = steps + strlen(steps);

		end += sprintf(end, "%s%c", i ? "," : "", s->key);
		if (s->pause % 100)
			sprintf(end, ":%ums", s->pause * 10u);
		else if (s->pause)
			sprintf(end, ":%us", s->pause / 100u);
		if (s->pause)
			CHECK(nsrq_wait_ms(s) == s->pause * 10u);
		else
			CHECK(nsrq_wait_ms(s) == (strchr("su", s->key) ? 10000 : 0));
	}
	expect("steps", i ? steps : "-");
}

/* The sender's checks, section 6 step 2, in its order. */
static const char *open_reply(u8 *b, const struct nsrq_key *key, const u8 *id)
{
	const u8 *p = packet;

	if (packet_len != NSRQ_PACKET_SIZE)
		return "length";
	if (memcmp(p, "NSRQ", 4))
		return "magic";
	if (p[4] != 1)
		return "version";
	if (p[5] != 2)
		return "type";
	if (p[6] || p[7])
		return "reserved";
	if (memcmp(p + 8, key->id, 8))
		return "unknown-key";
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(b, NULL, NULL, p + 40, 88,
						       p, 16, p + 16, key->reply))
		return "forged";
	if (memcmp(b + 8, id, 16))
		return "other-request";
	if (b[40] > 7 || b[41] < 1 || b[41] > 2 || b[42] > 31 || b[43] > 127 ||
	    b[68] || b[69] || b[70] || b[71])
		return "malformed";
	return "ok";
}

static const char *wrong_field(const u8 *b)
{
	if (b[40] > 7)
		return "result";
	if (b[41] < 1 || b[41] > 2)
		return "executor";
	if (b[42] > 31)
		return "flags";
	return b[43] > 127 ? "mask" : "body-reserved";
}

static u64 big_endian(const u8 *b, int n)
{
	u64 v = 0;

	while (n--)
		v = v << 8 | *b++;
	return v;
}

static void reply(const char *want)
{
	static const char *const wants[] = {
		"length", "magic", "version", "type", "reserved",
		"unknown-key", "forged", "other-request", "malformed", "ok",
	};
	static const char *const flag_names[] = {
		"repeat", "rehearsed", "dry-run", "clock-trusted", "armed",
	};
	u8 b[88], id[16], sealed[NSRQ_PACKET_SIZE];
	struct nsrq_reply r = {};
	struct nsrq_key key;
	const char *got;

	ONE_OF(want, wants);
	read_key(&key);
	unhex_exactly(get("id"), id, sizeof(id));
	got = open_reply(b, &key, id);
	if (strcmp(got, want))
		die("%s, want %s", got, want);
	if (!strcmp(got, "malformed"))
		expect("malformed", wrong_field(b));
	if (strcmp(got, "ok"))
		return;

	r.time = big_endian(b, 8);
	memcpy(r.id, b + 8, 16);
	memcpy(r.challenge, b + 24, 16);
	r.answer = (struct nsrq_answer){ .result = b[40], .flags = b[42], .mask = b[43] };
	r.executor = b[41];
	memcpy(r.boot_id, b + 44, 8);
	r.uptime = big_endian(b + 52, 4);
	r.age = big_endian(b + 56, 2);
	r.load = big_endian(b + 58, 2);
	r.free = big_endian(b + 60, 4);
	r.sysrq = big_endian(b + 64, 2);
	r.silent = big_endian(b + 66, 2);

	expect_number("time", r.time);
	expect_hex("challenge", r.challenge, 16, true);
	expect("result", result_names[r.answer.result]);
	expect("executor", r.executor == NSRQ_DAEMON ? "daemon" : "kernel");
	expect_flags(r.answer.flags, flag_names, 5);
	expect_number("mask", r.answer.mask);
	expect_hex("boot-id", r.boot_id, 8, false);
	expect_number("uptime", r.uptime);
	expect_number("ledger-age", r.age);
	expect_number("load", r.load);
	expect_number("free", r.free);
	expect_number("sysrq", r.sysrq);
	expect_number("silent", r.silent);

	memset(sealed, 0xaa, sizeof(sealed));
	nsrq_seal(sealed, &key, packet + NSRQ_OFF_NONCE, &r);
	if (memcmp(sealed, packet, sizeof(sealed)))
		die("sealed anew, the packet is another");
}

static const char *open_piece(u8 *b, const struct nsrq_key *key, const u8 *id)
{
	const u8 *p = packet;
	u64 first, next, end, oldest;

	if (packet_len < 140 || packet_len > 1200)
		return "length";
	if (memcmp(p, "NSRQ", 4))
		return "magic";
	if (p[4] != 1)
		return "version";
	if (p[5] != 3)
		return "type";
	if (p[6] || p[7])
		return "reserved";
	if (memcmp(p + 8, key->id, 8))
		return "unknown-key";
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(b, NULL, NULL, p + 40,
						       packet_len - 40, p, 16,
						       p + 16, key->reply))
		return "forged";
	if (memcmp(b + 8, id, 16))
		return "other-request";
	if (b[40] > 7)
		return "index";
	if (b[41] > 3)
		return "flags";
	if (b[42] || b[43])
		return "body-reserved";
	first = big_endian(b + 52, 8);
	next = big_endian(b + 60, 8);
	end = big_endian(b + 68, 8);
	oldest = big_endian(b + 76, 8);
	return first <= next && next <= end && oldest <= end ? "ok" : "records";
}

static void piece(const char *want)
{
	static const char *const wants[] = {
		"length", "magic", "version", "type", "reserved",
		"unknown-key", "forged", "other-request", "malformed", "ok",
	};
	static const char *const flag_names[] = { "last", "cut" };
	u8 b[NSRQ_PIECE_SIZE], id[16], *sealed;
	struct nsrq_piece r = {};
	struct nsrq_key key;
	const char *got;
	size_t text;
	int i;

	ONE_OF(want, wants);
	read_key(&key);
	unhex_exactly(get("id"), id, sizeof(id));
	got = open_piece(b, &key, id);
	for (i = 0; i < (int)ARRAY_SIZE(wants) && strcmp(got, wants[i]); i++)
		;
	if (i == (int)ARRAY_SIZE(wants)) {
		expect("malformed", got);
		got = "malformed";
	}
	if (strcmp(got, want))
		die("%s, want %s", got, want);
	if (strcmp(got, "ok"))
		return;

	r.time = big_endian(b, 8);
	memcpy(r.id, b + 8, 16);
	memcpy(r.challenge, b + 24, 16);
	r.index = b[40];
	r.flags = b[41];
	memcpy(r.boot_id, b + 44, 8);
	r.first = big_endian(b + 52, 8);
	r.next = big_endian(b + 60, 8);
	r.end = big_endian(b + 68, 8);
	r.oldest = big_endian(b + 76, 8);
	text = packet_len - 140;

	expect_number("time", r.time);
	expect_hex("challenge", r.challenge, 16, true);
	expect_number("index", r.index);
	expect_flags(r.flags, flag_names, 2);
	expect_hex("boot-id", r.boot_id, 8, false);
	expect_number("first", r.first);
	expect_number("next", r.next);
	expect_number("end", r.end);
	expect_number("oldest", r.oldest);
	expect_hex("text", b + 84, text, false);

	/* A buffer of just this length, for the sanitizer to watch. */
	sealed = malloc(packet_len);
	memset(sealed, 0xaa, packet_len);
	memcpy(sealed + NSRQ_OFF_TEXT, b + 84, text);
	CHECK(nsrq_seal_piece(sealed, &key, packet + NSRQ_OFF_NONCE, &r, text) ==
	      packet_len);
	if (memcmp(sealed, packet, packet_len))
		die("sealed anew, the packet is another");
	free(sealed);
}

/* Splits text, which it changes, into headers and packet. */
static void parse(char *text)
{
	char *line, *end, *colon, hex[8192] = "";
	bool head = true;
	size_t last = 64;
	int i;

	n_headers = 0;
	for (line = text, where_line = 1; *line; line = end + 1, where_line++) {
		end = strchr(line, '\n');
		if (!end)
			die("no line feed at the end");
		*end = 0;
		if (!head) {
			if (last != 64 || !*line)
				die("a line after a short one, or an empty line");
			last = strlen(line);
			if (last > 64 || strlen(hex) + last >= sizeof(hex))
				die("line of %zu characters", last);
			strcat(hex, line);
			continue;
		}
		if (!*line) {
			head = false;
			continue;
		}
		colon = strchr(line, ':');
		if (!colon || (colon[1] && colon[1] != ' ') ||
		    (colon[1] && !colon[2]) || n_headers == MAX_HEADERS)
			die("bad header");
		*colon = 0;
		for (i = 0; i < n_headers; i++)
			if (!strcmp(headers[i].name, line))
				die("%s stands twice", line);
		headers[n_headers++] = (struct header){
			.name = line, .value = colon + (colon[1] ? 2 : 1),
		};
	}
	where_line = 0;
	if (head)
		die("no empty line after the header");
	packet_len = unhex(hex, packet, sizeof(packet));
}

int main(int argc, char **argv)
{
	static const char *const kinds[] = {
		"request", "reply", "piece", "derive", "passphrase",
	};
	static void (*const checks[])(const char *) = { request, reply, piece };
	int count[5] = {}, kind, i;
	static char text[65536];
	struct dirent *entry;
	char path[4096];
	size_t n;
	FILE *f;
	DIR *dir;

	if (argc < 2 || sodium_init() < 0 || !(dir = opendir(argv[1]))) {
		fprintf(stderr, "usage: vectors DIRECTORY [DIRECTORY]\n");
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
		parse(text);
		get("comment");
		kind = ONE_OF(get("kind"), kinds);
		count[kind]++;
		if (kind > 2)
			continue;
		if (argc > 2) {
			snprintf(path, sizeof(path), "%s/%s", argv[2], entry->d_name);
			f = fopen(path, "w");
			if (!f || fwrite(packet, 1, packet_len, f) != packet_len || fclose(f))
				die("%s", strerror(errno));
		}
		checks[kind](get("expect"));
		for (i = 0; i < n_headers; i++)
			if (!headers[i].used)
				die("header %s has no place here", headers[i].name);
	}
	closedir(dir);
	printf("vectors: %d requests, %d replies, %d pieces; not for C: %d derive, %d passphrase\n",
	       count[0], count[1], count[2], count[3], count[4]);
	return count[0] < 40 || count[1] < 30 || count[2] < 30;
}
