/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the same source needs on different ground. wire.c is written against
 * the kernel's names; the second half gives userspace the few that it uses,
 * with libsodium below, so that vectors, sanitizers and fuzzers run the very
 * lines that run in the kernel (5.10 to 7.2).
 */
#ifndef NSRQ_COMPAT_H
#define NSRQ_COMPAT_H

#ifdef __KERNEL__

#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/version.h>
#include <crypto/chacha20poly1305.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#include <crypto/utils.h>	/* crypto_memneq() */
#else
#include <crypto/algapi.h>
#endif

#else /* userspace */

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define BIT_ULL(n)	(1ULL << (n))

/* As strict about types as the kernel was before 6.7. */
#define pick(a, op, b)	({ typeof(a) a_ = (a); typeof(b) b_ = (b); \
			   (void)(&a_ == &b_); a_ op b_ ? a_ : b_; })
#define min(a, b)	pick(a, <, b)
#define max(a, b)	pick(a, >, b)

#define memzero_explicit(p, n)	sodium_memzero(p, n)
#define crypto_memneq(a, b, n)	(sodium_memcmp(a, b, n) != 0)

static inline u64 div_u64(u64 a, u32 b)
{
	return a / b;
}

static inline void put_unaligned_be16(u16 v, u8 *p)
{
	p[0] = v >> 8;
	p[1] = v;
}

static inline void put_unaligned_be32(u32 v, u8 *p)
{
	put_unaligned_be16(v >> 16, p);
	put_unaligned_be16(v, p + 2);
}

static inline void put_unaligned_be64(u64 v, u8 *p)
{
	put_unaligned_be32(v >> 32, p);
	put_unaligned_be32(v, p + 4);
}

static inline u16 get_unaligned_be16(const u8 *p)
{
	return p[0] << 8 | p[1];
}

static inline u64 get_unaligned_be64(const u8 *p)
{
	u64 v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static inline void
xchacha20poly1305_encrypt(u8 *dst, const u8 *src, size_t len, const u8 *ad,
			  size_t ad_len, const u8 *nonce, const u8 *key)
{
	crypto_aead_xchacha20poly1305_ietf_encrypt(dst, NULL, src, len, ad,
						   ad_len, NULL, nonce, key);
}

static inline bool
xchacha20poly1305_decrypt(u8 *dst, const u8 *src, size_t len, const u8 *ad,
			  size_t ad_len, const u8 *nonce, const u8 *key)
{
	return !crypto_aead_xchacha20poly1305_ietf_decrypt(dst, NULL, NULL, src,
							   len, ad, ad_len,
							   nonce, key);
}

#endif /* __KERNEL__ */
#endif /* NSRQ_COMPAT_H */
