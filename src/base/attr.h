/* Compiler extensions that are accepted everywhere, under names of our own. */
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define FM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FM_UNUSED __attribute__((unused))
#define FM_ALWAYS_INLINE inline __attribute__((always_inline))
#define FM_NOINLINE __attribute__((noinline))
#else
#define FM_PRINTF(fmt, args)
#define FM_UNUSED
#define FM_ALWAYS_INLINE inline
#define FM_NOINLINE
#endif

/* Built with the address sanitizer, which does not see what assembler reads and writes. */
#if defined(__SANITIZE_ADDRESS__)
#define FM_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FM_ADDRESS_SANITIZER 1
#endif
#endif

/* Built with the thread sanitizer, which needs stack and address space of its own. */
#if defined(__SANITIZE_THREAD__)
#define FM_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FM_THREAD_SANITIZER 1
#endif
#endif
