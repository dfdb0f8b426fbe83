// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sealed replies and pieces of the log. They are sent from a tasklet, never by
 * the target: a packet that is sent there walks the OUTPUT rules on the very
 * stack on which the PREROUTING rules still stand.
 */
#include <linux/sched/loadavg.h>
#include <linux/sysrq.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ip6_route.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/route.h>
#include <net/udp.h>
#include "module.h"

/* What the tasklet has to do next: send this, or find the way for it. */
struct errand {
	struct nsrq_letter letter;
	struct nsrq_key key;
	struct nsrq_job *job;	/* NULL: a letter of its own */
	u64 serial;
	u64 heard;		/* as in nsrq, like the next two */
	u8 boot_id[NSRQ_BOOT_ID_SIZE];
	bool daemon, warm;
};

/*
 * Each job has one turn, *turn counts them, and then letters have theirs: what
 * cannot be sent keeps nothing else waiting. What comes up behind *turn comes
 * with a call of the tasklet of its own.
 */
static bool next_errand(struct errand *e, int *turn)
{
	struct nsrq_account *a;
	struct nsrq_job *job;
	unsigned long flags;
	bool found = false;

	memset(e, 0, sizeof(*e));
	raw_spin_lock_irqsave(&nsrq.lock, flags);
	while (!found && *turn < NSRQ_JOBS) {
		job = &nsrq.jobs[(*turn)++];
		e->warm = job->phase == NSRQ_JOB_PENDING && !job->warm;
		found = e->warm ||
			(job->phase == NSRQ_JOB_SETTLED && !job->sending);
		if (!found)
			continue;
		job->warm = true;
		job->sending = !e->warm;
		e->job = job;
		e->serial = job->serial;
		e->letter = job->letter;
	}
	if (!found && nsrq.letter_count) {
		found = true;
		e->letter = nsrq.letters[nsrq.letter_first++ % NSRQ_LETTERS];
		nsrq.letter_count--;
	}
	a = found ? nsrq_account(&nsrq.ledger, e->letter.handle) : NULL;
	if (a)
		e->key = a->key;
	else
		e->letter.handle = 0;	/* removed meanwhile */
	e->heard = nsrq.heard;
	e->daemon = nsrq.daemon;
	memcpy(e->boot_id, nsrq.boot_id, sizeof(e->boot_id));
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);
	return found;
}

/* The way to a peer, from the address that it asked. */
static struct dst_entry *route(const struct nsrq_peer *peer)
{
	struct flowi4 fl4 = {
		.flowi4_oif = peer->ifindex,
		.flowi4_proto = IPPROTO_UDP,
		.daddr = peer->addr.ip,
		.saddr = peer->our_addr.ip,
		.fl4_dport = peer->port,
		.fl4_sport = peer->our_port,
	};
	struct flowi6 fl6 = {
		.flowi6_oif = peer->ifindex,
		.flowi6_proto = IPPROTO_UDP,
		.daddr = peer->addr.in6,
		.saddr = peer->our_addr.in6,
		.fl6_dport = peer->port,
		.fl6_sport = peer->our_port,
	};
	struct rtable *rt;

	if (peer->family == NFPROTO_IPV6)
		return ip6_dst_lookup_flow(&init_net, NULL, &fl6, NULL);
	rt = ip_route_output_key(&init_net, &fl4);
	return IS_ERR(rt) ? ERR_CAST(rt) : &rt->dst;
}

/* Asks for the neighbour's address now, so that the deadline hides the wait. */
static void warm_up(const struct nsrq_peer *peer)
{
	struct dst_entry *dst = route(peer);
	struct neighbour *n;

	if (IS_ERR(dst))
		return;
	n = dst_neigh_lookup(dst, &peer->addr);
	if (n) {
		neigh_event_send(n, NULL);
		neigh_release(n);
	}
	dst_release(dst);
}

static void seal(u8 *packet, const struct errand *e)
{
	struct nsrq_now now = nsrq_clocks();
	struct nsrq_reply r = {
		.time = now.real,
		.answer = e->letter.answer,
		.executor = e->letter.answer.by,
		.uptime = div_u64(now.boot, NSEC_PER_SEC),
		.age = e->letter.age,
		.load = ((u64)avenrun[0] * 100) >> FSHIFT,
		.free = max(si_mem_available(), 0L) >> (20 - PAGE_SHIFT),
		.sysrq = min(sysrq_mask(), 0xfffe),
		.silent = NSRQ_NEVER,
	};
	u8 nonce[NSRQ_NONCE_SIZE];

	if (e->heard)
		r.silent = min(div_u64(now.boot - min(now.boot, e->heard),
				       NSEC_PER_SEC),
			       NSRQ_NEVER - 1ULL);
	if (!r.executor)
		r.executor = e->daemon && now.boot < e->heard + NSRQ_SILENCE * NSRQ_MS ?
			     NSRQ_DAEMON : NSRQ_KERNEL;
	r.answer.flags |= NSRQ_ARMED;
	memcpy(r.id, e->letter.id, sizeof(r.id));
	memcpy(r.challenge, e->letter.challenge, sizeof(r.challenge));
	memcpy(r.boot_id, e->boot_id, sizeof(r.boot_id));
	get_random_bytes(nonce, sizeof(nonce));
	nsrq_seal(packet, &e->key, nonce, &r);
}

