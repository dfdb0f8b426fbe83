// SPDX-License-Identifier: GPL-2.0-only
/*
 * A request's way from the ledger to its last step.
 *
 * Two kinds of hands do the work, and either may find the other gone: a thread,
 * which the scheduler may starve, and on each CPU a timer interrupt, the tick,
 * which nothing starves but disabled interrupts. Both call advance(). A
 * step is claimed under the lock, before it is taken and never given back, so
 * that each is taken at most once; the next is due when the claim is so old as
 * the step's pause, whether or not the one who claimed it ever comes back.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuhotplug.h>
#include <linux/kthread.h>
#include <linux/sysrq.h>
#include "module.h"

#define NEVER	U64_MAX

struct nsrq_host nsrq = {
	.lock = __RAW_SPIN_LOCK_UNLOCKED(nsrq.lock),
	.event_next = 1,
	.event_read = 1,
	.deadline = NSRQ_DEADLINE,
};

DEFINE_PER_CPU(struct nsrq_cpu, nsrq_cpus);

static struct task_struct *thread;
static bool poked;		/* the thread has not looked since */
static bool dumping;		/* the thread is at a step that prints much */
static DEFINE_MUTEX(arming);
static int armed;		/* the state of CPU hotplug, 0: not yet */

/* What s and u will say when their work is done. Under the lock. */
static struct {
	u32 number;		/* of the job's watch, 0: nothing is awaited */
	u8 key;
	u64 from;		/* the record from which on it may be said */
} awaited;

/* How far the log was read for that, by whoever holds the bit. */
static struct {
	unsigned long busy;
	u32 number;
	struct nsrq_kmsg at;
} reader = { .at = NSRQ_KMSG_INIT };

/* One line of the record. Under the lock. */
void nsrq_note(u8 kind, u8 by, u8 reason, const struct nsrq_job *job,
	       const struct nsrq_now *now)
{
	struct nsrq_event *e = &nsrq.events[nsrq.event_next++ % NSRQ_EVENTS];
	const struct nsrq_account *a;
	u64 since;
	int i;

	memset(e, 0, sizeof(*e));
	e->boot = now->boot;
	e->kind = kind;
	e->by = by;
	e->reason = reason;
	if (!job)
		return;
	e->step = job->next ? job->next - 1 : 0;
	since = job->came;
	if (kind == NETSYSRQ_EVENT_CONFIRMED || kind == NETSYSRQ_EVENT_UNCONFIRMED)
		since = job->claimed;
	e->ms = div_u64(now->boot - min(now->boot, since), NSRQ_MS);
	e->answer = job->letter.answer;
	e->peer = job->letter.peer;
	memcpy(e->id, job->request.id, sizeof(e->id));
	a = nsrq_account(&nsrq.ledger, job->letter.handle);
	if (a)
		memcpy(e->key_id, a->key.id, sizeof(e->key_id));
	/* Of a malformed request nothing but time and id may be used. */
	if (job->request.malformed)
		return;
	e->flags = job->request.flags;
	for (i = 0; i < job->request.count; i++)
		e->steps[i] = job->request.steps[i].key;
}

static void wake(void)
{
	WRITE_ONCE(poked, true);
	wake_up_process(thread);
}

/* Sends what replies are owed, at once if not in an interrupt. */
static void post(void)
{
	local_bh_disable();
	tasklet_schedule(&this_cpu_ptr(&nsrq_cpus)->post);
	local_bh_enable();
}

/* Something changed: look at what there is to do. Not in a hard interrupt. */
void nsrq_poke(void)
{
	post();
	wake();
}

static void cut(struct nsrq_job *job, const struct nsrq_now *now, u8 by)
{
	nsrq_note(NETSYSRQ_EVENT_CUT, by, 0, job, now);
	nsrq_finish(&nsrq.ledger, now, job->letter.handle, job->request.id);
	job->phase = NSRQ_JOB_FREE;
}

/* The job whose turn it is to run, NULL if nothing was accepted. */
static struct nsrq_job *running(void)
{
	struct nsrq_job *job, *first = NULL;

