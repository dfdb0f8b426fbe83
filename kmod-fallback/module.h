/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of xt_NETSYSRQ share.
 *
 *   main.c	the target: opens packets in softirq, and keeps what matters
 *   runner.c	requests, from their arrival to the last step
 *   reply.c	sealed replies, and pieces of the log, sent from a tasklet
 *   log.c	what is in a piece
 *   netlink.c	keys, settings and verdicts from the daemon, events to it
 *   wire.c	packets and ledger, shared with userspace
 */
#ifndef NSRQ_MODULE_H
#define NSRQ_MODULE_H

#include <linux/interrupt.h>
#include <linux/netfilter.h>
#include <linux/spinlock.h>
#include "kcompat.h"
#include "netsysrq_uapi.h"
#include "wire.h"

#define NSRQ_JOBS	(NSRQ_KEYS * NSRQ_ACTIVE + 8)
#define NSRQ_LETTERS	64
#define NSRQ_EVENTS	256
#define NSRQ_MS		1000000ULL

#define NSRQ_DEADLINE	250	/* ms until the kernel runs it, by default */
#define NSRQ_AGAIN	20	/* ms after which a reply that could not be sent is tried again */
#define NSRQ_UNSAID	200	/* ms after which a run waits no more for its reply */
#define NSRQ_LAG	40	/* ms that the tick leaves to the thread */
#define NSRQ_ELSEWHERE	NSRQ_TICK_IDLE	/* ms more that a stuck CPU's tick leaves to other CPUs */
#define NSRQ_SKIP	1000	/* ms after which a step that only the thread may do is left out */
#define NSRQ_NEVER	0xffff	/* seconds of silence of a daemon that was never heard */
#define NSRQ_SILENCE	3000	/* ms after which a daemon that was not heard counts as silent */
#define NSRQ_TELL	60000	/* ms between two events that say that a key reads */
#define NSRQ_DUMP	10000	/* ms for which a dump that the thread is printing is waited for */

/* Who sent a packet, and the address of ours that it was sent to. */
struct nsrq_peer {
	u8 family;		/* NFPROTO_ */
	__be16 port, our_port;
	int ifindex;		/* of link-local addresses, else 0 */
	union nf_inet_addr addr, our_addr;
};

/* A reply that is owed. */
struct nsrq_letter {
	struct nsrq_peer peer;
	u64 handle;
	u8 id[NSRQ_ID_SIZE];
	u8 challenge[NSRQ_CHALLENGE_SIZE];
	struct nsrq_answer answer;
	u16 age;
	u8 pieces;		/* of the log that are the answer, 0: a reply is */
	u64 from;		/* the first record in them */
};

enum nsrq_phase {
	NSRQ_JOB_FREE,
	NSRQ_JOB_PENDING,	/* until TAKE, VETO or the deadline */
	NSRQ_JOB_SETTLED,	/* until its reply has left */
	NSRQ_JOB_RUN,		/* its turn comes in the order of settling */
};

/* A request that the ledger called fresh and acceptable. */
struct nsrq_job {
	u8 phase;		/* enum nsrq_phase */
	u8 next;		/* step */
	bool run;		/* steps follow the reply */
	bool dry;		/* but do nothing */
	bool warm;		/* the way back is being found out */
	bool sending;
	u32 watch;		/* what was done last is awaited, 0: is not */
	u64 serial;
	u64 order;
	u64 came;		/* boot(), when it was received */
	u64 due;		/* boot(), when the phase or step ends */
	u64 claimed;		/* boot(), of the last step */
	struct nsrq_request request;
	struct nsrq_letter letter;
};

struct nsrq_event {
	u64 boot;
	u8 kind;		/* enum netsysrq_event */
	u8 by;			/* enum netsysrq_by */
	u8 reason;		/* enum nsrq_reason */
	u8 step;
	u32 ms;			/* how long it took, see the spec */
	struct nsrq_answer answer;
	u8 flags;
	u8 key_id[NSRQ_KEY_ID_SIZE];
	u8 id[NSRQ_ID_SIZE];
	char steps[NSRQ_MAX_STEPS + 1];
	struct nsrq_peer peer;
};

