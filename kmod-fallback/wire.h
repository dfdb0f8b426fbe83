/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The host's side of the netsysrq protocol: packets, and the ledger that
 * decides about them. auth/PROTOCOL.md is the reference, and names and
 * constants are spelled as there.
 *
 * Nothing here allocates, sleeps, locks, reads a clock or draws randomness:
 * the caller passes all of it in. Packets (first half) need no lock and no
 * ledger; crypto belongs there. Ledger functions (second half) need the
 * caller's one lock around each call, take no more than a few microseconds and
 * do no crypto.
 */
#ifndef NSRQ_WIRE_H
#define NSRQ_WIRE_H

#include "compat.h"

/* Constants, section 1. Times are in nanoseconds. */
#define NSRQ_SECOND		1000000000ULL
#define NSRQ_PACKET_SIZE	128
#define NSRQ_HEADER_SIZE	16
#define NSRQ_BODY_SIZE		72
#define NSRQ_PIECE_SIZE		1200
#define NSRQ_PIECE_HEAD		84
#define NSRQ_TEXT_SIZE		1060
#define NSRQ_MAX_PIECES		8
#define NSRQ_MAX_STEPS		7
#define NSRQ_MAX_PAUSE		6000
#define NSRQ_DEFAULT_BOUND	1000
#define NSRQ_W			(15 * NSRQ_SECOND)
#define NSRQ_C			(30 * NSRQ_SECOND)
#define NSRQ_RENEW		(15 * NSRQ_SECOND)
#define NSRQ_STEP		(1 * NSRQ_SECOND)
#define NSRQ_ANSWERS		16
#define NSRQ_ACTIVE		2
#define NSRQ_BUDGET		32
#define NSRQ_REFILL		(NSRQ_SECOND / 20)
#define NSRQ_LATE		(1 * NSRQ_SECOND)
#define NSRQ_GRACE		(NSRQ_SECOND / 50)
#define NSRQ_PORT		9

#define NSRQ_KEYS		16	/* host keys that the ledger has room for */
#define NSRQ_KEY_SIZE		32
#define NSRQ_KEY_ID_SIZE	8
#define NSRQ_ID_SIZE		16
#define NSRQ_CHALLENGE_SIZE	16
#define NSRQ_BOOT_ID_SIZE	8
#define NSRQ_NONCE_SIZE		24
#define NSRQ_TAG_SIZE		16

/* The header, section 3. Offsets are from the beginning of the packet. */
#define NSRQ_MAGIC		"NSRQ"
#define NSRQ_VERSION		1
#define NSRQ_TYPE_REQUEST	1
#define NSRQ_TYPE_REPLY		2
#define NSRQ_TYPE_PIECE		3
#define NSRQ_OFF_VERSION	4
#define NSRQ_OFF_TYPE		5
#define NSRQ_OFF_RESERVED	6
#define NSRQ_OFF_KEY_ID		8
#define NSRQ_OFF_NONCE		16
#define NSRQ_OFF_BODY		40
#define NSRQ_OFF_TEXT		124	/* of a piece */

#define NSRQ_LOG_END	(~0ULL)		/* from, of a log that wants no record */
#define NSRQ_READ_LOG	BIT_ULL(36)	/* of the allowed set: L */

enum nsrq_op { NSRQ_OP_STATUS, NSRQ_OP_RUN, NSRQ_OP_LOG };

enum nsrq_request_flag { NSRQ_REHEARSE = 1, NSRQ_DRILL = 2, NSRQ_NOW = 4 };

enum nsrq_result {
	NSRQ_STATUS, NSRQ_ACCEPTED, NSRQ_STALE, NSRQ_REFUSED_POLICY,
	NSRQ_REFUSED_SYSRQ, NSRQ_VETOED, NSRQ_BUSY, NSRQ_MALFORMED,
};

enum nsrq_executor { NSRQ_NOBODY, NSRQ_DAEMON, NSRQ_KERNEL };

enum nsrq_reply_flag {
	NSRQ_REPEAT = 1, NSRQ_REHEARSED = 2, NSRQ_DRY_RUN = 4,
	NSRQ_CLOCK_TRUSTED = 8, NSRQ_ARMED = 16,
};

enum nsrq_piece_flag { NSRQ_LAST = 1, NSRQ_CUT = 2 };

/*
 * What a host logs of a packet, in the order of section 4. The first three and
 * LATE are the caller's to check. Up to FORGED nothing may ever be sent.
 */
