// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Packets and ledger of the netsysrq protocol, auth/PROTOCOL.md. See wire.h for
 * what this file leaves to its caller.
 */
#include "wire.h"

/* sat(a - b) of section 1: a clock that is behind counts as no time at all. */
static u64 sat(u64 a, u64 b)
{
	return a > b ? a - b : 0;
}

/* Never wraps, so that the largest time stays the largest. */
static u64 add(u64 a, u64 b)
{
	return a + b < a ? ~0ULL : a + b;
}

/* For request ids and challenges, whose length is the same. */
static bool is_zero(const u8 *id)
{
	return !(get_unaligned_be64(id) | get_unaligned_be64(id + 8));
}

/*
 * Checks 4 to 8 of section 4, which need no key. Unless len is exactly
 * NSRQ_PACKET_SIZE nothing is read from p; after OK the key id stands at
 * p + NSRQ_OFF_KEY_ID.
 */
enum nsrq_reason nsrq_check(const u8 *p, size_t len)
{
	if (len != NSRQ_PACKET_SIZE)
		return NSRQ_REASON_LENGTH;
	if (memcmp(p, NSRQ_MAGIC, NSRQ_OFF_VERSION))
		return NSRQ_REASON_MAGIC;
	if (p[NSRQ_OFF_VERSION] != NSRQ_VERSION)
		return NSRQ_REASON_VERSION;
	if (p[NSRQ_OFF_TYPE] != NSRQ_TYPE_REQUEST)
		return NSRQ_REASON_TYPE;
	if (p[NSRQ_OFF_RESERVED] || p[NSRQ_OFF_RESERVED + 1])
		return NSRQ_REASON_RESERVED;
	return NSRQ_REASON_OK;
}

/*
 * Checks 10 and 11 of a packet that passed nsrq_check(), with the key that it
 * names. FORGED says nothing about r; after OK or MALFORMED the packet is
 * authentic and r is for nsrq_judge(). No plaintext is left on the stack.
 */
enum nsrq_reason nsrq_open(struct nsrq_request *r, const u8 *p,
			   const struct nsrq_key *key)
{
	u8 body[NSRQ_BODY_SIZE];
	bool ok;

	ok = xchacha20poly1305_decrypt(body, p + NSRQ_OFF_BODY,
				       NSRQ_BODY_SIZE + NSRQ_TAG_SIZE,
				       p, NSRQ_HEADER_SIZE,
				       p + NSRQ_OFF_NONCE, key->request);
	if (ok)
		nsrq_decode(r, body);
	memzero_explicit(body, sizeof(body));
	if (!ok)
		return NSRQ_REASON_FORGED;
	return r->malformed ? NSRQ_REASON_MALFORMED : NSRQ_REASON_OK;
}

bool nsrq_is_sysrq_key(u8 c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
}

/* The end of section 4.1 for a log: b is the whole body. */
static enum nsrq_field decode_log(struct nsrq_request *r, const u8 *b)
{
	int i;

	r->from = get_unaligned_be64(b + 44);
	r->pieces = b[52];
	if (r->flags || r->count || is_zero(r->challenge) || !r->pieces ||
	    r->pieces > NSRQ_MAX_PIECES)
		return NSRQ_FIELD_LOG_FIELDS;
	for (i = 53; i < NSRQ_BODY_SIZE; i++)
		if (b[i])
			return NSRQ_FIELD_LOG_FIELDS;
	return NSRQ_WELL_FORMED;
}

/* Section 4.1, in its order; fills in flags, count and steps on the way. */
static enum nsrq_field decode(struct nsrq_request *r, const u8 *b)
{
	u32 pauses = 0;
	int i;

