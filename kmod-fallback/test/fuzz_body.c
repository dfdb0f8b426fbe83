// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Any 72 bytes as the body of an authentic request, zeros added to fewer. It is well formed exactly
 * if a second reading of section 4.1, written another way, says so; what is
 * well formed says every byte of the body; sealing and opening changes nothing.
 */
#include "test.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static bool well_formed(const u8 *b)
{
	static const u8 zero[40];
	const u8 *unused = b + 44 + 4 * b[42];
	int pauses = 0, i;

	if (b[40] > 2 || !memcmp(b + 8, zero, 16) || b[43] || b[41] > 7 || b[42] > 7)
		return false;
	if (b[40] == 2)
		return !b[41] && !b[42] && memcmp(b + 24, zero, 16) && b[52] &&
		       b[52] < 9 && !memcmp(b + 53, zero, 19);
	for (i = 44; b + i < unused; i += 4) {
		if (!b[i] || b[i + 1] ||
		    !strchr("0123456789abcdefghijklmnopqrstuvwxyz", b[i]))
			return false;
		pauses += b[i + 2] * 256 + b[i + 3];
	}
	return !memcmp(unused, zero, b + 72 - unused) && pauses <= 6000 &&
	       (b[40] || (!b[41] && !b[42] && !memcmp(b + 24, zero, 16)));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const struct nsrq_key key = { { 1 }, { 2 }, { 3 } };
	u8 b[NSRQ_BODY_SIZE] = {}, again[NSRQ_BODY_SIZE] = {};
	u8 p[NSRQ_PACKET_SIZE] = "NSRQ\1\1\0\0";
	struct nsrq_request r, opened;
	enum nsrq_reason reason;
	u32 wait = 0;
	int i;

	memcpy(b, data, min(size, sizeof(b)));
	memset(&r, 0xaa, sizeof(r));
	nsrq_decode(&r, b);
	CHECK(!r.malformed == well_formed(b));
	CHECK(r.malformed <= NSRQ_FIELD_LOG_FIELDS);
	CHECK(r.time == get_unaligned_be64(b) && !memcmp(r.id, b + 8, 16));

	memcpy(p + NSRQ_OFF_KEY_ID, key.id, sizeof(key.id));
	xchacha20poly1305_encrypt(p + NSRQ_OFF_BODY, b, NSRQ_BODY_SIZE, p,
				  NSRQ_HEADER_SIZE, p + NSRQ_OFF_NONCE, key.request);
	CHECK(!nsrq_check(p, sizeof(p)));
	memset(&opened, 0x55, sizeof(opened));
	reason = nsrq_open(&opened, p, &key);
	CHECK(reason == (r.malformed ? NSRQ_REASON_MALFORMED : NSRQ_REASON_OK));
	CHECK(!memcmp(&opened, &r, offsetof(struct nsrq_request, steps)));
	if (r.malformed)
		return 0;

	put_unaligned_be64(r.time, again);
	memcpy(again + 8, r.id, 16);
	memcpy(again + 24, r.challenge, 16);
	again[40] = r.op;
	again[41] = r.flags;
	again[42] = r.count;
	if (r.op == NSRQ_OP_LOG) {
		put_unaligned_be64(r.from, again + 44);
		again[52] = r.pieces;
	}
	for (i = 0; i < r.count; i++) {
		again[44 + 4 * i] = r.steps[i].key;
		put_unaligned_be16(r.steps[i].pause, again + 46 + 4 * i);
		wait += nsrq_wait_ms(&r.steps[i]);
	}
	CHECK(!memcmp(again, b, sizeof(again)));
	CHECK(wait <= 60000 + 7 * 10000);
	CHECK(nsrq_missing(0, &r) == (1 << r.count) - 1 && !nsrq_missing(~0ULL, &r));
	return 0;
}
