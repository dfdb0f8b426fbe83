// SPDX-License-Identifier: GPL-2.0-only
#include <linux/init.h>
#include <linux/module.h>

static int __init trivial_init(void)
{
	pr_info("trivial: loaded\n");
	return 0;
}
module_init(trivial_init);

static void __exit trivial_exit(void)
{
	pr_info("trivial: unloaded\n");
}
module_exit(trivial_exit);

MODULE_DESCRIPTION("Says that it was loaded");
MODULE_LICENSE("GPL");