	r->op = b[40];
	r->flags = b[41];
	r->count = b[42];
	if (r->op > NSRQ_OP_LOG)
		return NSRQ_FIELD_OP;
	if (is_zero(r->id))
		return NSRQ_FIELD_ID;
	if (b[43])
		return NSRQ_FIELD_BODY_RESERVED;
	if (r->flags & ~(NSRQ_REHEARSE | NSRQ_DRILL | NSRQ_NOW))
		return NSRQ_FIELD_FLAGS;
	if (r->count > NSRQ_MAX_STEPS)
		return NSRQ_FIELD_STEP_COUNT;
	if (r->op == NSRQ_OP_LOG)
		return decode_log(r, b);
	for (i = 0, b += 44; i < r->count; i++, b += 4) {
		if (!nsrq_is_sysrq_key(b[0]))
			return NSRQ_FIELD_STEP_KEY;
		if (b[1])
			return NSRQ_FIELD_STEP_RESERVED;
		r->steps[i].key = b[0];
		r->steps[i].pause = get_unaligned_be16(b + 2);
		pauses += r->steps[i].pause;
	}
	for (; i < NSRQ_MAX_STEPS; i++, b += 4)
		if (b[0] || b[1] || b[2] || b[3])
			return NSRQ_FIELD_STEP_UNUSED;
	if (pauses > NSRQ_MAX_PAUSE)
		return NSRQ_FIELD_PAUSES;
	if (r->op == NSRQ_OP_STATUS &&
	    (r->flags || r->count || !is_zero(r->challenge)))
		return NSRQ_FIELD_STATUS_FIELDS;
	return NSRQ_WELL_FORMED;
}

/*
 * Reads a body of NSRQ_BODY_SIZE bytes. All of r is written, whatever the
 * body, and r->malformed names the first field that is wrong.
 */
void nsrq_decode(struct nsrq_request *r, const u8 *body)
{
	memset(r, 0, sizeof(*r));
	r->time = get_unaligned_be64(body);
	memcpy(r->id, body + 8, sizeof(r->id));
	memcpy(r->challenge, body + 24, sizeof(r->challenge));
	r->malformed = decode(r, body);
	if (!r->malformed)
		return;
	/* What was read of the rest may be out of its bounds. */
	r->op = 0;
	r->flags = 0;
	r->count = 0;
	memset(r->challenge, 0, sizeof(r->challenge));
	memset(r->steps, 0, sizeof(r->steps));
	r->from = 0;
	r->pieces = 0;
}

static void put16(u64 v, u8 *p)
{
	put_unaligned_be16(min(v, 0xffffULL), p);
}

static void put32(u64 v, u8 *p)
{
	put_unaligned_be32(min(v, 0xffffffffULL), p);
}

/* The packet around a body of len bytes, which may stand in its place already. */
static void seal(u8 *p, u8 type, const struct nsrq_key *key, const u8 *nonce,
		 const u8 *body, size_t len)
{
	memcpy(p, NSRQ_MAGIC, NSRQ_OFF_VERSION);
	p[NSRQ_OFF_VERSION] = NSRQ_VERSION;
	p[NSRQ_OFF_TYPE] = type;
	memset(p + NSRQ_OFF_RESERVED, 0, 2);
	memcpy(p + NSRQ_OFF_KEY_ID, key->id, sizeof(key->id));
	memcpy(p + NSRQ_OFF_NONCE, nonce, NSRQ_NONCE_SIZE);
	xchacha20poly1305_encrypt(p + NSRQ_OFF_BODY, body, len, p,
				  NSRQ_HEADER_SIZE, nonce, key->reply);
}

/*
 * Writes the packet of NSRQ_PACKET_SIZE bytes for r. The nonce is
 * NSRQ_NONCE_SIZE bytes of a cryptographic random source, never used before.
 */
void nsrq_seal(u8 *p, const struct nsrq_key *key, const u8 *nonce,
	       const struct nsrq_reply *r)
{
	u8 b[NSRQ_BODY_SIZE] = {};

	put_unaligned_be64(r->time, b);
	memcpy(b + 8, r->id, sizeof(r->id));
	memcpy(b + 24, r->challenge, sizeof(r->challenge));
	b[40] = r->answer.result;
	b[41] = r->executor;
	b[42] = r->answer.flags;
	b[43] = r->answer.mask;
	memcpy(b + 44, r->boot_id, sizeof(r->boot_id));
	put32(r->uptime, b + 52);
	put16(r->age, b + 56);
	put16(r->load, b + 58);
	put32(r->free, b + 60);
	put16(r->sysrq, b + 64);
	put16(r->silent, b + 66);

	seal(p, NSRQ_TYPE_REPLY, key, nonce, b, sizeof(b));
	memzero_explicit(b, sizeof(b));
}

