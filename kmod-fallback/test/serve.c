// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Answers each command line of stdin with one line on stdout, so that another
 * implementation can be compared with wire.c (test/twin/differential_test.go).
 * The answer may come up to 256 commands late.
 *
 *   k ID REQUEST REPLY       a key for p and r, in hexadecimal
 *   p HEX                    open a packet ("-" is the empty one)
 *   r ID NONCE TIME ID CHALLENGE RESULT EXECUTOR FLAGS MASK BOOT UPTIME AGE
 *     LOAD FREE SYSRQ SILENT seal a reply
 *   l ID NONCE TIME ID CHALLENGE INDEX FLAGS BOOT FIRST NEXT END OLDEST TEXT
 *                            seal a piece; TEXT "-": none
 *
 * The others are events of a second ledger. Keys, request ids, challenges and
 * draws are numbers, big-endian in their last bytes.
 *
 *   b REAL BOOT EXECUTOR SYSRQ DRY      begin; SYSRQ is -1 for none
 *   d DRY                               dry run or not
 *   i REAL BOOT KEY ALLOWED             install
 *   x REAL BOOT KEY                     remove
 *   y REAL BOOT YES S                   synchronised
 *   j REAL BOOT KEY ID MALFORMED OP FLAGS TIME CHALLENGE STEPS SOURCE DRAW
 *                                       judge; STEPS "-": none, DRAW 0: none
 *   e REAL BOOT KEY ID HOW              settle
 *   f REAL BOOT KEY ID                  finish
 *
 * Each event is answered with
 *   DECISION clock_ok FINAL FLOOR...
 * DECISION is "-", "late", or reason, silent, pending, run, cut, pieces, result, flags,
 * mask, by, challenge and age, with a slash between them. FINAL says whether the
 * request that the event names is known and final. There is a FLOOR for each of
 * the keys 1 to 3, 0 if it is not known.
 */
#include "test.h"

static struct nsrq_ledger ledger, keys;
static struct nsrq_now now;

static char *word(void)
{
	char *s = strtok(NULL, " \n");

	if (!s)
		die("an argument is missing");
	return s;
}

static u64 num(void)
{
	return number(word());
}

static void wide(u8 *out)
{
	memset(out, 0, 8);
	put_unaligned_be64(num(), out + 8);
}

static void print_hex(const u8 *b, size_t len)
{
	while (len--)
		printf("%02x", *b++);
}

static void add_key(void)
{
	struct nsrq_key key;

	unhex_exactly(word(), key.id, sizeof(key.id));
	unhex_exactly(word(), key.request, sizeof(key.request));
	unhex_exactly(word(), key.reply, sizeof(key.reply));
	printf("%llu\n", nsrq_install(&keys, &now, &key, 0));
}

static void open_packet(void)
{
	u8 buf[2048], *exact;
	char *hex = word();
	size_t len = strcmp(hex, "-") ? unhex(hex, buf, sizeof(buf)) : 0;
	struct nsrq_request r;
	enum nsrq_reason reason;
	struct nsrq_key key;
	int i;

	exact = malloc(len);
	memcpy(exact, buf, len);
	reason = nsrq_check(exact, len);
	if (!reason && !nsrq_find(&keys, exact + NSRQ_OFF_KEY_ID, &key))
		reason = NSRQ_REASON_UNKNOWN_KEY;
	if (!reason)
		reason = nsrq_open(&r, exact, &key);
	free(exact);
	fputs(nsrq_reason_name(reason), stdout);
	if (!reason || reason == NSRQ_REASON_MALFORMED) {
		printf(" %s %llu ", field_names[r.malformed], r.time);
		print_hex(r.id, sizeof(r.id));
	}
	if (!reason) {
		putchar(' ');
		print_hex(r.challenge, sizeof(r.challenge));
		printf(" %d %d", r.op, r.flags);
		if (r.op == NSRQ_OP_LOG)
			printf(" %llu %d", r.from, r.pieces);
		for (i = 0; i < r.count; i++)
			printf(" %c:%d/%u", r.steps[i].key, r.steps[i].pause,
			       nsrq_wait_ms(&r.steps[i]));
	}
	putchar('\n');
}

static void seal_reply(void)
{
	u8 id[NSRQ_KEY_ID_SIZE], nonce[NSRQ_NONCE_SIZE], p[NSRQ_PACKET_SIZE];
	struct nsrq_reply r;
	struct nsrq_key key;

	unhex_exactly(word(), id, sizeof(id));
	CHECK(nsrq_find(&keys, id, &key));
	unhex_exactly(word(), nonce, sizeof(nonce));
	r.time = num();
	unhex_exactly(word(), r.id, sizeof(r.id));
	unhex_exactly(word(), r.challenge, sizeof(r.challenge));
	r.answer.result = num();
	r.executor = num();
	r.answer.flags = num();
	r.answer.mask = num();
	unhex_exactly(word(), r.boot_id, sizeof(r.boot_id));
	r.uptime = num();
	r.age = num();
	r.load = num();
	r.free = num();
	r.sysrq = num();
	r.silent = num();
	nsrq_seal(p, &key, nonce, &r);
	print_hex(p, sizeof(p));
	putchar('\n');
}

