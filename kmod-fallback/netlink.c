// SPDX-License-Identifier: GPL-2.0-only
/* The generic netlink family of netlink/specs/netsysrq.yaml. */
#include <linux/slab.h>
#include <linux/sysrq.h>
#include <net/genetlink.h>
#include "module.h"

static struct genl_family family;

static const struct nla_policy policy[NETSYSRQ_A_MAX + 1] = {
	[NETSYSRQ_A_KEY_ID]	= NLA_POLICY_EXACT_LEN(NSRQ_KEY_ID_SIZE),
	[NETSYSRQ_A_REQUEST_KEY] = NLA_POLICY_EXACT_LEN(NSRQ_KEY_SIZE),
	[NETSYSRQ_A_REPLY_KEY]	= NLA_POLICY_EXACT_LEN(NSRQ_KEY_SIZE),
	[NETSYSRQ_A_ALLOWED]	= { .type = NLA_U64 },
	[NETSYSRQ_A_REQUEST_ID]	= NLA_POLICY_EXACT_LEN(NSRQ_ID_SIZE),
	[NETSYSRQ_A_CLOCK_OK]	= NLA_POLICY_MAX(NLA_U8, 1),
	[NETSYSRQ_A_CLOCK_OFFSET] = { .type = NLA_U64 },
	[NETSYSRQ_A_BOOT_ID]	= NLA_POLICY_EXACT_LEN(NSRQ_BOOT_ID_SIZE),
	[NETSYSRQ_A_DRY_RUN]	= NLA_POLICY_MAX(NLA_U8, 1),
	[NETSYSRQ_A_DEADLINE]	= NLA_POLICY_RANGE(NLA_U32, 10, 10000),
	[NETSYSRQ_A_SEQ]	= { .type = NLA_U32 },
};

/* Whatever the daemon says, it shows that it is alive. */
static struct nsrq_now enter(const struct genl_info *info)
	__acquires(&nsrq.lock)
{
	struct nsrq_now now;

	raw_spin_lock_irq(&nsrq.lock);
	now = nsrq_clocks();
	if (nsrq.daemon == info->snd_portid)
		nsrq.heard = now.boot;
	return now;
}

static void leave(void)
	__releases(&nsrq.lock)
{
	raw_spin_unlock_irq(&nsrq.lock);
}

/* The handle of the key that an attribute names. Under the lock. */
static u64 find(const struct genl_info *info)
{
	return nsrq_find(&nsrq.ledger,
			 nla_data(info->attrs[NETSYSRQ_A_KEY_ID]), NULL);
}

static bool has(const struct genl_info *info, int attr)
{
	return info->attrs[attr];
}

static int install(struct genl_info *info)
{
	u64 allowed = nla_get_u64(info->attrs[NETSYSRQ_A_ALLOWED]);
	struct nsrq_account *a;
	struct nsrq_key key;
	struct nsrq_now now;
	int err = 0;

	nla_memcpy(key.id, info->attrs[NETSYSRQ_A_KEY_ID], sizeof(key.id));
	nla_memcpy(key.request, info->attrs[NETSYSRQ_A_REQUEST_KEY],
		   sizeof(key.request));
	nla_memcpy(key.reply, info->attrs[NETSYSRQ_A_REPLY_KEY],
		   sizeof(key.reply));
	now = enter(info);
	a = nsrq_account(&nsrq.ledger, nsrq_find(&nsrq.ledger, key.id, NULL));
	if (a && crypto_memneq(&a->key, &key, sizeof(key)))
		err = -EEXIST;
	else if (!nsrq_install(&nsrq.ledger, &now, &key, allowed))
		err = -ENOSPC;
	leave();
	memzero_explicit(&key, sizeof(key));
	return err;
}

static int key_set(struct sk_buff *skb, struct genl_info *info)
{
	int err;

	if (!has(info, NETSYSRQ_A_KEY_ID) || !has(info, NETSYSRQ_A_ALLOWED) ||
	    !has(info, NETSYSRQ_A_REQUEST_KEY) ||
	    !has(info, NETSYSRQ_A_REPLY_KEY))
		err = -EINVAL;
	else if (!netlink_capable(skb, CAP_SYS_BOOT))
		err = -EPERM;
	else
		err = nsrq_runner_arm() ?: install(info);
	/* The message holds secrets, and its memory will serve others. */
	memzero_explicit(genlmsg_data(info->genlhdr),
			 genlmsg_len(info->genlhdr));
	return err;
}