	for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase >= NSRQ_JOB_SETTLED && job->run &&
		    (!first || job->order < first->order))
			first = job;
	return first;
}

/* The flag now: what runs for another key ends, if this key may do all of it. */
static void cut_other(u64 handle, const struct nsrq_now *now)
{
	struct nsrq_account *a = nsrq_account(&nsrq.ledger, handle);
	struct nsrq_job *job = running();

	if (a && job && job->letter.handle != handle &&
	    !nsrq_missing(a->allowed, &job->request))
		cut(job, now, NETSYSRQ_BY_NOW);
}

static bool wants_now(const struct nsrq_request *p)
{
	return (p->flags & NSRQ_NOW) && !(p->flags & (NSRQ_REHEARSE | NSRQ_DRILL));
}

static void fill(struct nsrq_letter *letter, const struct nsrq_decision *d)
{
	letter->answer = d->answer;
	letter->age = d->age;
	if (!d->pieces)
		letter->pieces = 0;
	memcpy(letter->challenge, d->challenge, sizeof(letter->challenge));
}

/* Ends the pending state, by TAKE, VETO or DEADLINE. Under the lock. */
void nsrq_settle_job(struct nsrq_job *job, const struct nsrq_now *now, u8 by)
{
	enum nsrq_settlement how = by == NETSYSRQ_BY_TAKE ? NSRQ_SETTLE_TAKEN :
				   by == NETSYSRQ_BY_VETO ? NSRQ_SETTLE_VETOED :
							    NSRQ_SETTLE_DEADLINE;
	struct nsrq_decision d;

	if (!nsrq_settle(&nsrq.ledger, now, job->letter.handle, job->request.id,
			 how, &d)) {
		cut(job, now, NETSYSRQ_BY_REMOVED);
		return;
	}
	if (d.run && wants_now(&job->request))
		cut_other(job->letter.handle, now);
	fill(&job->letter, &d);
	job->phase = NSRQ_JOB_SETTLED;
	job->run = d.run;
	job->dry = d.answer.flags & NSRQ_DRY_RUN;
	job->order = ++nsrq.order;
	job->due = now->boot + NSRQ_UNSAID * NSRQ_MS;
	nsrq_note(NETSYSRQ_EVENT_SETTLED, by, d.reason, job, now);
}

/* The pending job of a key with this request id. Under the lock. */
struct nsrq_job *nsrq_pending(u64 handle, const u8 *id)
{
	struct nsrq_job *job;

	for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase == NSRQ_JOB_PENDING &&
		    job->letter.handle == handle &&
		    !memcmp(job->request.id, id, NSRQ_ID_SIZE))
			return job;
	return NULL;
}

/* A key is about to be removed: what it has pending will not run. */
void nsrq_cut_pending(u64 handle, const struct nsrq_now *now)
{
	struct nsrq_job *job;

	for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase == NSRQ_JOB_PENDING &&
		    job->letter.handle == handle)
			cut(job, now, NETSYSRQ_BY_REMOVED);
}

/* This machine is a copy of another: nothing that the other knew holds. */
void nsrq_begin_anew(void)
{
	static struct {
		struct nsrq_key key;
		u64 allowed;
	} kept[NSRQ_KEYS];	/* under the lock */
	struct nsrq_account *a;
	struct nsrq_job *job;
	struct nsrq_now now;
	int i, n = 0;

	raw_spin_lock_irq(&nsrq.lock);
	now = nsrq_clocks();
	for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase != NSRQ_JOB_FREE)
			cut(job, &now, NETSYSRQ_BY_REMOVED);
	nsrq.letter_count = 0;
	for (a = nsrq.ledger.accounts; a < nsrq.ledger.accounts + NSRQ_KEYS; a++) {
		if (!a->handle)
			continue;
		kept[n].key = a->key;
		kept[n++].allowed = a->allowed;
	}
	nsrq_begin(&nsrq.ledger, &now);
	for (i = 0; i < n; i++)
		nsrq_install(&nsrq.ledger, &now, &kept[i].key, kept[i].allowed);
	memzero_explicit(kept, sizeof(kept));
	nsrq_note(NETSYSRQ_EVENT_BEGIN, 0, 0, NULL, &now);
	raw_spin_unlock_irq(&nsrq.lock);
}