/*
 * Writes the packet for r, whose text, at most NSRQ_TEXT_SIZE bytes, stands at
 * p + NSRQ_OFF_TEXT already. Returns its length, at most NSRQ_PIECE_SIZE.
 */
size_t nsrq_seal_piece(u8 *p, const struct nsrq_key *key, const u8 *nonce,
		       const struct nsrq_piece *r, size_t text)
{
	u8 *b = p + NSRQ_OFF_BODY;

	put_unaligned_be64(r->time, b);
	memcpy(b + 8, r->id, sizeof(r->id));
	memcpy(b + 24, r->challenge, sizeof(r->challenge));
	b[40] = r->index;
	b[41] = r->flags;
	memset(b + 42, 0, 2);
	memcpy(b + 44, r->boot_id, sizeof(r->boot_id));
	put_unaligned_be64(r->first, b + 52);
	put_unaligned_be64(r->next, b + 60);
	put_unaligned_be64(r->end, b + 68);
	put_unaligned_be64(r->oldest, b + 76);
	seal(p, NSRQ_TYPE_PIECE, key, nonce, b, NSRQ_PIECE_HEAD + text);
	return NSRQ_OFF_TEXT + text + NSRQ_TAG_SIZE;
}

/*
 * How long to wait after a step, at most a minute. For s and u it is a bound,
 * which ends early when the kernel says that the work is done.
 */
u32 nsrq_wait_ms(const struct nsrq_step *s)
{
	if (!s->pause && (s->key == 's' || s->key == 'u'))
		return NSRQ_DEFAULT_BOUND * 10;
	return s->pause * 10;
}

/*
 * The mask of the steps whose key is not in the set; 0 says that the set holds
 * every one, which also decides whether now may end another key's sequence.
 */
u8 nsrq_missing(u64 allowed, const struct nsrq_request *p)
{
	u8 c, mask = 0;
	int i;

	for (i = 0; i < p->count; i++) {
		c = p->steps[i].key;
		if (!(allowed >> (c <= '9' ? c - '0' : c - 'a' + 10) & 1))
			mask |= 1 << i;
	}
	return mask;
}

/* Every step, as a mask. */
static u8 all_steps(const struct nsrq_request *p)
{
	return (1 << p->count) - 1;
}

/* The mask of the steps after the first that ends every process. */
static u8 after_kill(const struct nsrq_request *p)
{
	int i;

	for (i = 0; i < p->count; i++)
		if (p->steps[i].key == 'e' || p->steps[i].key == 'i')
			return all_steps(p) & ~((2 << i) - 1);
	return 0;
}

/* The bit of kernel.sysrq that allows a key: enable_mask in sysrq.c, or none. */
static int sysrq_bit(u8 c)
{
	static const char *const keys[] = {
		"0123456789", "kr", "clmptwz", "s", "u", "efij", "bo", "n",
	};
	int i;

	for (i = 0; i < (int)ARRAY_SIZE(keys); i++)
		if (strchr(keys[i], c))
			return 2 << i;
	return 0;
}

/* The mask of the steps that handle_sysrq() would ignore without a word. */
static u8 swallowed(const struct nsrq_request *p, s32 sysrq)
{
	u8 mask = 0;
	int i;

	if (sysrq == 1 || sysrq < 0)
		return 0;
	for (i = 0; i < p->count; i++)
		if (!(sysrq & sysrq_bit(p->steps[i].key)))
			mask |= 1 << i;
	return mask;
}

/* The word for logs; never NULL. */
const char *nsrq_reason_name(enum nsrq_reason reason)
{
	static const char *const names[NSRQ_REASONS] = {
		"ok", "datagram", "source", "late", "length", "magic",
		"version", "type", "reserved", "unknown-key", "forged",
		"malformed", "stale", "repeat", "pending", "budget",
		"not-allowed", "after-kill", "masked", "busy", "vetoed",
	};

	return reason < ARRAY_SIZE(names) ? names[reason] : "unknown";
}

/* Whether two values of real() - boot() are so far apart that a clock was set. */
static bool stepped(u64 a, u64 b)
{
	return a - b > NSRQ_STEP && b - a > NSRQ_STEP;
}

