//===- OldGlibcStart.c - Start of a program, as glibc 2.28 has it ---------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Since 2.34 the C library runs a program's constructors by itself; before, the
// program passed a function that does. Beside OldGlibc.c, for programs alone.
//
//===----------------------------------------------------------------------===//

#include <stddef.h>

typedef void Function(int, char **, char **);

extern Function *__init_array_start[] __attribute__((visibility("hidden")));
extern Function *__init_array_end[] __attribute__((visibility("hidden")));

static void construct(int argc, char **argv, char **environment) {
  const size_t count = (size_t)(__init_array_end - __init_array_start);
  for (size_t i = 0; i < count; ++i)
    __init_array_start[i](argc, argv, environment);
}

__asm__(".symver old_start,__libc_start_main@GLIBC_2.2.5");
extern int old_start(int (*main)(int, char **, char **), int argc, char **argv,
                     Function *init, void (*fini)(void),
                     void (*loaderFini)(void), void *stackEnd);

/// Called by the start file; `init` and `fini` are null where it is of 2.34.
__attribute__((visibility("hidden"))) int
__libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                  Function *init, void (*fini)(void), void (*loaderFini)(void),
                  void *stackEnd) {
  return old_start(main, argc, argv, init ? init : construct, fini, loaderFini,
                   stackEnd);
}