/* Whether it is to be told that this key reads the log: not for each piece. */
static bool news(u64 handle, const struct nsrq_now *now)
{
	int i = nsrq_account(&nsrq.ledger, handle) - nsrq.ledger.accounts;

	if (nsrq.told[i].handle == handle &&
	    now->boot - nsrq.told[i].boot < NSRQ_TELL * NSRQ_MS)
		return false;
	nsrq.told[i].handle = handle;
	nsrq.told[i].boot = now->boot;
	return true;
}

/* Keeps a request for which the ledger owes an answer, now or later. */
static void keep(u64 handle, const struct nsrq_request *p,
		 const struct nsrq_peer *peer, const struct nsrq_now *now,
		 struct nsrq_decision *d)
{
	struct nsrq_job *job, scratch = {};
	u32 last;

	for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase == NSRQ_JOB_FREE)
			break;
	if (!d->pending || job == nsrq.jobs + NSRQ_JOBS)
		job = &scratch;
	memset(job, 0, sizeof(*job));
	job->request = *p;
	job->came = now->boot;
	job->letter.handle = handle;
	job->letter.peer = *peer;
	job->letter.pieces = p->pieces;
	job->letter.from = p->from;
	memcpy(job->letter.id, p->id, sizeof(p->id));

	/* Only keys that were removed while they ran could use up all jobs. */
	if (d->pending && job == &scratch)
		nsrq_settle(&nsrq.ledger, now, handle, p->id,
			    NSRQ_SETTLE_VETOED, d);
	fill(&job->letter, d);
	if (d->pending) {
		job->phase = NSRQ_JOB_PENDING;
		job->serial = ++nsrq.serial;
		job->due = now->boot + nsrq.deadline * NSRQ_MS;
	} else if (nsrq.letter_count < NSRQ_LETTERS) {
		last = nsrq.letter_first + nsrq.letter_count++;
		nsrq.letters[last % NSRQ_LETTERS] = job->letter;
	} else {
		nsrq_count(NSRQ_COUNT_LOST);
	}
	if (d->reason == NSRQ_REASON_STALE || d->reason == NSRQ_REASON_MALFORMED)
		nsrq_note(NETSYSRQ_EVENT_STALE, 0, d->reason, job, now);
	else if (d->pieces && news(handle, now))
		nsrq_note(NETSYSRQ_EVENT_READ, 0, 0, job, now);
	else if (d->reason != NSRQ_REASON_REPEAT && !d->pieces &&
		 p->op != NSRQ_OP_STATUS)
		nsrq_note(NETSYSRQ_EVENT_REQUEST, 0, d->reason, job, now);
}

/*
 * Has this CPU's tick come in so many ms, or sooner if it is due sooner. Neither
 * the tick nor the end of the CPU can come in between.
 */
static void pull_tick(u32 ms)
{
	struct nsrq_cpu *cpu;
	unsigned long flags;
	u64 due;

	local_irq_save(flags);
	cpu = this_cpu_ptr(&nsrq_cpus);
	due = ktime_get_mono_fast_ns() + ms * NSRQ_MS;
	if (cpu->ticking && ktime_to_ns(hrtimer_get_expires(&cpu->tick)) > (s64)due)
		hrtimer_start(&cpu->tick, ms_to_ktime(ms),
			      HRTIMER_MODE_REL_PINNED_HARD);
	local_irq_restore(flags);
}