/* The first thing in every event but begin: see whether the clock was set. */
static void look(struct nsrq_ledger *l, const struct nsrq_now *now)
{
	if (stepped(now->real - now->boot, l->offset))
		l->clock_ok = false;
	l->offset = now->real - now->boot;
}

/*
 * Forgets everything, keys and their secrets too. Handles from before stay
 * dead, so what is still in flight cannot touch the new ledger.
 */
void nsrq_begin(struct nsrq_ledger *l, const struct nsrq_now *now)
{
	memzero_explicit(l->accounts, sizeof(l->accounts));
	l->clock_ok = false;
	l->offset = now->real - now->boot;
}

/*
 * Adds a key, or gives a known one its allowed set anew and changes nothing
 * else, not even the secrets. Returns the key's handle, which names this
 * installation and is never used again after its end; 0 if there is no room.
 */
u64 nsrq_install(struct nsrq_ledger *l, const struct nsrq_now *now,
		 const struct nsrq_key *key, u64 allowed)
{
	struct nsrq_account *a = nsrq_account(l, nsrq_find(l, key->id, NULL));
	int i;

	look(l, now);
	for (i = 0; !a && i < NSRQ_KEYS; i++) {
		if (l->accounts[i].handle)
			continue;
		a = &l->accounts[i];
		a->handle = ++l->handles;
		a->key = *key;
		a->floor = add(now->real, NSRQ_W);
		a->horizon = now->boot;
		a->tokens = NSRQ_BUDGET;
		a->refilled = now->boot;
	}
	if (!a)
		return 0;
	a->allowed = allowed;
	return a->handle;
}

/*
 * Check 9: the handle of the key with this id, 0 if there is none. The secrets
 * are copied to key, unless it is NULL, so that crypto can be done without the
 * lock; the handle tells the later calls if the key was removed meanwhile.
 */
u64 nsrq_find(const struct nsrq_ledger *l, const u8 *id, struct nsrq_key *key)
{
	const struct nsrq_account *a;

	for (a = l->accounts; a < l->accounts + NSRQ_KEYS; a++) {
		if (!a->handle || memcmp(a->key.id, id, sizeof(a->key.id)))
			continue;
		if (key)
			*key = a->key;
		return a->handle;
	}
	return 0;
}

/* What a handle stands for, NULL if it does no more. Good under the lock. */
struct nsrq_account *nsrq_account(struct nsrq_ledger *l, u64 handle)
{
	struct nsrq_account *a;

	for (a = l->accounts; handle && a < l->accounts + NSRQ_KEYS; a++)
		if (a->handle == handle)
			return a;
	return NULL;
}

/* Nothing of the key is kept; what runs goes on, and settles as late. */
void nsrq_remove(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle)
{
	struct nsrq_account *a = nsrq_account(l, handle);

	look(l, now);
	if (a)
		memzero_explicit(a, sizeof(*a));
}

/*
 * Whether the clock is disciplined, and real() - boot() when that was asked: a
 * yes that a step of the clock has overtaken counts as no.
 */
void nsrq_synchronised(struct nsrq_ledger *l, const struct nsrq_now *now,
		       bool yes, u64 s)
{
	u64 end = add(now->real, NSRQ_W);
	struct nsrq_account *a;

	look(l, now);
	yes = yes && !stepped(now->real - now->boot, s);
	if (yes && !l->clock_ok) {
		for (a = l->accounts; a < l->accounts + NSRQ_KEYS; a++) {
			a->floor = max(a->floor, end);
			a->newest = min(a->newest, end);
		}
	}
	l->clock_ok = yes;
}

/* The challenge to send; draw becomes one if a new one is due. */
static void issue(struct nsrq_account *a, const struct nsrq_now *now,
		  const u8 *draw, u8 *challenge)
{
	struct nsrq_slot *slot = a->slots;

	if (is_zero(slot->challenge) ||
	    sat(now->boot, slot->made) >= NSRQ_RENEW) {
		if (!draw)
			return;
		slot[1] = slot[0];
		memcpy(slot->challenge, draw, sizeof(slot->challenge));
		slot->made = now->boot;
	}
	memcpy(challenge, slot->challenge, sizeof(slot->challenge));
}

