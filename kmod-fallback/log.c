// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's log, a piece at a time, out of its ring buffer: it needs nobody
 * in userspace, and neither waits nor allocates. One record is looked up by its
 * number, so that no piece costs more than its own records do.
 */
#include "module.h"

#define RECORDS	64	/* in a piece, so that it is soon made */

/* Finds where the log begins and ends. The next record to read is from. */
void nsrq_log_open(struct nsrq_log *log, u64 from)
{
	struct nsrq_kmsg *at = &log->at;

	*at = (struct nsrq_kmsg)NSRQ_KMSG_INIT;
	kmsg_dump_rewind(at);
	log->end = at->next_seq;
	log->oldest = log->end;
	at->cur_seq = 0;
	if (kmsg_dump_get_line(at, true, NULL, 0, NULL))
		log->oldest = min_t(u64, at->cur_seq - 1, log->end);
	at->cur_seq = min_t(u64, from, log->end);
}

/*
 * Reads whole records whose numbers are consecutive, as many as fit. text has
 * room for NSRQ_TEXT_SIZE bytes and one more. Returns the length, and in *piece
 * what is in it; LAST if nothing follows yet.
 */
size_t nsrq_log_read(struct nsrq_log *log, struct nsrq_piece *piece, u8 *text)
{
	struct nsrq_kmsg *at = &log->at;
	size_t len, used = 0;
	u64 here, seq;
	bool cut;
	int n;

	piece->flags = 0;
	piece->first = at->cur_seq;
	piece->end = log->end;
	piece->oldest = log->oldest;
	for (n = 0; n < RECORDS && !(piece->flags & NSRQ_CUT); n++) {
		here = at->cur_seq;
		if (here >= log->end ||
		    !kmsg_dump_get_line(at, true, NULL, 0, &len)) {
			piece->flags |= NSRQ_LAST;
			break;
		}
		/* What was overwritten or never finished is passed over. */
		seq = at->cur_seq - 1;
		at->cur_seq = here;
		if (n && (seq != here || used + len > NSRQ_TEXT_SIZE))
			break;
		if (seq >= log->end) {
			at->cur_seq = log->end;
			piece->first = log->end;
			piece->flags |= NSRQ_LAST;
			break;
		}
		cut = len > NSRQ_TEXT_SIZE;
		if (!n)
			piece->first = seq;
		at->cur_seq = seq;
		if (!kmsg_dump_get_line(at, true, text + used,
					NSRQ_TEXT_SIZE + 1 - used, &len) ||
		    at->cur_seq != seq + 1) {
			/* Overwritten between the two looks: the piece ends
			 * before it, or is empty and begins after it.
			 */
			at->cur_seq = n ? seq : seq + 1;
			piece->first = n ? piece->first : seq + 1;
			break;
		}
		used += len;
		if (cut)
			piece->flags |= NSRQ_CUT;
	}
	piece->next = at->cur_seq;
	return used;
}