static void seal_piece(void)
{
	u8 id[NSRQ_KEY_ID_SIZE], nonce[NSRQ_NONCE_SIZE], text[NSRQ_TEXT_SIZE], *p;
	struct nsrq_piece r;
	struct nsrq_key key;
	size_t len;
	char *s;

	unhex_exactly(word(), id, sizeof(id));
	CHECK(nsrq_find(&keys, id, &key));
	unhex_exactly(word(), nonce, sizeof(nonce));
	r.time = num();
	unhex_exactly(word(), r.id, sizeof(r.id));
	unhex_exactly(word(), r.challenge, sizeof(r.challenge));
	r.index = num();
	r.flags = num();
	unhex_exactly(word(), r.boot_id, sizeof(r.boot_id));
	r.first = num();
	r.next = num();
	r.end = num();
	r.oldest = num();
	s = word();
	len = strcmp(s, "-") ? unhex(s, text, sizeof(text)) : 0;
	p = malloc(NSRQ_OFF_TEXT + len + NSRQ_TAG_SIZE);
	memcpy(p + NSRQ_OFF_TEXT, text, len);
	len = nsrq_seal_piece(p, &key, nonce, &r, len);
	print_hex(p, len);
	putchar('\n');
	free(p);
}

static void print_decision(const struct nsrq_decision *d)
{
	CHECK(!get_unaligned_be64(d->challenge));
	printf("%s/%d/%d/%d/%d/%d/%d/%d/%d/%d/%llu/%d", nsrq_reason_name(d->reason),
	       d->silent, d->pending, d->run, d->cut, d->pieces, d->answer.result,
	       d->answer.flags, d->answer.mask, d->answer.by,
	       get_unaligned_be64(d->challenge + 8), d->age);
}

static void event(char verb)
{
	struct nsrq_request p = {};
	struct nsrq_decision d;
	struct nsrq_key key = {};
	u8 id[NSRQ_ID_SIZE], draw[NSRQ_CHALLENGE_SIZE];
	struct nsrq_account *a;
	u64 handle = 0, source, v;
	bool final = false;
	char *s;
	int i;

	if (verb != 'd') {
		now.real = num();
		now.boot = num();
	}
	if (strchr("ixjef", verb)) {
		put_unaligned_be64(num(), key.id);
		handle = nsrq_find(&ledger, key.id, NULL);
	}
	if (strchr("jef", verb))
		wide(id);
	switch (verb) {
	case 'b':
		ledger.executor = num();
		ledger.sysrq = atoi(word());
		ledger.dry_run = num();
		nsrq_begin(&ledger, &now);
		putchar('-');
		break;
	case 'd':
		ledger.dry_run = num();
		putchar('-');
		break;
	case 'i':
		CHECK(nsrq_install(&ledger, &now, &key, num()));
		putchar('-');
		break;
	case 'x':
		nsrq_remove(&ledger, &now, handle);
		putchar('-');
		break;
	case 'y':
		v = num();
		nsrq_synchronised(&ledger, &now, v, num());
		putchar('-');
		break;
	case 'j':
		memcpy(p.id, id, sizeof(id));
		p.malformed = num();
		p.op = num();
		p.flags = num();
		p.time = num();
		wide(p.challenge);
		for (s = word(); *s && *s != '-'; s++)
			p.steps[p.count++].key = *s;
		source = num();
		wide(draw);
		nsrq_judge(&ledger, &now, handle, &p, source,
			   get_unaligned_be64(draw + 8) ? draw : NULL, &d);
		print_decision(&d);
		break;
	case 'e':
		if (nsrq_settle(&ledger, &now, handle, id, num(), &d))
			print_decision(&d);
		else
			fputs("late", stdout);
		break;
	case 'f':
		nsrq_finish(&ledger, &now, handle, id);
		putchar('-');
		break;
	default:
		die("unknown command");
	}

	a = nsrq_account(&ledger, handle);
	for (i = 0; a && strchr("jef", verb) && i < NSRQ_ANSWERS; i++)
		if (a->entries[i].state == NSRQ_STATE_FINAL &&
		    !memcmp(a->entries[i].id, id, sizeof(id)))
			final = true;
	printf(" %d %d", ledger.clock_ok, final);
	for (i = 1; i <= 3; i++) {
		put_unaligned_be64(i, key.id);
		a = nsrq_account(&ledger, nsrq_find(&ledger, key.id, NULL));
		printf(" %llu", a ? a->floor : 0);
	}
	putchar('\n');
}

int main(void)
{
	static char line[8192], out[1 << 16];
	char *verb;

	where = "serve";
	if (sodium_init() < 0)
		die("libsodium does not start");
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	nsrq_begin(&keys, &now);
	while (fgets(line, sizeof(line), stdin)) {
		where_line++;
		verb = strtok(line, " \n");
		if (!verb || verb[1])
			die("no command");
		if (*verb == 'k')
			add_key();
		else if (*verb == 'p')
			open_packet();
		else if (*verb == 'r')
			seal_reply();
		else if (*verb == 'l')
			seal_piece();
		else
			event(*verb);
		if (where_line % 256 == 0)
			fflush(stdout);	/* the other side's queue is bounded */
	}
	return 0;
}
