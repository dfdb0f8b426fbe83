/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that the module is built for (5.10 to 7.2),
 * and what it cannot do without. compat.h does the same for wire.c.
 */
#ifndef NSRQ_KCOMPAT_H
#define NSRQ_KCOMPAT_H

#include <linux/hrtimer.h>
#include <linux/kmsg_dump.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/version.h>
#include <uapi/linux/sched/types.h>

#if !IS_ENABLED(CONFIG_MAGIC_SYSRQ)
#error "xt_NETSYSRQ needs a kernel with CONFIG_MAGIC_SYSRQ"
#elif !IS_ENABLED(CONFIG_CRYPTO_LIB_CHACHA20POLY1305)
#error "xt_NETSYSRQ needs a kernel with CONFIG_CRYPTO_LIB_CHACHA20POLY1305"
#elif !IS_ENABLED(CONFIG_IPV6) || !IS_ENABLED(CONFIG_NETFILTER_XTABLES)
#error "xt_NETSYSRQ needs a kernel with CONFIG_IPV6 and CONFIG_NETFILTER_XTABLES"
#elif !IS_ENABLED(CONFIG_PRINTK)
#error "xt_NETSYSRQ needs a kernel with CONFIG_PRINTK"
#endif

/*
 * How often a CPU looks after itself, in ms; an idle one is not woken more often
 * than NSRQ_TICK_IDLE. Before 6.5 a starved ksoftirqd stops every softirq of its
 * CPU unless the tick wakes them again.
 */
#define NSRQ_TICK_IDLE	400
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#define NSRQ_TICK_BUSY	100
#else
#define NSRQ_TICK_BUSY	NSRQ_TICK_IDLE
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void
hrtimer_setup(struct hrtimer *timer,
	      enum hrtimer_restart (*function)(struct hrtimer *),
	      clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = function;
}
#endif

/*
 * Real-time tasks that never sleep leave no room for SCHED_FIFO, at whatever
 * priority, but SCHED_DEADLINE goes before them. Admission may refuse it.
 */
static inline void nsrq_real_time(struct task_struct *task)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
	const struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = SCHED_DEADLINE,
		.sched_flags = SCHED_FLAG_RECLAIM,
		.sched_runtime = 20 * NSEC_PER_MSEC,
		.sched_deadline = 100 * NSEC_PER_MSEC,
		.sched_period = 100 * NSEC_PER_MSEC,
	};

	if (!sched_setattr_nocheck(task, &attr))
		return;
#endif
	sched_set_fifo(task);
}

/* A place in the kernel's log. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 13, 0)
#define nsrq_kmsg		kmsg_dumper
#define NSRQ_KMSG_INIT		{ .active = true }
#else
#define nsrq_kmsg		kmsg_dump_iter
#define NSRQ_KMSG_INIT		{}
#endif

/* A machine that wakes as a copy of another, from a snapshot. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 18, 0)
static inline int register_random_vmfork_notifier(struct notifier_block *nb)
{
	return 0;
}

static inline int unregister_random_vmfork_notifier(struct notifier_block *nb)
{
	return 0;
}
#endif

#endif /* NSRQ_KCOMPAT_H */