static int key_del(struct sk_buff *skb, struct genl_info *info)
{
	struct nsrq_now now;
	u64 handle;

	if (!has(info, NETSYSRQ_A_KEY_ID))
		return -EINVAL;
	now = enter(info);
	handle = find(info);
	nsrq_cut_pending(handle, &now);
	nsrq_remove(&nsrq.ledger, &now, handle);
	leave();
	return handle ? 0 : -ENOENT;
}

static int set(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **a = info->attrs;

	enter(info);
	if (a[NETSYSRQ_A_BOOT_ID])
		nla_memcpy(nsrq.boot_id, a[NETSYSRQ_A_BOOT_ID],
			   sizeof(nsrq.boot_id));
	if (a[NETSYSRQ_A_DRY_RUN])
		nsrq.ledger.dry_run = nla_get_u8(a[NETSYSRQ_A_DRY_RUN]);
	if (a[NETSYSRQ_A_DEADLINE])
		nsrq.deadline = nla_get_u32(a[NETSYSRQ_A_DEADLINE]);
	leave();
	return 0;
}

static int set_clock(struct sk_buff *skb, struct genl_info *info)
{
	struct nsrq_now now;

	if (!has(info, NETSYSRQ_A_CLOCK_OK) ||
	    !has(info, NETSYSRQ_A_CLOCK_OFFSET))
		return -EINVAL;
	now = enter(info);
	nsrq_synchronised(&nsrq.ledger, &now,
			  nla_get_u8(info->attrs[NETSYSRQ_A_CLOCK_OK]),
			  nla_get_u64(info->attrs[NETSYSRQ_A_CLOCK_OFFSET]));
	leave();
	return 0;
}

static int enlist(struct sk_buff *skb, struct genl_info *info)
{
	struct nsrq_now now = enter(info);

	nsrq.daemon = info->snd_portid;
	nsrq.heard = now.boot;
	leave();
	return 0;
}

/* TAKE and VETO. */
static int judge(struct sk_buff *skb, struct genl_info *info)
{
	bool veto = info->genlhdr->cmd == NETSYSRQ_CMD_VETO;
	struct nsrq_job *job;
	struct nsrq_now now;
	int err = 0;

	if (!has(info, NETSYSRQ_A_KEY_ID) || !has(info, NETSYSRQ_A_REQUEST_ID))
		return -EINVAL;
	now = enter(info);
	job = nsrq_pending(find(info),
			   nla_data(info->attrs[NETSYSRQ_A_REQUEST_ID]));
	if (nsrq.daemon != info->snd_portid)
		err = -EPERM;
	else if (!job || now.boot >= job->due)
		err = -ETIME;
	else if (!veto && job->request.flags & NSRQ_DRILL)
		err = -EBUSY;
	else
		nsrq_settle_job(job, &now, veto ? NETSYSRQ_BY_VETO :
						  NETSYSRQ_BY_TAKE);
	leave();
	if (!err)
		nsrq_poke();
	return err;
}

static struct sk_buff *reply_to(struct genl_info *info, void **head)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);

	*head = skb ? genlmsg_put_reply(skb, info, &family, 0,
					info->genlhdr->cmd) : NULL;
	return skb;
}