enum nsrq_reason {
	NSRQ_REASON_OK, NSRQ_REASON_DATAGRAM, NSRQ_REASON_SOURCE,
	NSRQ_REASON_LATE, NSRQ_REASON_LENGTH, NSRQ_REASON_MAGIC,
	NSRQ_REASON_VERSION, NSRQ_REASON_TYPE, NSRQ_REASON_RESERVED,
	NSRQ_REASON_UNKNOWN_KEY, NSRQ_REASON_FORGED, NSRQ_REASON_MALFORMED,
	NSRQ_REASON_STALE, NSRQ_REASON_REPEAT, NSRQ_REASON_PENDING,
	NSRQ_REASON_BUDGET, NSRQ_REASON_NOT_ALLOWED, NSRQ_REASON_AFTER_KILL,
	NSRQ_REASON_MASKED, NSRQ_REASON_BUSY, NSRQ_REASON_VETOED,
	NSRQ_REASONS,
};

/* What makes a body malformed, in the order of section 4.1. */
enum nsrq_field {
	NSRQ_WELL_FORMED, NSRQ_FIELD_OP, NSRQ_FIELD_ID,
	NSRQ_FIELD_BODY_RESERVED, NSRQ_FIELD_FLAGS, NSRQ_FIELD_STEP_COUNT,
	NSRQ_FIELD_STEP_KEY, NSRQ_FIELD_STEP_RESERVED, NSRQ_FIELD_STEP_UNUSED,
	NSRQ_FIELD_PAUSES, NSRQ_FIELD_STATUS_FIELDS, NSRQ_FIELD_LOG_FIELDS,
};

/* A host key, section 2. Secret: wipe every copy with memzero_explicit(). */
struct nsrq_key {
	u8 id[NSRQ_KEY_ID_SIZE];
	u8 request[NSRQ_KEY_SIZE];
	u8 reply[NSRQ_KEY_SIZE];
};

struct nsrq_step {
	u8 key;
	u16 pause;	/* in units of 10 ms */
};

/*
 * A request that was opened. If malformed is not NSRQ_WELL_FORMED, nothing but
 * time and id may be used, and those only for the answer.
 */
struct nsrq_request {
	enum nsrq_field malformed;
	u64 time;	/* ns since 1970, 0: none */
	u8 id[NSRQ_ID_SIZE];
	u8 challenge[NSRQ_CHALLENGE_SIZE];
	u8 op;
	u8 flags;
	u8 count;	/* steps in use, at most NSRQ_MAX_STEPS */
	struct nsrq_step steps[NSRQ_MAX_STEPS];
	u64 from;	/* of a log: first record wanted, or NSRQ_LOG_END */
	u8 pieces;	/* of a log: how many may come */
};

/* The part of a reply that is told again when the request is. */
struct nsrq_answer {
	u8 result;
	u8 flags;
	u8 mask;
	u8 by;		/* enum nsrq_executor that settled it, or nobody */
};

/*
 * A reply to seal. The numbers at the end are wider than on the wire: sealing
 * cuts them down to the largest value of the field.
 */
struct nsrq_reply {
	u64 time;
	u8 id[NSRQ_ID_SIZE];
	u8 challenge[NSRQ_CHALLENGE_SIZE];
	struct nsrq_answer answer;
	u8 executor;
	u8 boot_id[NSRQ_BOOT_ID_SIZE];
	u64 uptime;	/* seconds */
	u64 age;	/* seconds */
	u64 load;	/* one-minute load average x 100 */
	u64 free;	/* MiB */
	u64 sysrq;	/* kernel.sysrq; 0xffff: not known */
	u64 silent;	/* seconds since the daemon was heard */
};

/* A piece of the kernel's log, but for its text. */
struct nsrq_piece {
	u64 time;
	u8 id[NSRQ_ID_SIZE];
	u8 challenge[NSRQ_CHALLENGE_SIZE];
	u8 index;
	u8 flags;	/* enum nsrq_piece_flag */
	u8 boot_id[NSRQ_BOOT_ID_SIZE];
	u64 first;	/* numbers of records: the first in it, */
	u64 next;	/* the one after the last in it, */
	u64 end;	/* the next that will be logged, */
	u64 oldest;	/* the oldest that is still there */
};

enum nsrq_reason nsrq_check(const u8 *p, size_t len);
enum nsrq_reason nsrq_open(struct nsrq_request *r, const u8 *p,
			   const struct nsrq_key *key);