/* A request that was opened with the key of this handle. In softirq. */
enum nsrq_verdict nsrq_receive(u64 handle, const struct nsrq_request *p,
			       const struct nsrq_peer *peer, u64 source)
{
	bool random = rng_is_initialized();
	u8 draw[NSRQ_CHALLENGE_SIZE];
	struct nsrq_decision d;
	struct nsrq_job *job;
	struct nsrq_now now;
	unsigned long flags;
	u32 wait;

	if (random)
		get_random_bytes(draw, sizeof(draw));
	raw_spin_lock_irqsave(&nsrq.lock, flags);
	now = nsrq_clocks();
	wait = min_t(u32, nsrq.deadline, NSRQ_TICK_BUSY);
	nsrq.ledger.sysrq = sysrq_mask();
	nsrq_judge(&nsrq.ledger, &now, handle, p, source, random ? draw : NULL, &d);
	for (job = nsrq.jobs; d.cut && job < nsrq.jobs + NSRQ_JOBS; job++)
		if (job->phase != NSRQ_JOB_FREE && job->letter.handle == handle &&
		    (job->run || job->phase == NSRQ_JOB_PENDING))
			cut(job, &now, NETSYSRQ_BY_NOW);
	if (!d.pending && d.reason == NSRQ_REASON_OK && p->op == NSRQ_OP_RUN &&
	    wants_now(p))
		cut_other(handle, &now);	/* a barrier */
	if (d.pending || !d.silent)
		keep(handle, p, peer, &now, &d);
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);

	nsrq_count(d.reason ? d.reason : NSRQ_COUNT_OK);
	if (!d.pending && d.silent)
		return NSRQ_DROP;
	if (d.pending)
		pull_tick(wait);
	post();
	if (!d.pending)
		return NSRQ_DROP;
	wake();
	return NSRQ_FRESH;
}

/* The reply of a job has left, or will be tried again. In a tasklet. */
void nsrq_sent(struct nsrq_job *job, u64 serial, bool sent)
{
	struct nsrq_now now;
	unsigned long flags;

	raw_spin_lock_irqsave(&nsrq.lock, flags);
	now = nsrq_clocks();
	if (job->serial == serial && job->phase == NSRQ_JOB_SETTLED) {
		job->sending = sent;
		if (sent) {
			job->phase = job->run ? NSRQ_JOB_RUN : NSRQ_JOB_FREE;
			job->due = now.boot + NSRQ_GRACE;
		}
	}
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);
	if (sent)
		wake();
}

/* The steps that are short enough for an interrupt. */
static bool tick_may(u8 key)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return key == 'b';
	return strchr("bosueifjnkrc0123456789", key);
}

/*
 * Whether this CPU may never come to what is queued on it: it is not idle, and
 * runs one task without a break, such as one that has preemption off. In the tick.
 */
static bool is_stuck(const struct nsrq_now *now)
{
	u64 since = this_cpu_read(nsrq_cpus.since);

	return !is_idle_task(current) &&
	       now->boot - min(now->boot, since) >= NSRQ_LAG * NSRQ_MS;
}

/*
 * How long after a step was due the tick takes it, or leaves it out. What hands
 * its work to this CPU's queue is left to another CPU, if this one is stuck; by
 * then the tick of each CPU has looked, and if all are stuck it is taken anyhow.
 */
static u64 lag(u8 key, const struct nsrq_now *now)
{
	u64 ms = tick_may(key) ? NSRQ_LAG : NSRQ_SKIP;

	if (READ_ONCE(dumping))
		ms = NSRQ_DUMP;
	else if (strchr("sufjk", key) && is_stuck(now))
		ms += NSRQ_ELSEWHERE;
	return ms * NSRQ_MS;
}

/* Where the log stands now, before the step that will write to it. */
static void watch_from_here(u32 number, u8 key)
{
	struct nsrq_kmsg at = NSRQ_KMSG_INIT;
	unsigned long flags;

	kmsg_dump_rewind(&at);
	raw_spin_lock_irqsave(&nsrq.lock, flags);
	awaited.number = number;
	awaited.key = key;
	awaited.from = at.next_seq;
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);
}

