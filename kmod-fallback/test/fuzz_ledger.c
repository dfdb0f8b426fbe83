// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A string of events on the ledger, two bytes each, and after every event what
 * section 5.5 promises. One operator follows section 6 to the letter, another
 * makes requests as he likes; the network records every packet and every reply
 * and delivers them in any order, any number of times, however late. The host
 * reboots, its clock is set to anything, but is only called synchronised while
 * it is right, as is the operator's.
 */
#include "test.h"

#define N_KEYS		2
#define N_INTENTS	48
#define N_PACKETS	192
#define N_REPLIES	32
#define S		NSRQ_SECOND

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct intent {
	int key;
	bool honest, now;
	u8 steps;
	u64 first;		/* true time; 0: no form yet */
	u64 form_time;		/* of the form with a time; 0: none */
	int ran;
};

struct packet {
	int key, intent;
	int made;		/* number of the event */
	int fresh;		/* how often it was */
	struct nsrq_request r;
};

struct reply {
	int key;
	u64 time, age;
	u8 challenge[NSRQ_CHALLENGE_SIZE];
};

static struct {
	struct nsrq_ledger l;
	u64 truth;			/* true time, and the operator's boot() */
	long long error;		/* of the host's clock */
	long long operator_error;
	u64 booted;			/* true time at which boot() was 0 */
	u64 asked;			/* real() - boot() at the last look of adjtimex */
	bool asked_yes;
	u64 draws;
	struct intent intents[N_INTENTS];
	struct packet packets[N_PACKETS];
	struct reply replies[N_REPLIES];
	int n_intents, n_packets, n_replies;
	u64 handles[N_KEYS], floors[N_KEYS], last_handle;
	int event;			/* its number */
	int barred[N_KEYS];		/* event of the last barrier */
	u8 used[1024];			/* how often a challenge made one fresh */
} w;

static struct nsrq_now now(void)
{
	return (struct nsrq_now){ w.truth + w.error, w.truth - w.booted };
}

static bool right(void)
{
	return w.error <= (long long)(NSRQ_W / 2) && w.error >= -(long long)(NSRQ_W / 2);
}

static void install(int key, u64 allowed)
{
	struct nsrq_key k = { .id = { key + 1 } };
	struct nsrq_now t = now();
	u64 handle = nsrq_install(&w.l, &t, &k, allowed);

	if (w.handles[key]) {
		CHECK(handle == w.handles[key]);
		return;
	}
	CHECK(handle > w.last_handle);	/* never one that was used */
	w.last_handle = handle;
	w.handles[key] = handle;
	w.floors[key] = 0;
}

static void begin(bool kernel)
{
	struct nsrq_now t = now();
	int i;

	w.l.executor = kernel ? NSRQ_KERNEL : NSRQ_DAEMON;
	w.l.sysrq = -1;
	nsrq_begin(&w.l, &t);
	for (i = 0; i < N_KEYS; i++) {
		CHECK(!nsrq_account(&w.l, w.handles[i]));
		w.handles[i] = 0;
		install(i, ~0ULL);
	}
}

static void has_run(int intent)
{
	CHECK(intent >= 0 && intent < w.n_intents);
	w.intents[intent].ran++;
	if (w.intents[intent].honest)
		CHECK(w.intents[intent].ran == 1);
}

static int intent_of(const u8 *id)
{
	return (int)get_unaligned_be64(id + 8) - 1;
}

static void judge(struct packet *k, u64 source)
{
	struct nsrq_now t = now();
	struct nsrq_decision d;
	u8 draw[NSRQ_CHALLENGE_SIZE] = {};
	bool was_ok, fresh, timed = !get_unaligned_be64(k->r.challenge + 8);
	u64 c = get_unaligned_be64(k->r.challenge + 8), floor;
	struct nsrq_account *a;

	was_ok = w.l.clock_ok;
	a = nsrq_account(&w.l, w.handles[k->key]);
	floor = a ? a->floor : 0;
	put_unaligned_be64(w.draws + 1, draw + 8);
	nsrq_judge(&w.l, &t, w.handles[k->key], &k->r, source, draw, &d);
	if (!memcmp(d.challenge, draw, sizeof(draw)))
		w.draws++;
	if (!w.handles[k->key]) {
		CHECK(d.reason == NSRQ_REASON_UNKNOWN_KEY && d.silent && !d.run);
		return;
	}
	CHECK(d.pending ? d.silent : true);
	if (!d.silent && get_unaligned_be64(d.challenge + 8)) {
		struct reply *r = &w.replies[w.n_replies++ % N_REPLIES];

		*r = (struct reply){ .key = k->key, .time = t.real, .age = d.age };
		memcpy(r->challenge, d.challenge, sizeof(r->challenge));
	}
	if (k->r.op == NSRQ_OP_LOG)	/* it changes no floor, and runs nothing */
		CHECK(a->floor == floor && !d.run && !d.pending && !d.cut);
	CHECK(!d.pieces || (k->r.op == NSRQ_OP_LOG && !d.silent &&
			    a->allowed & NSRQ_READ_LOG));
	fresh = k->r.op != NSRQ_OP_STATUS && !k->r.malformed &&
		(d.reason == NSRQ_REASON_OK || d.reason >= NSRQ_REASON_NOT_ALLOWED);
	CHECK(fresh || !(d.run || d.cut || d.pending));
	if (!fresh)
		return;
	CHECK(d.silent == d.pending);
	CHECK(++k->fresh == 1);
	if (timed)
		CHECK(was_ok && w.l.clock_ok);
	else
		CHECK(c < sizeof(w.used) && ++w.used[c] == 1);
	if (k->r.op == NSRQ_OP_LOG)
		return;
	if (w.intents[k->intent].honest)
		CHECK(k->made >= w.barred[k->key]);
	if (d.run && !d.pending)
		has_run(k->intent);
	if (!k->r.count && d.answer.result == NSRQ_ACCEPTED && !d.pending)
		w.barred[k->key] = w.event;
}