/* All that is not per CPU. The lock is held for a few microseconds at most,
 * and never around crypto, randomness, netlink, wake-ups, SysRq or skbs.
 */
struct nsrq_host {
	raw_spinlock_t lock;
	struct nsrq_ledger ledger;
	struct nsrq_job jobs[NSRQ_JOBS];
	struct nsrq_letter letters[NSRQ_LETTERS];
	u32 letter_first, letter_count;
	struct nsrq_event events[NSRQ_EVENTS];
	u32 event_next;		/* number of the next event, from 1 */
	u32 event_read;		/* the next that a daemon has not read */
	u64 serial;		/* of the last job */
	u64 order;		/* of the last job that was settled */
	u32 watch;		/* the last thing that was awaited */
	u32 deadline;		/* ms */
	u32 daemon;		/* its netlink port, 0: none */
	u64 heard;		/* boot(), when the daemon spoke last */
	struct {		/* when an event said that a key reads the log */
		u64 handle, boot;
	} told[NSRQ_KEYS];
	u8 boot_id[NSRQ_BOOT_ID_SIZE];
};

extern struct nsrq_host nsrq;

/* Counters beyond the reasons, as in the spec. */
#define NSRQ_COUNT_OK		NETSYSRQ_A_COUNT_OK
#define NSRQ_COUNT_SENT		NETSYSRQ_A_COUNT_SENT
#define NSRQ_COUNT_LOST		NETSYSRQ_A_COUNT_LOST
#define NSRQ_COUNTS		(NETSYSRQ_A_COUNT_MAX + 1)

struct nsrq_cpu {
	bool ticking;
	struct hrtimer tick;
	/* The task that the tick has met since then, without a switch to another. */
	const struct task_struct *met;	/* compared, never followed */
	unsigned long switches;
	u64 since;			/* boot() */
	struct tasklet_struct post;
	u64 counts[NSRQ_COUNTS];
};

DECLARE_PER_CPU(struct nsrq_cpu, nsrq_cpus);

/* Counters up to there are those of the reasons. */
static_assert((int)NETSYSRQ_A_COUNT_OK == (int)NSRQ_REASONS);

static inline void nsrq_count(unsigned int what)
{
	this_cpu_inc(nsrq_cpus.counts[what]);
}

/* Both clocks, by a way that a CPU which died in timekeeping can't block. */
static inline struct nsrq_now nsrq_clocks(void)
{
	struct nsrq_now now = {
		.real = ktime_get_real_fast_ns(),
		.boot = ktime_get_boot_fast_ns(),
	};

	return now;
}

enum nsrq_verdict { NSRQ_DROP, NSRQ_JUNK, NSRQ_FRESH };

/* runner.c */
enum nsrq_verdict nsrq_receive(u64 handle, const struct nsrq_request *p,
			       const struct nsrq_peer *peer, u64 source);
struct nsrq_job *nsrq_pending(u64 handle, const u8 *id);
void nsrq_settle_job(struct nsrq_job *job, const struct nsrq_now *now, u8 by);
void nsrq_cut_pending(u64 handle, const struct nsrq_now *now);
void nsrq_begin_anew(void);
void nsrq_note(u8 kind, u8 by, u8 reason, const struct nsrq_job *job,
	       const struct nsrq_now *now);
void nsrq_sent(struct nsrq_job *job, u64 serial, bool sent);
void nsrq_poke(void);
int nsrq_runner_init(void);
int nsrq_runner_arm(void);
void nsrq_runner_exit(void);

/* A place in the log, between its ends. */
struct nsrq_log {
	struct nsrq_kmsg at;
	u64 end, oldest;
};

/* log.c */
void nsrq_log_open(struct nsrq_log *log, u64 from);
size_t nsrq_log_read(struct nsrq_log *log, struct nsrq_piece *piece, u8 *text);

/* reply.c */
void nsrq_post(struct tasklet_struct *t);

/* netlink.c */
int nsrq_netlink_init(void);
void nsrq_netlink_exit(void);

#endif /* NSRQ_MODULE_H */
