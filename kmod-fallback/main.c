// SPDX-License-Identifier: GPL-2.0-only
/*
 * xt_NETSYSRQ: Magic SysRq by sealed packets, answered by the kernel when
 * userspace cannot. The target of a rule in raw/PREROUTING opens each packet.
 * It neither acts nor sends: it keeps what matters, marks what the daemon is to
 * see and lets it go on, and drops what is answered. See auth/PROTOCOL.md.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/module.h>
#include <linux/netfilter/x_tables.h>
#include <linux/siphash.h>
#include <linux/udp.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/route.h>
#include "module.h"

static siphash_key_t source_key __ro_after_init;

/*
 * Checks 1 and 2 of PROTOCOL.md section 4, as far as they need no look into the
 * routing table. Finds the UDP header at *offset, and how much of the packet is
 * UDP by the IP header, by the UDP header and by what is there: all the same.
 * LATE is not for us, who see a packet before it could wait anywhere.
 */
static enum nsrq_reason find_udp(const struct sk_buff *skb, u8 family,
				 struct nsrq_peer *peer, int *offset, int *len)
{
	bool loopback = skb->dev->flags & IFF_LOOPBACK;
	int end, frag_flags = 0, start = skb_network_offset(skb);
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);
	const struct iphdr *iph = ip_hdr(skb);
	const struct udphdr *uh;
	unsigned short frag = 0;
	struct udphdr buffer;
	unsigned int at = 0;

	memset(peer, 0, sizeof(*peer));
	peer->family = family;
	if (family == NFPROTO_IPV4) {
		if (iph->protocol != IPPROTO_UDP || ip_is_fragment(iph))
			return NSRQ_REASON_DATAGRAM;
		at = start + ip_hdrlen(skb);
		end = start + ntohs(iph->tot_len);
		peer->addr.ip = iph->saddr;
		peer->our_addr.ip = iph->daddr;
	} else {
		if (ipv6_find_hdr(skb, &at, IPPROTO_UDP, &frag, &frag_flags) < 0 ||
		    frag || frag_flags & IP6_FH_F_FRAG)
			return NSRQ_REASON_DATAGRAM;
		end = start + sizeof(*ip6h) + ntohs(ip6h->payload_len);
		peer->addr.in6 = ip6h->saddr;
		peer->our_addr.in6 = ip6h->daddr;
		if (ipv6_addr_type(&ip6h->saddr) & IPV6_ADDR_LINKLOCAL)
			peer->ifindex = skb->dev->ifindex;
	}
	uh = skb_header_pointer(skb, at, sizeof(buffer), &buffer);
	if (!uh || end > (int)skb->len || ntohs(uh->len) < sizeof(*uh) ||
	    (int)at + ntohs(uh->len) != end)
		return NSRQ_REASON_DATAGRAM;
	*offset = at + sizeof(*uh);
	*len = end - *offset;
	peer->port = uh->source;
	peer->our_port = uh->dest;

	if (!uh->source)
		return NSRQ_REASON_SOURCE;
	if (family == NFPROTO_IPV4) {
		/* RFC 1122 3.2.1.3 (a), RFC 1112 4 */
		if (ipv4_is_multicast(iph->saddr) || ntohl(iph->saddr) < 1 << 24 ||
		    ntohl(iph->saddr) >= 0xf0000000 ||
		    ((ipv4_is_loopback(iph->saddr) ||
		      ipv4_is_loopback(iph->daddr)) && !loopback))
			return NSRQ_REASON_SOURCE;
	} else {
		if (!(ipv6_addr_type(&ip6h->saddr) & IPV6_ADDR_UNICAST) ||
		    ((ipv6_addr_loopback(&ip6h->saddr) ||
		      ipv6_addr_loopback(&ip6h->daddr)) && !loopback))
			return NSRQ_REASON_SOURCE;
	}
	return NSRQ_REASON_OK;
}

/* The rest of them: it is for us alone, and from one that can be answered. */
static bool is_between_hosts(const struct nsrq_peer *peer,
			     const struct net_device *dev)
{
	const struct net_device *on = peer->ifindex ? dev : NULL;
	bool loopback = dev->flags & IFF_LOOPBACK;
	unsigned int from;

	if (peer->family == NFPROTO_IPV6)
		return ipv6_chk_addr(&init_net, &peer->our_addr.in6, on, 0) &&
		       (loopback ||
			!ipv6_chk_addr(&init_net, &peer->addr.in6, on, 0));
	from = inet_addr_type(&init_net, peer->addr.ip);
	return (from == RTN_UNICAST || (from == RTN_LOCAL && loopback)) &&
	       inet_addr_type(&init_net, peer->our_addr.ip) == RTN_LOCAL;
}

