// SPDX-License-Identifier: GPL-2.0-only
/* Lets iptables and ip6tables, legacy and nft, name the target NETSYSRQ.
 *
 * Options are parsed the old way. Those of libxtables' newer one are described
 * by struct xt_option_entry, which grew between iptables 1.8.9 and 1.8.11 while
 * the library kept its name: what was built for the one makes the other crash.
 */
#include <getopt.h>
#include <stdint.h>
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

static const struct option options[] = {
	{.name = "authentic-mark", .has_arg = required_argument, .val = O_AUTHENTIC},
	{.name = "junk-mark", .has_arg = required_argument, .val = O_JUNK},
	{0},
};

static void init(struct xt_entry_target *target)
{
	*(struct xt_netsysrq_info *)target->data = defaults;
}

static int parse(int option, char **argv, int invert, unsigned int *seen,
		 const void *entry, struct xt_entry_target **target)
{
	struct xt_netsysrq_info *info = (void *)(*target)->data;
	struct xt_netsysrq_mark *mark;
	unsigned int value, mask = UINT32_MAX;
	const char *name;
	char *end;

	(void)argv;
	(void)entry;
	if (option != O_AUTHENTIC && option != O_JUNK)
		return 0;
	name = options[option].name;
	mark = option == O_JUNK ? &info->junk : &info->authentic;
	if (invert || *seen & 1U << option)
		xtables_error(PARAMETER_PROBLEM, "--%s: once, and without \"!\"", name);
	*seen |= 1U << option;
	if (!xtables_strtoui(optarg, &end, &value, 0, UINT32_MAX) ||
	    (*end == '/' && !xtables_strtoui(end + 1, &end, &mask, 0, UINT32_MAX)) ||
	    *end)
		xtables_error(PARAMETER_PROBLEM, "--%s: not a mark: \"%s\"", name, optarg);
	if (value & ~mask)
		xtables_error(PARAMETER_PROBLEM,
			      "--%s: the value has bits outside of the mask", name);
	mark->value = value;
	mark->mask = mask;
	return 1;
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
	.parse		= parse,
	.extra_opts	= options,
};

static void __attribute__((constructor)) load(void)
{
	xtables_register_target(&extension);
}