static struct packet *form(int intent, u64 time, const u8 *challenge)
{
	struct intent *n = &w.intents[intent];
	struct packet *k;

	if (w.n_packets == N_PACKETS)
		return NULL;
	k = &w.packets[w.n_packets++];
	memset(k, 0, sizeof(*k));
	k->key = n->key;
	k->intent = intent;
	k->made = w.event;
	k->r.time = time;
	k->r.op = NSRQ_OP_RUN;
	put_unaligned_be64(intent + 1, k->r.id + 8);
	if (challenge)
		memcpy(k->r.challenge, challenge, sizeof(k->r.challenge));
	k->r.flags = n->now ? NSRQ_NOW : 0;
	for (k->r.count = 0; k->r.count < n->steps; k->r.count++)
		k->r.steps[k->r.count].key = "subtn"[k->r.count];
	if (!n->first)
		n->first = w.truth;
	return k;
}

static int new_intent(int key, u8 arg, bool honest)
{
	if (w.n_intents == N_INTENTS)
		return -1;
	w.intents[w.n_intents] = (struct intent){
		.key = key, .honest = honest, .now = arg & 1,
		.steps = (arg >> 1) % 5,
	};
	return w.n_intents++;
}

/* Section 6, steps 3 and 5: a form by the challenge of this reply, if allowed. */
static void by_challenge(int intent, const struct reply *r, bool deliver)
{
	struct intent *n = &w.intents[intent];
	struct packet *k;

	if (n->key != r->key)
		return;
	if (n->honest && n->first &&
	    (r->age * S <= w.truth - n->first ||
	     r->time + NSRQ_W < n->form_time))
		return;
	k = form(intent, 0, r->challenge);
	if (k && deliver)
		judge(k, 1);
}

static void status(int key, u64 time)
{
	struct packet k = { .key = key, .intent = -1, .r = { .time = time, .id = { 0xff } } };

	judge(&k, 1);
}

/* Reads the log by the newest challenge; the packet can be replayed. */
static void read_log(int key, u8 arg)
{
	const struct reply *r = &w.replies[(w.n_replies + N_REPLIES - 1) % N_REPLIES];
	struct packet *k;

	if (!w.n_replies || r->key != key || w.n_packets == N_PACKETS)
		return;
	k = &w.packets[w.n_packets++];
	*k = (struct packet){ .key = key, .intent = -1, .made = w.event,
		.r = { .time = w.truth, .id = { 0xfe }, .op = NSRQ_OP_LOG, .pieces = 8 } };
	memcpy(k->r.challenge, r->challenge, sizeof(k->r.challenge));
	if (arg & 1)
		judge(k, 1);
}