/* One datagram's payload. Says in *reason why it is junk. */
static enum nsrq_verdict look_into(const struct sk_buff *skb, int offset, int len,
				   const struct nsrq_peer *peer, u8 *reason)
{
	u8 packet[NSRQ_PACKET_SIZE];
	struct nsrq_request request;
	struct nsrq_key key;
	unsigned long flags;
	u64 handle, source;

	/* A copy, since others may hold the packet's memory and change it. */
	if (len == NSRQ_PACKET_SIZE && skb_copy_bits(skb, offset, packet, len)) {
		*reason = NSRQ_REASON_DATAGRAM;
		return NSRQ_JUNK;
	}
	*reason = nsrq_check(packet, len);
	if (*reason)
		return NSRQ_JUNK;

	raw_spin_lock_irqsave(&nsrq.lock, flags);
	handle = nsrq_find(&nsrq.ledger, packet + NSRQ_OFF_KEY_ID, &key);
	raw_spin_unlock_irqrestore(&nsrq.lock, flags);
	if (!handle)
		*reason = NSRQ_REASON_UNKNOWN_KEY;
	else if (!is_between_hosts(peer, skb->dev))
		*reason = NSRQ_REASON_SOURCE;
	else
		*reason = nsrq_open(&request, packet, &key);
	memzero_explicit(&key, sizeof(key));
	if (*reason && *reason != NSRQ_REASON_MALFORMED)
		return NSRQ_JUNK;

	source = siphash_3u64((u64)peer->addr.all[0] << 32 | peer->addr.all[1],
			      (u64)peer->addr.all[2] << 32 | peer->addr.all[3],
			      (u64)peer->ifindex << 16 | (__force u16)peer->port, &source_key);
	return nsrq_receive(handle, &request, peer, source);
}

static unsigned int go_on(struct sk_buff *skb, const struct xt_netsysrq_mark *mark)
{
	skb->mark = (skb->mark & ~mark->mask) | mark->value;
	return XT_CONTINUE;
}

static unsigned int target(struct sk_buff *skb, const struct xt_action_param *par)
{
	const struct xt_netsysrq_info *info = par->targinfo;
	enum nsrq_verdict one, verdict = NSRQ_DROP;
	int offset, len, size;
	struct nsrq_peer peer;
	u8 reason;

	if (xt_hooknum(par) != NF_INET_PRE_ROUTING)
		return XT_CONTINUE;
	reason = find_udp(skb, xt_family(par), &peer, &offset, &len);
	if (reason) {
		nsrq_count(reason);
		return go_on(skb, &info->junk);
	}
	/* Repeats that piled up may come as one, if nobody listens to the port. */
	size = len;
	if (skb_is_gso(skb) && skb_shinfo(skb)->gso_size == NSRQ_PACKET_SIZE)
		size = NSRQ_PACKET_SIZE;
	do {
		one = look_into(skb, offset, min(size, len), &peer, &reason);
		if (one == NSRQ_JUNK)
			nsrq_count(reason);
		verdict = max(verdict, one);
		offset += size;
		len -= size;
	} while (len > 0);
	if (verdict == NSRQ_DROP)
		return NF_DROP;
	return go_on(skb, verdict == NSRQ_FRESH ? &info->authentic : &info->junk);
}

static int checkentry(const struct xt_tgchk_param *par)
{
	const struct xt_netsysrq_info *info = par->targinfo;

	if (!net_eq(par->net, &init_net)) {
		pr_info_ratelimited("only for the initial network namespace\n");
		return -EPERM;
	}
	if (info->authentic.value & ~info->authentic.mask ||
	    info->junk.value & ~info->junk.mask) {
		pr_info_ratelimited("a mark has bits outside of its mask\n");
		return -EINVAL;
	}
	return 0;
}

static struct xt_target targets[] __read_mostly = {
	{
		.name		= "NETSYSRQ",
		.family		= NFPROTO_IPV4,
		.proto		= IPPROTO_UDP,
		.table		= "raw",
		.hooks		= 1 << NF_INET_PRE_ROUTING,
		.targetsize	= sizeof(struct xt_netsysrq_info),
		.target		= target,
		.checkentry	= checkentry,
		.me		= THIS_MODULE,
	},
	{
		.name		= "NETSYSRQ",
		.family		= NFPROTO_IPV6,
		.proto		= IPPROTO_UDP,
		.table		= "raw",
		.hooks		= 1 << NF_INET_PRE_ROUTING,
		.targetsize	= sizeof(struct xt_netsysrq_info),
		.target		= target,
		.checkentry	= checkentry,
		.me		= THIS_MODULE,
	},
};

static int woken_as_a_copy(struct notifier_block *nb, unsigned long event, void *p)
{
	nsrq_begin_anew();
	return NOTIFY_DONE;
}

static struct notifier_block vmfork = { .notifier_call = woken_as_a_copy };

static int __init netsysrq_init(void)
{
	int err;

	get_random_bytes(&source_key, sizeof(source_key));
	err = nsrq_runner_init();
	if (err)
		return err;
	err = register_random_vmfork_notifier(&vmfork);
	if (err)
		goto no_vmfork;
	err = nsrq_netlink_init();
	if (err)
		goto no_netlink;
	err = xt_register_targets(targets, ARRAY_SIZE(targets));
	if (err)
		goto no_targets;
	return 0;

no_targets:
	nsrq_netlink_exit();
no_netlink:
	unregister_random_vmfork_notifier(&vmfork);
no_vmfork:
	nsrq_runner_exit();
	return err;
}

static void __exit netsysrq_exit(void)
{
	xt_unregister_targets(targets, ARRAY_SIZE(targets));
	nsrq_netlink_exit();
	unregister_random_vmfork_notifier(&vmfork);
	nsrq_runner_exit();
}

module_init(netsysrq_init);
module_exit(netsysrq_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Xtables: Magic SysRq by sealed packets");
MODULE_VERSION(NETSYSRQ_VERSION);
MODULE_ALIAS("ipt_NETSYSRQ");
MODULE_ALIAS("ip6t_NETSYSRQ");
