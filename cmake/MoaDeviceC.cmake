# moa_embed_device_c(<variable> <source> <name>)
# Compiles a C file for GPUs to LLVM bitcode, and that to a C++ source with the
# arrays that EmbedBytes.cmake writes; <variable> gets the path of the latter.

find_program(MOA_DEVICE_CLANG NAMES clang-22 clang
  PATHS ${LLVM_TOOLS_BINARY_DIR} NO_DEFAULT_PATH)
find_program(MOA_DEVICE_CLANG NAMES clang-22)
if(NOT MOA_DEVICE_CLANG)
  message(FATAL_ERROR "expected clang 22 in ${LLVM_TOOLS_BINARY_DIR} or in "
    "PATH, for the kernel in C, found none; install Debian's clang-22, or set "
    "MOA_DEVICE_CLANG to its path")
endif()

function(moa_embed_device_c variable source name)
  cmake_path(ABSOLUTE_PATH source)
  cmake_path(GET source STEM stem)
  set(bitcode ${CMAKE_CURRENT_BINARY_DIR}/${stem}.bc)
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  set(script ${PROJECT_SOURCE_DIR}/cmake/EmbedBytes.cmake)
  add_custom_command(OUTPUT ${bitcode}
    COMMAND ${MOA_DEVICE_CLANG} --target=nvptx64-nvidia-cuda -march=sm_80 -O2
      -std=c11 -ffreestanding -nogpulib -Wall -Wextra -Werror
      -I${PROJECT_SOURCE_DIR}/runtime/include -MD -MF ${bitcode}.d -emit-llvm
      -c ${source} -o ${bitcode}
    DEPENDS ${source} DEPFILE ${bitcode}.d VERBATIM)
  add_custom_command(OUTPUT ${embedded}
    COMMAND ${CMAKE_COMMAND} -DBYTES=${bitcode} -DNAME=${name}
      -DOUTPUT=${embedded} -P ${script}
    DEPENDS ${bitcode} ${script} VERBATIM)
  set(${variable} ${embedded} PARENT_SCOPE)
endfunction()