static void event(u8 op, u8 arg)
{
	static const u64 spans[] = { S / 100, S / 20, S / 2, 5 * S };
	static const long long steps[] = { 1, 2, 20, 3600, 315360000 };
	int key = arg & 1, i;
	struct nsrq_now t;
	struct packet *k;
	long long was;

	switch (op % 21) {
	case 0:
	case 1:
		w.truth += spans[arg & 3] * (arg >> 2);
		break;
	case 2:		/* the clock is set, or put right */
		was = w.error;
		if (arg & 1)
			w.error += steps[(arg >> 2) % 5] * (long long)S * (arg & 2 ? 1 : -1);
		else
			w.error = (arg >> 1) % 4 ? 0 : (long long)(NSRQ_W / 2);
		if (w.error > 700000000 * (long long)S || w.error < -700000000 * (long long)S)
			w.error = was;
		/* No one may call a clock synchronised that is not. */
		t = now();
		if (w.l.clock_ok && !right() && t.real - t.boot - w.l.offset + S <= 2 * S)
			w.error = was;
		break;
	case 3:		/* adjtimex is asked, */
		t = now();
		w.asked = t.real - t.boot;
		w.asked_yes = right() && arg & 7;
		break;
	case 4:		/* and now the ledger is told */
	case 5:
		t = now();
		nsrq_synchronised(&w.l, &t, w.asked_yes, w.asked);
		break;
	case 6:		/* an intent that begins with a challenge */
	case 7:
		status(key, w.truth + w.operator_error);
		i = new_intent(key, arg >> 1, true);
		if (i >= 0 && w.n_replies)
			by_challenge(i, &w.replies[(w.n_replies - 1) % N_REPLIES], op & 1);
		break;
	case 8:		/* an intent that begins with a time */
	case 9:
		i = new_intent(key, arg >> 1, true);
		if (i < 0)
			break;
		w.intents[i].form_time = w.truth + w.operator_error;
		k = form(i, w.intents[i].form_time, NULL);
		if (k && op & 1)
			judge(k, 1);
		break;
	case 10:	/* another form of an old intent, by any reply ever seen */
		if (w.n_intents && w.n_replies)
			by_challenge(arg % w.n_intents,
				     &w.replies[(arg / 16) % min(w.n_replies, N_REPLIES)], true);
		break;
	case 11:	/* and by the newest, */
		status(key, w.truth + w.operator_error);
		if (w.n_intents && w.n_replies)
			by_challenge((w.n_intents - 1) - (arg >> 1) % min(w.n_intents, 4),
				     &w.replies[(w.n_replies - 1) % N_REPLIES], true);
		break;
	case 12:	/* what nobody should send, of the same key */
		i = new_intent(key, arg >> 3, false);
		if (i < 0)
			break;
		k = form(i, w.truth + (arg >> 1) * S - 64 * S,
			 arg & 2 && w.n_replies ? w.replies[0].challenge : NULL);
		if (k && arg & 4)
			judge(k, 2);
		break;
	case 13:
	case 14:
	case 15:	/* the network delivers something */
		if (w.n_packets)
			judge(&w.packets[arg % w.n_packets], arg & 1);
		break;
	case 16:
		if (w.n_packets) {
			t = now();
			k = &w.packets[arg % w.n_packets];
			nsrq_finish(&w.l, &t, w.handles[k->key], k->r.id);
		}
		break;
	case 17:	/* everything that is pending is settled, or vetoed */
		t = now();
		for (i = 0; i < w.n_intents; i++) {
			struct nsrq_decision d;
			u8 id[NSRQ_ID_SIZE] = {};

			put_unaligned_be64(i + 1, id + 8);
			if (nsrq_settle(&w.l, &t, w.handles[w.intents[i].key], id, arg % 3, &d) &&
			    d.run)
				has_run(intent_of(id));
		}
		break;
	case 18:
		if (arg < 32)
			w.booted = w.truth - (arg & 15) * S;
		if (arg < 80)
			begin(arg & 1);
		break;
	case 19:
		t = now();
		if (arg < 8) {
			nsrq_remove(&w.l, &t, w.handles[key]);
			CHECK(!nsrq_account(&w.l, w.handles[key]));
			w.handles[key] = 0;
		} else {
			install(key, arg & 2 ? ~0ULL : 1ULL << ('s' - 'a' + 10));
		}
		break;
	case 20:
		status(key, w.truth + w.operator_error);
		read_log(key, arg >> 1);
		break;
	}
}

static void check(void)
{
	struct nsrq_account *a;
	int key, i, j, unfinished;

	for (key = 0; key < N_KEYS; key++) {
		a = nsrq_account(&w.l, w.handles[key]);
		CHECK(!a == !w.handles[key]);
		if (!a)
			continue;
		CHECK(a->floor >= w.floors[key]);
		w.floors[key] = a->floor;
		CHECK(a->horizon <= now().boot && a->tokens <= NSRQ_BUDGET);
		for (i = unfinished = 0; i < NSRQ_ANSWERS; i++) {
			const struct nsrq_entry *e = &a->entries[i];

			unfinished += e->state == NSRQ_STATE_PENDING ||
				      e->state == NSRQ_STATE_ACTIVE;
			for (j = 0; e->state && j < i; j++)
				CHECK(!a->entries[j].state ||
				      memcmp(e->id, a->entries[j].id, sizeof(e->id)));
		}
		CHECK(unfinished <= NSRQ_ACTIVE);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	size_t i;

	if (size < 2)
		return 0;
	memset(&w, 0, sizeof(w));
	w.truth = 1767225600 * S;
	w.booted = w.truth - 60 * S;
	w.operator_error = ((data[0] >> 1) % 3 - 1) * (long long)(NSRQ_W / 2);
	begin(data[0] & 1);
	for (i = 2; i + 1 < size && i < 2000; i += 2) {
		w.event++;
		event(data[i], data[i + 1]);
		check();
	}
	return 0;
}