/* One answer from the budget, which gains one every NSRQ_REFILL. */
static bool token(struct nsrq_account *a, const struct nsrq_now *now)
{
	u64 n = div_u64(sat(now->boot, a->refilled), NSRQ_REFILL);

	a->refilled += n * NSRQ_REFILL;
	a->tokens = min(a->tokens + n, 0ULL + NSRQ_BUDGET);
	if (!a->tokens)
		return false;
	a->tokens--;
	return true;
}

/* Section 5.4; e is NULL unless the packet is a run that e knows. */
static bool may_answer(struct nsrq_account *a, const struct nsrq_now *now,
		       struct nsrq_entry *e, u64 source, bool new)
{
	if (e && e->source == source &&
	    sat(now->boot, e->answered) >= NSRQ_REFILL) {
		e->answered = now->boot;
		return true;
	}
	return new || token(a, now);
}

static struct nsrq_entry *find_entry(struct nsrq_account *a, const u8 *id)
{
	struct nsrq_entry *e;

	for (e = a->entries; e < a->entries + NSRQ_ANSWERS; e++)
		if (e->state != NSRQ_STATE_UNUSED &&
		    !memcmp(e->id, id, sizeof(e->id)))
			return e;
	return NULL;
}

/* Whether a challenge, not zero, is one of the two and alive. */
static bool is_alive(const struct nsrq_account *a, const struct nsrq_now *now,
		     const u8 *challenge)
{
	int i;

	for (i = 0; i < 2; i++)
		if (!crypto_memneq(challenge, a->slots[i].challenge,
				   NSRQ_CHALLENGE_SIZE))
			return sat(now->boot, a->slots[i].made) < NSRQ_C;
	return false;
}

/* Whether a run that is seen for the first time is fresh. Raises the floor. */
static bool is_fresh(struct nsrq_ledger *l, const struct nsrq_now *now,
		     struct nsrq_account *a, const struct nsrq_request *p)
{
	u64 f = max(sat(now->real, NSRQ_W),
		    add(sat(now->real, now->boot), NSRQ_W));

	f = max(f, a->floor);
	a->floor = max(a->floor, p->time);
	if (is_zero(p->challenge))
		return l->clock_ok && f < p->time &&
		       p->time <= add(now->real, NSRQ_W);
	return is_alive(a, now, p->challenge);
}

/*
 * An entry to fill: the first unused, or the final one that was seen longest
 * ago (of several the first), forgotten. At most NSRQ_ACTIVE are not final, so
 * there always is one.
 */
static struct nsrq_entry *claim(struct nsrq_account *a)
{
	struct nsrq_entry *e, *oldest = NULL;

	for (e = a->entries; e < a->entries + NSRQ_ANSWERS; e++) {
		if (e->state == NSRQ_STATE_UNUSED)
			return e;
		if (e->state == NSRQ_STATE_FINAL &&
		    (!oldest || e->seen < oldest->seen))
			oldest = e;
	}
	a->horizon = max(a->horizon, oldest->seen);
	a->floor = max(a->floor, oldest->bar);
	return oldest;
}

/* Makes every entry final, and says whether one was not. */
static bool cut(struct nsrq_account *a)
{
	struct nsrq_entry *e;
	bool any = false;

	for (e = a->entries; e < a->entries + NSRQ_ANSWERS; e++) {
		if (e->state == NSRQ_STATE_PENDING)
			e->answer = (struct nsrq_answer){ .result = NSRQ_VETOED };
		else if (e->state != NSRQ_STATE_ACTIVE)
			continue;
		e->state = NSRQ_STATE_FINAL;
		any = true;
	}
	return any;
}

static int unfinished(const struct nsrq_account *a)
{
	const struct nsrq_entry *e;
	int n = 0;

	for (e = a->entries; e < a->entries + NSRQ_ANSWERS; e++)
		n += e->state == NSRQ_STATE_PENDING ||
		     e->state == NSRQ_STATE_ACTIVE;
	return n;
}

/* Sets reason, result and mask of a decision. */
static void say(struct nsrq_decision *d, u8 reason, u8 result, u8 mask)
{
	d->reason = reason;
	d->answer = (struct nsrq_answer){ .result = result, .mask = mask };
}