/* The number of the watch whose text the kernel has logged meanwhile, or 0. */
static u32 watch_seen(int lines)
{
	const char *text;
	unsigned long flags;
	char line[128];
	u32 seen = 0;
	size_t len;

	if (!READ_ONCE(awaited.number))
		return 0;
	preempt_disable();	/* or ticks would find it taken for as long */
	if (test_and_set_bit_lock(0, &reader.busy)) {
		preempt_enable();
		return 0;
	}
	raw_spin_lock_irqsave(&nsrq.lock, flags);
	if (reader.number != awaited.number)
		reader.at.cur_seq = awaited.from;
	reader.number = awaited.number;
	text = awaited.key == 's' ? "Emergency Sync complete" :
				    "Emergency Remount complete";
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);
	while (reader.number && !seen && lines-- &&
	       kmsg_dump_get_line(&reader.at, true, line, sizeof(line), &len)) {
		/* "<6>[...] text": one digit is facility 0, the kernel. */
		if (len > 3 && line[0] == '<' && line[2] == '>' &&
		    strnstr(line, text, len))
			seen = reader.number;
	}
	clear_bit_unlock(0, &reader.busy);
	preempt_enable();
	return seen;
}

struct claim {
	u8 key;			/* 0: nothing to do but to look again */
	u32 watch;
};

/* Claims the next step if it is due and this hand may take it. */
static bool claim_step(u8 by, const struct nsrq_now *now, struct claim *c,
		       u64 *next)
{
	struct nsrq_job *job = running();
	u32 poll = by == NETSYSRQ_BY_TICK ? 50 : 10;
	const struct nsrq_step *step;
	u64 due;

	if (!job || job->phase != NSRQ_JOB_RUN)
		return false;
	step = &job->request.steps[job->next];
	due = job->due;
	if (by == NETSYSRQ_BY_TICK && job->next < job->request.count)
		due += lag(step->key, now);
	if (now->boot < due) {
		if (job->watch)
			due = min(due, now->boot + poll * NSRQ_MS);
		*next = min(*next, due);
		return false;
	}

	memset(c, 0, sizeof(*c));
	if (job->watch)
		nsrq_note(NETSYSRQ_EVENT_UNCONFIRMED, 0, 0, job, now);
	job->watch = 0;
	awaited.number = 0;
	if (job->next == job->request.count) {
		nsrq_note(NETSYSRQ_EVENT_DONE, 0, 0, job, now);
		nsrq_finish(&nsrq.ledger, now, job->letter.handle,
			    job->request.id);
		job->phase = NSRQ_JOB_FREE;
		return true;
	}
	job->next++;
	job->claimed = now->boot;
	job->due = now->boot + nsrq_wait_ms(step) * NSRQ_MS;
	if (by == NETSYSRQ_BY_TICK && !tick_may(step->key)) {
		nsrq_note(NETSYSRQ_EVENT_SKIPPED, by, 0, job, now);
		return true;
	}
	nsrq_note(NETSYSRQ_EVENT_STEP, by, 0, job, now);
	if (job->dry) {
		if (step->key == 's' || step->key == 'u')
			job->due = now->boot;
		return true;
	}
	c->key = step->key;
	if (step->key == 's' || step->key == 'u') {
		job->watch = ++nsrq.watch ?: ++nsrq.watch;
		c->watch = job->watch;
	}
	return true;
}

