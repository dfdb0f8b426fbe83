// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Any bytes as a packet, to a host that holds the key of the vectors. */
#include "test.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct nsrq_ledger l;
	struct nsrq_now now = { 1, 1 };
	struct nsrq_request r;
	enum nsrq_reason reason;
	struct nsrq_key key;

	if (!l.handles) {
		unhex("19d852b3d9620344", key.id, sizeof(key.id));
		unhex("155b5139b1f8f8b12b64b57a5ce317f063808e56d97bfb62a6bea443352d38c3",
		      key.request, sizeof(key.request));
		memset(key.reply, 0, sizeof(key.reply));
		CHECK(sodium_init() >= 0 && nsrq_install(&l, &now, &key, 0));
	}
	reason = nsrq_check(data, size);
	CHECK((reason == NSRQ_REASON_LENGTH) == (size != NSRQ_PACKET_SIZE));
	if (size == NSRQ_PACKET_SIZE)
		CHECK(!reason == !memcmp(data, "NSRQ\1\1\0\0", 8));
	if (reason || !nsrq_find(&l, data + NSRQ_OFF_KEY_ID, &key))
		return 0;
	CHECK(!memcmp(data + 8, key.id, 8));
	reason = nsrq_open(&r, data, &key);
	if (reason == NSRQ_REASON_FORGED)
		return 0;
	CHECK((reason == NSRQ_REASON_MALFORMED) == (r.malformed != 0));
	CHECK(reason == NSRQ_REASON_MALFORMED || !reason);
	return 0;
}