static int finish(struct sk_buff *skb, void *head, struct genl_info *info, int err)
{
	if (err) {
		nlmsg_free(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return genlmsg_reply(skb, info);
}

static int put_counters(struct sk_buff *skb)
{
	struct nlattr *nest = nla_nest_start(skb, NETSYSRQ_A_COUNTERS);
	int i, cpu, err = nest ? 0 : -EMSGSIZE;
	u64 sum;

	for (i = 1; !err && i < NETSYSRQ_A_COUNT_PAD; i++) {
		sum = 0;
		for_each_possible_cpu(cpu)
			sum += per_cpu(nsrq_cpus, cpu).counts[i];
		err = nla_put_u64_64bit(skb, i, sum, NETSYSRQ_A_COUNT_PAD);
	}
	if (!err)
		nla_nest_end(skb, nest);
	return err;
}

struct brief {
	u8 id[NSRQ_KEY_ID_SIZE];
	u64 allowed, age;
};

static int put_key(struct sk_buff *skb, const struct brief *b)
{
	struct nlattr *nest = nla_nest_start(skb, NETSYSRQ_A_KEY);

	if (!nest ||
	    nla_put(skb, NETSYSRQ_A_ACCOUNT_ID, sizeof(b->id), b->id) ||
	    nla_put_u64_64bit(skb, NETSYSRQ_A_ACCOUNT_ALLOWED, b->allowed,
			      NETSYSRQ_A_ACCOUNT_PAD) ||
	    nla_put_u64_64bit(skb, NETSYSRQ_A_ACCOUNT_AGE, b->age,
			      NETSYSRQ_A_ACCOUNT_PAD))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int get_status(struct sk_buff *request, struct genl_info *info)
{
	u32 deadline, daemon, seq, read, jobs = 0, silent = NSRQ_NEVER;
	struct brief keys[NSRQ_KEYS];
	u8 boot_id[NSRQ_BOOT_ID_SIZE];
	const struct nsrq_account *a;
	bool dry_run, clock_ok;
	struct sk_buff *skb;
	struct nsrq_now now;
	int i, err, n = 0;
	void *head;

	skb = reply_to(info, &head);
	if (!skb)
		return -ENOMEM;
	now = enter(info);
	for (a = nsrq.ledger.accounts; a < nsrq.ledger.accounts + NSRQ_KEYS; a++) {
		if (!a->handle)
			continue;
		memcpy(keys[n].id, a->key.id, sizeof(keys[n].id));
		keys[n].allowed = a->allowed;
		keys[n++].age = now.boot - min(now.boot, a->horizon);
	}
	for (i = 0; i < NSRQ_JOBS; i++)
		jobs += nsrq.jobs[i].phase != NSRQ_JOB_FREE;
	memcpy(boot_id, nsrq.boot_id, sizeof(boot_id));
	dry_run = nsrq.ledger.dry_run;
	clock_ok = nsrq.ledger.clock_ok;
	deadline = nsrq.deadline;
	daemon = nsrq.daemon;
	seq = nsrq.event_next;
	read = nsrq.event_read;
	if (nsrq.heard)
		silent = min_t(u64, NSRQ_NEVER - 1,
			       div_u64(now.boot - min(now.boot, nsrq.heard),
				       NSEC_PER_SEC));
	leave();

	err = !head ||
	      nla_put(skb, NETSYSRQ_A_BOOT_ID, sizeof(boot_id), boot_id) ||
	      nla_put_u8(skb, NETSYSRQ_A_DRY_RUN, dry_run) ||
	      nla_put_u32(skb, NETSYSRQ_A_DEADLINE, deadline) ||
	      nla_put_u8(skb, NETSYSRQ_A_CLOCK_OK, clock_ok) ||
	      nla_put_u32(skb, NETSYSRQ_A_DAEMON, daemon) ||
	      nla_put_u32(skb, NETSYSRQ_A_SILENT, silent) ||
	      nla_put_u32(skb, NETSYSRQ_A_SYSRQ, sysrq_mask()) ||
	      nla_put_u32(skb, NETSYSRQ_A_JOBS, jobs) ||
	      nla_put_u32(skb, NETSYSRQ_A_SEQ, seq) ||
	      nla_put_u32(skb, NETSYSRQ_A_READ, read) || put_counters(skb);
	for (i = 0; !err && i < n; i++)
		err = put_key(skb, &keys[i]);
	return finish(skb, head, info, err);
}

/* More than one event takes, and the numbers behind the last. */
#define EVENT_ROOM	320

static int put_event(struct sk_buff *skb, u32 seq, const struct nsrq_event *e)
{
	struct nlattr *nest = nla_nest_start(skb, NETSYSRQ_A_EVENT);
	int size = e->peer.family == NFPROTO_IPV6 ? 16 : 4;

	if (!nest || nla_put_u32(skb, NETSYSRQ_A_EVENT_SEQ, seq) ||
	    nla_put_u64_64bit(skb, NETSYSRQ_A_EVENT_BOOT, e->boot,
			      NETSYSRQ_A_EVENT_PAD) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_KIND, e->kind) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_BY, e->by) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_REASON, e->reason) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_RESULT, e->answer.result) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_REPLY_FLAGS, e->answer.flags) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_MASK, e->answer.mask) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_STEP, e->step) ||
	    nla_put(skb, NETSYSRQ_A_EVENT_KEY_ID, sizeof(e->key_id), e->key_id) ||
	    nla_put(skb, NETSYSRQ_A_EVENT_REQUEST_ID, sizeof(e->id), e->id) ||
	    nla_put_string(skb, NETSYSRQ_A_EVENT_STEPS, e->steps) ||
	    nla_put_u8(skb, NETSYSRQ_A_EVENT_FLAGS, e->flags) ||
	    nla_put(skb, NETSYSRQ_A_EVENT_ADDR, size, &e->peer.addr) ||
	    nla_put_be16(skb, NETSYSRQ_A_EVENT_PORT, e->peer.port) ||
	    nla_put_u32(skb, NETSYSRQ_A_EVENT_IFINDEX, e->peer.ifindex) ||
	    nla_put_u32(skb, NETSYSRQ_A_EVENT_MS, e->ms))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int get_events(struct sk_buff *request, struct genl_info *info)
{
	u32 seq, first, next, lost = 0;
	struct nsrq_event e;
	struct sk_buff *skb;
	void *head;
	int err;

	if (!has(info, NETSYSRQ_A_SEQ))
		return -EINVAL;
	seq = nla_get_u32(info->attrs[NETSYSRQ_A_SEQ]);
	skb = reply_to(info, &head);
	if (!skb)
		return -ENOMEM;
	for (err = !head; !err; seq++) {
		enter(info);
		next = nsrq.event_next;
		first = next > NSRQ_EVENTS ? next - NSRQ_EVENTS : 1;
		if (seq < first) {
			lost += first - max(seq, 1U);
			seq = first;
		}
		if (seq < next)
			e = nsrq.events[seq % NSRQ_EVENTS];
		leave();
		if (seq >= next || skb_tailroom(skb) < EVENT_ROOM)
			break;
		err = put_event(skb, seq, &e);
	}
	err = err || nla_put_u32(skb, NETSYSRQ_A_SEQ, seq) ||
	      nla_put_u32(skb, NETSYSRQ_A_LOST, lost);
	/* The next daemon goes on where this one came to. */
	enter(info);
	if (!err && nsrq.daemon == info->snd_portid)
		nsrq.event_read = seq;
	leave();
	return finish(skb, head, info, err);
}

