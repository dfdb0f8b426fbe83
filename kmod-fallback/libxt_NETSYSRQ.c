// SPDX-License-Identifier: GPL-2.0-only
/* Lets iptables and ip6tables, legacy and nft, name the target NETSYSRQ. */
#include <stdio.h>
#include <xtables.h>
#include "netsysrq_uapi.h"

enum { O_AUTHENTIC, O_JUNK };

static const struct xt_netsysrq_info defaults = {
	.authentic = { .value = 1, .mask = 3 },
	.junk = { .value = 2, .mask = 3 },
};

static void help(void)
{
	printf("NETSYSRQ target options, for -t raw -A PREROUTING -p udp:\n"
	       "  --authentic-mark value[/mask]\n"
	       "      Set this mark on a packet that the kernel keeps as a\n"
	       "      request and that the daemon is to judge (default 0x1/0x3)\n"
	       "  --junk-mark value[/mask]\n"
	       "      Set this mark on any other packet that goes on, all but\n"
	       "      those that the kernel answers itself (default 0x2/0x3)\n");
}

static const struct xt_option_entry options[] = {
	{.name = "authentic-mark", .id = O_AUTHENTIC, .type = XTTYPE_MARKMASK32},
	{.name = "junk-mark", .id = O_JUNK, .type = XTTYPE_MARKMASK32},
	XTOPT_TABLEEND,
};

static void init(struct xt_entry_target *target)
{
	*(struct xt_netsysrq_info *)target->data = defaults;
}

static void parse(struct xt_option_call *cb)
{
	struct xt_netsysrq_info *info = cb->data;
	struct xt_netsysrq_mark *mark;

	xtables_option_parse(cb);
	mark = cb->entry->id == O_JUNK ? &info->junk : &info->authentic;
	mark->value = cb->val.mark;
	mark->mask = cb->val.mask;
	if (mark->value & ~mark->mask)
		xtables_error(PARAMETER_PROBLEM,
			      "--%s: the value has bits outside of the mask",
			      cb->entry->name);
}

static void show(const char *name, const struct xt_netsysrq_mark *mark,
		 const struct xt_netsysrq_mark *unless)
{
	if (!unless || mark->value != unless->value || mark->mask != unless->mask)
		printf(" %s 0x%x/0x%x", name, mark->value, mark->mask);
}

static void print(const void *ip, const struct xt_entry_target *target, int numeric)
{
	const struct xt_netsysrq_info *info = (const void *)target->data;

	(void)ip;
	(void)numeric;
	printf(" NETSYSRQ");
	show("authentic", &info->authentic, NULL);
	show("junk", &info->junk, NULL);
}

static void save(const void *ip, const struct xt_entry_target *target)
{
	const struct xt_netsysrq_info *info = (const void *)target->data;

	(void)ip;
	show("--authentic-mark", &info->authentic, &defaults.authentic);
	show("--junk-mark", &info->junk, &defaults.junk);
}

static struct xtables_target extension = {
	.name		= "NETSYSRQ",
	.version	= XTABLES_VERSION,
	.family		= NFPROTO_UNSPEC,
	.size		= XT_ALIGN(sizeof(struct xt_netsysrq_info)),
	.userspacesize	= XT_ALIGN(sizeof(struct xt_netsysrq_info)),
	.help		= help,
	.init		= init,
	.print		= print,
	.save		= save,
	.x6_parse	= parse,
	.x6_options	= options,
};

static void __attribute__((constructor)) load(void)
{
	xtables_register_target(&extension);
}