void nsrq_decode(struct nsrq_request *r, const u8 *body);
void nsrq_seal(u8 *p, const struct nsrq_key *key, const u8 *nonce,
	       const struct nsrq_reply *r);
size_t nsrq_seal_piece(u8 *p, const struct nsrq_key *key, const u8 *nonce,
		       const struct nsrq_piece *r, size_t text);
u32 nsrq_wait_ms(const struct nsrq_step *s);
bool nsrq_is_sysrq_key(u8 c);
u8 nsrq_missing(u64 allowed, const struct nsrq_request *p);
const char *nsrq_reason_name(enum nsrq_reason reason);

/*
 * Both clocks at one moment, in nanoseconds. Read them under the ledger's
 * lock, so that what one CPU read is not judged after what another read later.
 */
struct nsrq_now {
	u64 real;	/* CLOCK_REALTIME */
	u64 boot;	/* CLOCK_BOOTTIME */
};

/* How the pending state of a request ends: the daemon's word, or none in time. */
enum nsrq_settlement {
	NSRQ_SETTLE_TAKEN, NSRQ_SETTLE_VETOED, NSRQ_SETTLE_DEADLINE,
};

enum nsrq_state {
	NSRQ_STATE_UNUSED, NSRQ_STATE_PENDING, NSRQ_STATE_ACTIVE,
	NSRQ_STATE_FINAL,
};

struct nsrq_slot {
	u8 challenge[NSRQ_CHALLENGE_SIZE];	/* zero: empty */
	u64 made;				/* boot() */
};

struct nsrq_entry {
	u8 id[NSRQ_ID_SIZE];
	u8 state;		/* enum nsrq_state */
	struct nsrq_answer answer;
	u64 bar;		/* real() */
	u64 seen;		/* boot() */
	u64 answered;		/* boot() */
	u64 source;
};

struct nsrq_account {
	u64 handle;		/* 0: this place is free */
	struct nsrq_key key;
	u64 allowed;		/* bit 0-9: keys 0-9, bit 10-35: keys a-z, READ_LOG */
	u64 floor;		/* real() */
	u64 newest;		/* real() */
	u64 horizon;		/* boot() */
	u64 tokens;
	u64 refilled;		/* boot() up to which tokens are counted */
	struct nsrq_slot slots[2];
	struct nsrq_entry entries[NSRQ_ANSWERS];
};

/*
 * The caller sets executor, dry_run and sysrq before nsrq_begin(), and may
 * change them later under the lock. A ledger that never began must be zero.
 */
struct nsrq_ledger {
	u8 executor;		/* enum nsrq_executor */
	bool dry_run;
	s32 sysrq;		/* kernel.sysrq that the executor obeys, or -1 */
	bool clock_ok;
	u64 offset;		/* real() - boot(), modulo 2^64 */
	u64 handles;		/* handles given out so far */
	struct nsrq_account accounts[NSRQ_KEYS];
};

/* What the ledger says of a request. */
struct nsrq_decision {
	u8 reason;		/* enum nsrq_reason; OK: run, or a status */
	struct nsrq_answer answer;
	u16 age;		/* ledger age in seconds */
	bool silent;		/* send nothing now */
	bool pending;		/* silent until nsrq_settle() */
	bool run;		/* the steps are to be taken, once settled */
	bool cut;		/* earlier runs of this key became final */
	bool pieces;		/* a log: its pieces are the answer, no reply */
	u8 challenge[NSRQ_CHALLENGE_SIZE];	/* zero: none */
};

void nsrq_begin(struct nsrq_ledger *l, const struct nsrq_now *now);
u64 nsrq_install(struct nsrq_ledger *l, const struct nsrq_now *now,
		 const struct nsrq_key *key, u64 allowed);
u64 nsrq_find(const struct nsrq_ledger *l, const u8 *id, struct nsrq_key *key);
struct nsrq_account *nsrq_account(struct nsrq_ledger *l, u64 handle);
void nsrq_remove(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle);
void nsrq_synchronised(struct nsrq_ledger *l, const struct nsrq_now *now,
		       bool yes, u64 s);
void nsrq_judge(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		const struct nsrq_request *p, u64 source, const u8 *draw,
		struct nsrq_decision *d);
bool nsrq_settle(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		 const u8 *id, enum nsrq_settlement how, struct nsrq_decision *d);
void nsrq_finish(struct nsrq_ledger *l, const struct nsrq_now *now, u64 handle,
		 const u8 *id);

#endif /* NSRQ_WIRE_H */