/* Tells the kernel's log what matters on a machine that nobody can log in to. */
static void tell(const struct nsrq_event *e)
{
	static const char *const what[] = {
		[NETSYSRQ_EVENT_SETTLED] = "no word from the daemon: run by the kernel",
		[NETSYSRQ_EVENT_UNSAID] = "run, though the answer could not be sent",
		[NETSYSRQ_EVENT_STEP] = "by the thread",
		[NETSYSRQ_EVENT_SKIPPED] = "left out, the thread is stuck",
		[NETSYSRQ_EVENT_CONFIRMED] = "confirmed",
		[NETSYSRQ_EVENT_UNCONFIRMED] = "not confirmed",
	};
	const char *text = e->kind < ARRAY_SIZE(what) ? what[e->kind] : NULL;

	if (!text || e->answer.result != NSRQ_ACCEPTED || e->answer.mask ||
	    (e->kind == NETSYSRQ_EVENT_SETTLED && e->by != NETSYSRQ_BY_DEADLINE))
		return;
	if (e->kind == NETSYSRQ_EVENT_STEP && e->by == NETSYSRQ_BY_TICK)
		text = "by the tick";
	if (e->kind <= NETSYSRQ_EVENT_UNSAID)
		pr_notice_ratelimited("key %8phN: %s: %s, %u ms after the request\n",
				      e->key_id, e->steps, text, e->ms);
	else if (e->kind <= NETSYSRQ_EVENT_SKIPPED)
		pr_notice_ratelimited("key %8phN: step %u of %s, %s, %u ms after the request\n",
				      e->key_id, e->step + 1, e->steps, text, e->ms);
	else
		pr_notice_ratelimited("key %8phN: step %u of %s: %s after %u ms\n",
				      e->key_id, e->step + 1, e->steps, text, e->ms);
}

/* Does all that is due, and returns when (boot()) something will be. */
static u64 advance(u8 by)
{
	struct nsrq_event told[4];
	struct nsrq_job *job;
	struct nsrq_now now;
	unsigned long flags;
	struct claim c;
	bool more, owed;
	u32 seen, first;
	u64 next;
	int i, n;

	do {
		seen = watch_seen(by == NETSYSRQ_BY_TICK ? 50 : 200);
		owed = false;
		next = NEVER;
		raw_spin_lock_irqsave(&nsrq.lock, flags);
		now = nsrq_clocks();
		first = nsrq.event_next;
		if (seen == awaited.number)
			awaited.number = 0;
		for (job = nsrq.jobs; job < nsrq.jobs + NSRQ_JOBS; job++) {
			if (seen && job->watch == seen &&
			    job->phase == NSRQ_JOB_RUN) {
				nsrq_note(NETSYSRQ_EVENT_CONFIRMED, by, 0, job, &now);
				job->watch = 0;
				job->due = now.boot;
			}
			if (job->phase == NSRQ_JOB_PENDING && now.boot >= job->due)
				nsrq_settle_job(job, &now, NETSYSRQ_BY_DEADLINE);
			if (job->phase == NSRQ_JOB_SETTLED && now.boot >= job->due) {
				nsrq_note(NETSYSRQ_EVENT_UNSAID, by, 0, job, &now);
				nsrq_count(NSRQ_COUNT_LOST);
				job->phase = job->run ? NSRQ_JOB_RUN : NSRQ_JOB_FREE;
			}
			if (job->phase == NSRQ_JOB_SETTLED ||
			    job->phase == NSRQ_JOB_PENDING)
				next = min(next, job->due);
			if (job->phase == NSRQ_JOB_SETTLED) {
				owed |= !job->sending;
				next = min(next, now.boot + NSRQ_AGAIN * NSRQ_MS);
			}
		}
		more = claim_step(by, &now, &c, &next);
		for (n = 0; n < ARRAY_SIZE(told) && first != nsrq.event_next; n++)
			told[n] = nsrq.events[first++ % NSRQ_EVENTS];
		raw_spin_unlock_irqrestore(&nsrq.lock, flags);

		if (owed && by == NETSYSRQ_BY_TICK)
			tasklet_schedule(&this_cpu_ptr(&nsrq_cpus)->post);
		else if (owed)
			post();
		for (i = 0; i < n; i++)
			tell(&told[i]);
		if (!more || !c.key)
			continue;
		if (c.watch)
			watch_from_here(c.watch, c.key);
		if (by == NETSYSRQ_BY_THREAD)
			WRITE_ONCE(dumping, !tick_may(c.key));
		handle_sysrq(c.key);
		if (by == NETSYSRQ_BY_THREAD)
			WRITE_ONCE(dumping, false);
	} while (more);
	return next;
}

/* Sees whether this CPU has switched tasks. */
static void meet(struct nsrq_cpu *cpu)
{
	unsigned long switches = current->nvcsw + current->nivcsw;

	if (cpu->met == current && cpu->switches == switches)
		return;
	cpu->met = current;
	cpu->switches = switches;
	cpu->since = ktime_get_boot_fast_ns();
}

