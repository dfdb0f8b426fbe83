// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VM bench's helper: takes CPUs away, and says how late they are.
 *
 *	echo preempt 1   > /sys/module/hang/parameters/spin
 *	echo preempt all > /sys/module/hang/parameters/spin
 *	echo irqs 0      > /sys/module/hang/parameters/spin
 *	cat /sys/module/hang/parameters/late
 *
 * A spinning CPU never comes back, and the module can't be unloaded: the
 * machine ends with them.
 *
 * On every CPU a HARD hrtimer ticks and an ordinary thread sleeps and wakes.
 * Whichever CPU still ticks looks after the others too, and says in the kernel
 * log which of them have been silent for nearly a second. That is how the bench knows
 * that a CPU is gone. "late" is one line a CPU: its number and the most that
 * tick and thread were late since the last look, in microseconds.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/version.h>

#define TICK_NS		(50 * NSEC_PER_MSEC)
#define SLEEP_NS	(20 * NSEC_PER_MSEC)
/* From 6.12 on, real-time hogs have to leave others 50 ms of each second. */
#define SILENT_NS	(800 * NSEC_PER_MSEC)
#define TELL_NS		(5ULL * NSEC_PER_SEC)
/* Between the order to spin and its execution: the answer has to get out. */
#define NOTICE_NS	(300 * NSEC_PER_MSEC)

struct watched {
	struct hrtimer tick;
	u64 ticked, woke;		/* when last, by ktime_get_ns() */
	u64 tick_late, thread_late;	/* at most, ns */
	u64 told;			/* when the log last heard of it */
};

static DEFINE_PER_CPU(struct watched, watched);

static void note_late(u64 *most, u64 late)
{
	if ((s64)late > 0 && late > READ_ONCE(*most))
		WRITE_ONCE(*most, late);
}

/* Another CPU may have got on since @now was read. */
static u64 silence(u64 now, const u64 *last)
{
	s64 d = now - READ_ONCE(*last);

	return d > 0 ? d : 0;
}

static void look_after(int cpu, u64 now)
{
	struct watched *w = per_cpu_ptr(&watched, cpu);
	u64 tick = silence(now, &w->ticked), thread = silence(now, &w->woke);
	u64 told = READ_ONCE(w->told);

	if (tick < SILENT_NS && thread < SILENT_NS)
		return;
	if (told && now - told < TELL_NS)
		return;
	if (cmpxchg(&w->told, told, now) == told)
		pr_warn("cpu %d: tick silent for %llu ms, thread silent for %llu ms\n",
			cpu, tick / NSEC_PER_MSEC, thread / NSEC_PER_MSEC);
}

static enum hrtimer_restart tick(struct hrtimer *t)
{
	struct watched *w = container_of(t, struct watched, tick);
	u64 now = ktime_get_ns();
	int cpu;

	note_late(&w->tick_late, now - ktime_to_ns(hrtimer_get_expires(t)));
	WRITE_ONCE(w->ticked, now);
	for_each_online_cpu(cpu)
		look_after(cpu, now);
	hrtimer_forward_now(t, ns_to_ktime(TICK_NS));
	return HRTIMER_RESTART;
}

static void start_tick(void *unused)
{
	struct watched *w = this_cpu_ptr(&watched);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	hrtimer_init(&w->tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	w->tick.function = tick;
#else
	hrtimer_setup(&w->tick, tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
#endif
	hrtimer_start(&w->tick, ns_to_ktime(TICK_NS), HRTIMER_MODE_REL_PINNED_HARD);
}

/* Idle, so that "w" and the load average leave the sleeper out. */
static void sleep_idly(u64 ns)
{
	ktime_t t = ns_to_ktime(ns);

	set_current_state(TASK_IDLE);
	schedule_hrtimeout(&t, HRTIMER_MODE_REL);
}

static int wake_often(void *data)
{
	struct watched *w = data;
	u64 due;

	for (;;) {
		due = ktime_get_ns() + SLEEP_NS;
		sleep_idly(SLEEP_NS);
		WRITE_ONCE(w->woke, ktime_get_ns());
		note_late(&w->thread_late, w->woke - due);
	}
	return 0;
}

static u64 spin_at;

static void wait_for_spin(void)
{
	while (ktime_get_ns() < READ_ONCE(spin_at))
		sleep_idly(NSEC_PER_MSEC);
}

static int spin_without_preemption(void *unused)
{
	wait_for_spin();
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static int spin_without_interrupts(void *unused)
{
	wait_for_spin();
	local_irq_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static int start_on(int cpu, int (*fn)(void *data), void *data)
{
	struct task_struct *t = kthread_create(fn, data, "hang/%d", cpu);

	if (IS_ERR(t))
		return PTR_ERR(t);
	kthread_bind(t, cpu);
	wake_up_process(t);
	return 0;
}

static int set_spin(const char *value, const struct kernel_param *unused)
{
	int (*fn)(void *data);
	char how[8], where[8];
	int cpu, only, err = 0;

	if (sscanf(value, "%7s %7s", how, where) != 2)
		return -EINVAL;
	if (!strcmp(how, "preempt"))
		fn = spin_without_preemption;
	else if (!strcmp(how, "irqs"))
		fn = spin_without_interrupts;
	else
		return -EINVAL;
	if (!strcmp(where, "all"))
		only = -1;
	else if (kstrtoint(where, 10, &only) || only < 0 || only >= nr_cpu_ids || !cpu_online(only))
		return -EINVAL;

	WRITE_ONCE(spin_at, ktime_get_ns() + NOTICE_NS);
	for_each_online_cpu(cpu)
		if (!err && (only < 0 || only == cpu))
			err = start_on(cpu, fn, NULL);
	return err;
}

static const struct kernel_param_ops spin_ops = { .set = set_spin };
module_param_cb(spin, &spin_ops, NULL, 0200);
MODULE_PARM_DESC(spin, "preempt|irqs CPU|all");

static int get_late(char *buf, const struct kernel_param *unused)
{
	int cpu, n = 0;

	for_each_online_cpu(cpu) {
		struct watched *w = per_cpu_ptr(&watched, cpu);

		n += scnprintf(buf + n, PAGE_SIZE - n, "%d %llu %llu\n", cpu,
			       xchg(&w->tick_late, 0) / NSEC_PER_USEC,
			       xchg(&w->thread_late, 0) / NSEC_PER_USEC);
	}
	return n;
}

static const struct kernel_param_ops late_ops = { .get = get_late };
module_param_cb(late, &late_ops, NULL, 0400);
MODULE_PARM_DESC(late, "CPU, lateness of its tick and of its thread in us");

static int __init hang_init(void)
{
	int cpu, err;

	/* A thread that was started can't be ended, so this fails early only. */
	for_each_online_cpu(cpu) {
		struct watched *w = per_cpu_ptr(&watched, cpu);

		w->ticked = ktime_get_ns();
		w->woke = w->ticked;
		err = start_on(cpu, wake_often, w);
		if (err && !cpu)
			return err;
	}
	on_each_cpu(start_tick, NULL, 1);
	return 0;
}
module_init(hang_init);

MODULE_DESCRIPTION("Takes CPUs away, for tests in virtual machines");
MODULE_LICENSE("GPL");