/* Puts the headers before the UDP payload that skb holds, and sends it. */
static int send4(struct sk_buff *skb, const struct nsrq_peer *peer, int len)
{
	struct udphdr *uh = udp_hdr(skb);
	struct iphdr *iph;

	skb_push(skb, sizeof(*iph));
	skb_reset_network_header(skb);
	iph = ip_hdr(skb);
	memset(iph, 0, sizeof(*iph));
	iph->version = 4;
	iph->ihl = sizeof(*iph) / 4;
	iph->frag_off = htons(IP_DF);
	iph->ttl = ip4_dst_hoplimit(skb_dst(skb));
	iph->protocol = IPPROTO_UDP;
	iph->saddr = peer->our_addr.ip;
	iph->daddr = peer->addr.ip;
	uh->check = udp_v4_check(len, iph->saddr, iph->daddr,
				 csum_partial(uh, len, 0)) ?: CSUM_MANGLED_0;
	skb->protocol = htons(ETH_P_IP);
	return ip_local_out(&init_net, NULL, skb);
}

static int send6(struct sk_buff *skb, const struct nsrq_peer *peer, int len)
{
	struct udphdr *uh = udp_hdr(skb);
	struct ipv6hdr *ip6h;

	skb_push(skb, sizeof(*ip6h));
	skb_reset_network_header(skb);
	ip6h = ipv6_hdr(skb);
	ip6_flow_hdr(ip6h, 0, 0);
	ip6h->payload_len = htons(len);
	ip6h->nexthdr = IPPROTO_UDP;
	ip6h->hop_limit = ip6_dst_hoplimit(skb_dst(skb));
	ip6h->saddr = peer->our_addr.in6;
	ip6h->daddr = peer->addr.in6;
	uh->check = udp_v6_check(len, &ip6h->saddr, &ip6h->daddr,
				 csum_partial(uh, len, 0)) ?: CSUM_MANGLED_0;
	skb->protocol = htons(ETH_P_IPV6);
	return ip6_local_out(&init_net, NULL, skb);
}

/* The beginning of a packet to a peer, with room for a payload of size bytes. */
static struct sk_buff *begin(const struct nsrq_peer *peer, int size)
{
	int room = sizeof(struct ipv6hdr) + sizeof(struct udphdr);
	struct dst_entry *dst = route(peer);
	struct sk_buff *skb;

	if (IS_ERR(dst))
		return NULL;
	room += LL_RESERVED_SPACE(dst->dev);
	skb = alloc_skb(room + size, GFP_ATOMIC);
	if (!skb) {
		dst_release(dst);
		return NULL;
	}
	skb_reserve(skb, room);
	skb_dst_set(skb, dst);
	return skb;
}

/* Sends the packet, whose payload is there. A queue may be too full for it. */
static bool send(struct sk_buff *skb, const struct nsrq_peer *peer)
{
	const int len = sizeof(struct udphdr) + skb->len;
	struct udphdr *uh = skb_push(skb, sizeof(*uh));
	int err;

	skb_reset_transport_header(skb);
	uh->source = peer->our_port;
	uh->dest = peer->port;
	uh->len = htons(len);
	uh->check = 0;
	/* A full table of connections must not swallow it. */
	nf_ct_set(skb, NULL, IP_CT_UNTRACKED);
	err = peer->family == NFPROTO_IPV6 ? send6(skb, peer, len) :
					     send4(skb, peer, len);
	return !net_xmit_eval(err);
}

static bool send_reply(const struct errand *e)
{
	struct sk_buff *skb = begin(&e->letter.peer, NSRQ_PACKET_SIZE);

	if (!skb)
		return false;
	seal(skb_put(skb, NSRQ_PACKET_SIZE), e);
	return send(skb, &e->letter.peer);
}

/* The pieces of the log that were granted. */
static bool send_log(const struct errand *e)
{
	struct nsrq_piece piece = { .time = nsrq_clocks().real };
	u8 nonce[NSRQ_NONCE_SIZE];
	struct sk_buff *skb;
	struct nsrq_log log;
	size_t len;
	bool ok;

	memcpy(piece.id, e->letter.id, sizeof(piece.id));
	memcpy(piece.challenge, e->letter.challenge, sizeof(piece.challenge));
	memcpy(piece.boot_id, e->boot_id, sizeof(piece.boot_id));
	nsrq_log_open(&log, e->letter.from);
	do {
		skb = begin(&e->letter.peer, NSRQ_PIECE_SIZE);
		if (!skb)
			return false;
		len = nsrq_log_read(&log, &piece, skb->data + NSRQ_OFF_TEXT);
		if (piece.index + 1 == e->letter.pieces)
			piece.flags |= NSRQ_LAST;
		get_random_bytes(nonce, sizeof(nonce));
		skb_put(skb, nsrq_seal_piece(skb->data, &e->key, nonce, &piece,
					     len));
		ok = send(skb, &e->letter.peer);
		piece.index++;
	} while (ok && !(piece.flags & NSRQ_LAST));
	return ok;
}

static bool send_letter(const struct errand *e)
{
	if (!e->letter.handle || !rng_is_initialized())
		return false;
	return e->letter.pieces ? send_log(e) : send_reply(e);
}

void nsrq_post(struct tasklet_struct *t)
{
	struct errand e;
	int n, turn = 0;
	bool ok;

	for (n = 0; n < NSRQ_LETTERS && next_errand(&e, &turn); n++) {
		if (e.warm) {
			warm_up(&e.letter.peer);
			continue;
		}
		ok = send_letter(&e);
		if (e.job)
			nsrq_sent(e.job, e.serial, ok);
		if (ok)
			nsrq_count(NSRQ_COUNT_SENT);
		else if (!e.job)
			nsrq_count(NSRQ_COUNT_LOST);
	}
	memzero_explicit(&e, sizeof(e));
	if (n == NSRQ_LETTERS)
		tasklet_schedule(t);
}