/* The same for a refusal, if there are steps that are its cause. */
static bool refuse(struct nsrq_decision *d, u8 reason, u8 result, u8 mask)
{
	if (mask)
		say(d, reason, result, mask);
	return mask;
}

/* Section 5.3, for a fresh request. Returns the state of its entry. */
static u8 decide(struct nsrq_ledger *l, const struct nsrq_now *now,
		 struct nsrq_account *a, const struct nsrq_request *p,
		 struct nsrq_decision *d)
{
	bool rehearsal = p->flags & (NSRQ_REHEARSE | NSRQ_DRILL);
	bool daemon = l->executor == NSRQ_DAEMON;

	if (refuse(d, NSRQ_REASON_NOT_ALLOWED, NSRQ_REFUSED_POLICY,
		   nsrq_missing(a->allowed, p)) ||
	    refuse(d, NSRQ_REASON_AFTER_KILL, NSRQ_REFUSED_POLICY,
		   daemon ? after_kill(p) : 0) ||
	    refuse(d, NSRQ_REASON_MASKED, NSRQ_REFUSED_SYSRQ,
		   swallowed(p, l->sysrq)))
		return NSRQ_STATE_FINAL;

	say(d, NSRQ_REASON_OK, NSRQ_ACCEPTED, 0);
	if (!rehearsal && p->flags & NSRQ_NOW)
		d->cut = cut(a);
	if (!rehearsal && !p->count) {
		a->floor = max(a->floor, add(now->real, NSRQ_W));
		return NSRQ_STATE_FINAL;
	}
	if (unfinished(a) >= NSRQ_ACTIVE && !(rehearsal && daemon)) {
		say(d, NSRQ_REASON_BUSY, NSRQ_BUSY, 0);
		return NSRQ_STATE_FINAL;
	}
	if (rehearsal || l->dry_run) {
		d->answer.flags = rehearsal ? NSRQ_REHEARSED : NSRQ_DRY_RUN;
		d->answer.mask = all_steps(p);
	}
	d->run = !rehearsal;
	if (daemon)
		return rehearsal ? NSRQ_STATE_FINAL : NSRQ_STATE_ACTIVE;
	d->pending = true;
	d->silent = true;
	return NSRQ_STATE_PENDING;
}

/* Remembers a fresh request, and decides it. */
static void enter(struct nsrq_ledger *l, const struct nsrq_now *now,
		  struct nsrq_account *a, const struct nsrq_request *p,
		  u64 source, struct nsrq_decision *d)
{
	struct nsrq_entry *e = claim(a);

	memset(a->slots, 0, sizeof(a->slots));
	memcpy(e->id, p->id, sizeof(e->id));
	e->bar = is_zero(p->challenge) ? 0 : add(now->real, NSRQ_W);
	e->seen = now->boot;
	e->answered = now->boot;
	e->source = source;
	e->state = NSRQ_STATE_FINAL;	/* not one of those that now cuts */
	e->state = decide(l, now, a, p, d);
	e->answer = d->answer;
}

/* Decides a fresh log: nothing remembers it. */
static void grant(struct nsrq_account *a, const struct nsrq_now *now,
		  const u8 *draw, struct nsrq_decision *d)
{
	memset(a->slots, 0, sizeof(a->slots));
	if (!(a->allowed & NSRQ_READ_LOG)) {
		say(d, NSRQ_REASON_NOT_ALLOWED, NSRQ_REFUSED_POLICY, 0);
		return;
	}
	say(d, NSRQ_REASON_OK, NSRQ_STATUS, 0);
	d->pieces = true;
	issue(a, now, draw, d->challenge);
}

/* What the reply says of the ledger itself, at the moment it is made. */
static void sign(const struct nsrq_ledger *l, const struct nsrq_now *now,
		 const struct nsrq_account *a, struct nsrq_decision *d)
{
	u64 age = div_u64(sat(now->boot, a->horizon), NSRQ_SECOND);

	d->age = min(age, 0xffffULL);
	if (l->clock_ok)
		d->answer.flags |= NSRQ_CLOCK_TRUSTED;
}