static const struct genl_ops ops[] = {
	{ .cmd = NETSYSRQ_CMD_KEY_SET, .doit = key_set, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_KEY_DEL, .doit = key_del, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_SET, .doit = set, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_CLOCK, .doit = set_clock, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_REGISTER, .doit = enlist, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_TAKE, .doit = judge, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_VETO, .doit = judge, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_STATUS, .doit = get_status, .flags = GENL_ADMIN_PERM },
	{ .cmd = NETSYSRQ_CMD_EVENTS, .doit = get_events, .flags = GENL_ADMIN_PERM },
};

static struct genl_family family __ro_after_init = {
	.name		= NETSYSRQ_FAMILY_NAME,
	.version	= NETSYSRQ_FAMILY_VERSION,
	.maxattr	= NETSYSRQ_A_MAX,
	.policy		= policy,
	.ops		= ops,
	.n_ops		= ARRAY_SIZE(ops),
	.parallel_ops	= true,
	.netnsok	= false,
	.module		= THIS_MODULE,
};

/* A daemon that has gone need not be waited for to fall silent. */
static int socket_closed(struct notifier_block *nb, unsigned long event, void *p)
{
	const struct netlink_notify *n = p;

	if (event != NETLINK_URELEASE || n->protocol != NETLINK_GENERIC ||
	    !net_eq(n->net, &init_net))
		return NOTIFY_DONE;
	raw_spin_lock_irq(&nsrq.lock);
	if (nsrq.daemon == n->portid)
		nsrq.daemon = 0;
	raw_spin_unlock_irq(&nsrq.lock);
	return NOTIFY_DONE;
}

static struct notifier_block sockets = { .notifier_call = socket_closed };

int nsrq_netlink_init(void)
{
	int err = netlink_register_notifier(&sockets);

	if (err)
		return err;
	err = genl_register_family(&family);
	if (err)
		netlink_unregister_notifier(&sockets);
	return err;
}

void nsrq_netlink_exit(void)
{
	genl_unregister_family(&family);
	netlink_unregister_notifier(&sockets);
}
