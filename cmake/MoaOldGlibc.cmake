# Links what a wheel holds so that it runs with glibc 2.28 and without a libstdc++
# of its age: the C++ library goes in, and calls of functions of glibc that have
# newer versions go to the old ones. OldGlibc.c names each; a symbol that it lacks
# shows in what auditwheel says of a wheel.

add_library(moa-old-glibc OBJECT ${CMAKE_CURRENT_LIST_DIR}/OldGlibc.c)
add_library(moa-old-glibc-start OBJECT ${CMAKE_CURRENT_LIST_DIR}/OldGlibcStart.c)
target_compile_options(moa-old-glibc PRIVATE -ffunction-sections -fno-builtin)
target_compile_definitions(moa-old-glibc PRIVATE _GNU_SOURCE)

# Placeholders since 2.34; before, the homes of threads and dlopen.
find_library(MOA_LIBPTHREAD NAMES libpthread.so.0 REQUIRED)
find_library(MOA_LIBDL NAMES libdl.so.2 REQUIRED)

foreach(target moa_rt moa-run moa-python moa-compile)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:moa-old-glibc>)
  target_link_options(${target} PRIVATE -static-libstdc++ -Wl,--gc-sections
    -Wl,--exclude-libs,ALL)
  target_link_libraries(${target} PRIVATE -Wl,--push-state,--no-as-needed
    ${MOA_LIBPTHREAD} ${MOA_LIBDL} -Wl,--pop-state)
endforeach()
foreach(target moa-run moa-compile)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:moa-old-glibc-start>)
endforeach()