/*
 * Decides a request that nsrq_open() called OK or MALFORMED with the key of
 * this handle. draw is NSRQ_CHALLENGE_SIZE random bytes, or NULL if the
 * generator is not ready; they are used up if the decision carries them as its
 * challenge, and else may serve again. A reply with the decision's answer, age
 * and challenge is owed unless it is silent. UNKNOWN_KEY: the key is gone.
 */
void nsrq_judge(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		const struct nsrq_request *p, u64 source, const u8 *draw,
		struct nsrq_decision *d)
{
	struct nsrq_account *a = nsrq_account(l, handle);
	bool run = !p->malformed && p->op == NSRQ_OP_RUN;
	bool log = !p->malformed && p->op == NSRQ_OP_LOG;
	struct nsrq_entry *e;
	bool new, fresh;

	look(l, now);
	memset(d, 0, sizeof(*d));
	d->silent = true;
	d->reason = NSRQ_REASON_UNKNOWN_KEY;
	if (!a)
		return;
	new = p->time > a->newest &&
	      (!l->clock_ok || p->time <= add(now->real, NSRQ_W));
	if (new)
		a->newest = p->time;

	e = run ? find_entry(a, p->id) : NULL;
	d->reason = NSRQ_REASON_PENDING;
	if (e && e->state == NSRQ_STATE_PENDING)
		return;
	fresh = log ? is_alive(a, now, p->challenge) :
		      run && !e && is_fresh(l, now, a, p);
	d->silent = !fresh && !may_answer(a, now, e, source, new);

	if (p->malformed) {
		say(d, NSRQ_REASON_MALFORMED, NSRQ_MALFORMED, 0);
	} else if (log && fresh) {
		grant(a, now, draw, d);
	} else if (!run && !log) {
		say(d, d->silent ? NSRQ_REASON_BUDGET : NSRQ_REASON_OK,
		    NSRQ_STATUS, 0);
		d->answer.flags = l->dry_run ? NSRQ_DRY_RUN : 0;
	} else if (e) {
		d->reason = NSRQ_REASON_REPEAT;
		d->answer = e->answer;
		d->answer.flags |= NSRQ_REPEAT;
	} else if (!fresh) {
		say(d, NSRQ_REASON_STALE, NSRQ_STALE, 0);
	} else {
		enter(l, now, a, p, source, d);
	}
	if (!d->silent && !p->malformed && !e && !fresh)
		issue(a, now, draw, d->challenge);
	sign(l, now, a, d);
}

/*
 * Ends the pending state of a request, once: true, and the answer that is now
 * owed; run says whether steps follow. False is "late": nothing is pending
 * under that id, and nothing changed.
 */
bool nsrq_settle(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		 const u8 *id, enum nsrq_settlement how, struct nsrq_decision *d)
{
	bool veto = how == NSRQ_SETTLE_VETOED;
	struct nsrq_account *a = nsrq_account(l, handle);
	struct nsrq_entry *e = a ? find_entry(a, id) : NULL;

	look(l, now);
	memset(d, 0, sizeof(*d));
	d->silent = true;
	if (!e || e->state != NSRQ_STATE_PENDING)
		return false;
	if (veto)
		e->answer = (struct nsrq_answer){ .result = NSRQ_VETOED };
	e->answer.by = how == NSRQ_SETTLE_DEADLINE ? NSRQ_KERNEL : NSRQ_DAEMON;
	d->run = !veto && !(e->answer.flags & NSRQ_REHEARSED);
	e->state = d->run ? NSRQ_STATE_ACTIVE : NSRQ_STATE_FINAL;
	d->reason = veto ? NSRQ_REASON_VETOED : NSRQ_REASON_OK;
	d->answer = e->answer;
	d->silent = false;
	sign(l, now, a, d);
	return true;
}

/* The last step of a run is done, or the run was cut. Otherwise no effect. */
void nsrq_finish(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		 const u8 *id)
{
	struct nsrq_account *a = nsrq_account(l, handle);
	struct nsrq_entry *e = a ? find_entry(a, id) : NULL;

	look(l, now);
	if (e && e->state == NSRQ_STATE_ACTIVE)
		e->state = NSRQ_STATE_FINAL;
}
