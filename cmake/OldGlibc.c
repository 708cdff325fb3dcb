//===- OldGlibc.c - Functions as glibc 2.28 has them ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a newer glibc gives under a newer version, by the version that both
// have, for binaries that run with either. Static libraries of LLVM and
// libstdc++ call these, so that they must be defined here and not in a header.
//
//===----------------------------------------------------------------------===//

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/stat.h>

#define HIDDEN __attribute__((visibility("hidden")))
/// Declares old_NAME, which is NAME of a version that glibc had before 2.28.
#define OLD_OF(version, result, name, parameters)                              \
  __asm__(".symver old_" #name "," #name "@GLIBC_" #version);                  \
  extern result old_##name parameters
#define OLD(result, name, parameters) OLD_OF(2.2.5, result, name, parameters)
/// Defines NAME as old_NAME.
#define SAME(result, name, parameters, arguments)                              \
  OLD(result, name, parameters);                                               \
  HIDDEN result name parameters { return old_##name arguments; }

/// Since 2.32, an optimisation: 0 is right with any number of threads.
HIDDEN char __libc_single_threaded = 0;

// Since 2.34 in libc.so.6, before in libraries of their own.

SAME(void *, dlopen, (const char *file, int mode), (file, mode))
SAME(void *, dlsym, (void *handle, const char *name), (handle, name))
SAME(int, dlclose, (void *handle), (handle))
SAME(char *, dlerror, (void), ())
SAME(int, dladdr, (const void *address, Dl_info *info), (address, info))
SAME(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes,
      void *(*start)(void *), void *argument),
     (thread, attributes, start, argument))
SAME(int, pthread_join, (pthread_t thread, void **result), (thread, result))
SAME(int, pthread_once, (pthread_once_t * once, void (*routine)(void)),
     (once, routine))
SAME(int, __pthread_key_create, (pthread_key_t * key, void (*destroy)(void *)),
     (key, destroy))
SAME(int, pthread_rwlock_rdlock, (pthread_rwlock_t * lock), (lock))
SAME(int, pthread_rwlock_wrlock, (pthread_rwlock_t * lock), (lock))
SAME(int, pthread_rwlock_unlock, (pthread_rwlock_t * lock), (lock))
SAME(int, pthread_attr_setstacksize, (pthread_attr_t * attributes, size_t size),
     (attributes, size))
SAME(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old),
     (how, set, old))
OLD_OF(2.12, int, pthread_setname_np, (pthread_t, const char *));
HIDDEN int pthread_setname_np(pthread_t thread, const char *name) {
  return old_pthread_setname_np(thread, name);
}

// Since 2.33 functions, before inline calls of these with a number for the
// layout of the struct, of which x86-64 has had one.

OLD(int, __fxstat, (int, int, struct stat *));
OLD(int, __xstat, (int, const char *, struct stat *));
OLD(int, __lxstat, (int, const char *, struct stat *));
HIDDEN int fstat(int file, struct stat *status) {
  return old___fxstat(1, file, status);
}
HIDDEN int fstat64(int file, struct stat64 *status) {
  return old___fxstat(1, file, (struct stat *)status);
}
HIDDEN int stat(const char *path, struct stat *status) {
  return old___xstat(1, path, status);
}
HIDDEN int lstat(const char *path, struct stat *status) {
  return old___lxstat(1, path, status);
}

// Since 2.29 without the error handling of SVID, which nobody asks for.

SAME(double, exp, (double x), (x))
SAME(double, exp2, (double x), (x))
SAME(double, log, (double x), (x))
SAME(double, log2, (double x), (x))
SAME(double, pow, (double x, double y), (x, y))

/// Since 2.33, with wider numbers; those of before wrap at 2 GiB, and LLVM asks
/// for its statistics alone.
HIDDEN struct mallinfo2 mallinfo2(void) {
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
  const struct mallinfo old = mallinfo();
  struct mallinfo2 info = {0};
  info.arena = (unsigned)old.arena;
  info.hblkhd = (unsigned)old.hblkhd;
  info.uordblks = (unsigned)old.uordblks;
  info.fordblks = (unsigned)old.fordblks;
  return info;
}

/// Since 2.36.
HIDDEN uint32_t arc4random(void) {
  uint32_t value = 0;
  while (getrandom(&value, sizeof(value), 0) != sizeof(value))
    ;
  return value;
}