static enum hrtimer_restart tick(struct hrtimer *timer)
{
	struct nsrq_cpu *cpu = container_of(timer, struct nsrq_cpu, tick);
	u64 wait = is_idle_task(current) ? NSRQ_TICK_IDLE : NSRQ_TICK_BUSY;
	u64 next, boot;

	meet(cpu);
	next = advance(NETSYSRQ_BY_TICK);
	boot = ktime_get_boot_fast_ns();

	/* The kick: a tasklet makes the CPU look at every other softirq too. */
	if (local_softirq_pending())
		tasklet_schedule(&cpu->post);
	wait *= NSRQ_MS;
	if (next < boot + wait)
		wait = max_t(s64, next - boot, NSRQ_MS);
	hrtimer_forward_now(timer, ns_to_ktime(wait));
	return HRTIMER_RESTART;
}

static int runner(void *unused)
{
	ktime_t wait;
	u64 next, boot;

	nsrq_real_time(current);
	while (!kthread_should_stop()) {
		WRITE_ONCE(poked, false);
		smp_mb();	/* pairs with that of wake_up_process() */
		next = advance(NETSYSRQ_BY_THREAD);
		boot = ktime_get_boot_fast_ns();
		wait = ns_to_ktime(next > boot ? next - boot : 0);
		set_current_state(TASK_IDLE);
		if (READ_ONCE(poked) || kthread_should_stop())
			__set_current_state(TASK_RUNNING);
		else if (next == NEVER)
			schedule();
		else
			schedule_hrtimeout(&wait, HRTIMER_MODE_REL);
	}
	return 0;
}

static int cpu_up(unsigned int number)
{
	struct nsrq_cpu *cpu = this_cpu_ptr(&nsrq_cpus);

	cpu->ticking = true;
	hrtimer_start(&cpu->tick, ms_to_ktime(NSRQ_TICK_BUSY),
		      HRTIMER_MODE_REL_PINNED_HARD);
	return 0;
}

static int cpu_down(unsigned int number)
{
	struct nsrq_cpu *cpu = this_cpu_ptr(&nsrq_cpus);

	cpu->ticking = false;
	hrtimer_cancel(&cpu->tick);
	return 0;
}

/* Starts the ticks, once: with the first key. */
int nsrq_runner_arm(void)
{
	int state = 0;

	mutex_lock(&arming);
	if (!armed)
		state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "netsysrq:tick",
					  cpu_up, cpu_down);
	if (state > 0)
		armed = state;
	mutex_unlock(&arming);
	return min(state, 0);
}

int nsrq_runner_init(void)
{
	struct nsrq_now now = nsrq_clocks();
	struct nsrq_cpu *cpu;
	int i;

	nsrq.ledger.executor = NSRQ_KERNEL;
	nsrq_begin(&nsrq.ledger, &now);
	nsrq_note(NETSYSRQ_EVENT_BEGIN, 0, 0, NULL, &now);
	for_each_possible_cpu(i) {
		cpu = per_cpu_ptr(&nsrq_cpus, i);
		tasklet_setup(&cpu->post, nsrq_post);
		hrtimer_setup(&cpu->tick, tick, CLOCK_MONOTONIC,
			      HRTIMER_MODE_REL_PINNED_HARD);
	}
	thread = kthread_create(runner, NULL, "netsysrq");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	get_task_struct(thread);	/* ticks may wake it when it has ended */
	wake_up_process(thread);
	return 0;
}

/* No packets and no commands come any more. What is left does not run. */
void nsrq_runner_exit(void)
{
	int i;

	kthread_stop(thread);
	if (armed)
		cpuhp_remove_state(armed);
	for_each_possible_cpu(i)
		tasklet_kill(&per_cpu_ptr(&nsrq_cpus, i)->post);
	put_task_struct(thread);
	memzero_explicit(&nsrq.ledger, sizeof(nsrq.ledger));
}
