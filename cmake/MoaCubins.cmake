# Target moa-cubins: the folder `cubins` of the build tree, with the GPU kernels
# of common structures as cubins, and its place in a wheel. A moa-compile without
# an assembler beside it takes kernels from there.

if(NOT MOA_CUBINS)
  add_custom_target(moa-cubins)
  return()
endif()
file(GLOB folders ${PROJECT_SOURCE_DIR}/build/venv/lib/python3*/site-packages/nvidia/cu*/bin)
find_program(MOA_PTXAS ptxas HINTS ${folders} PATHS /usr/local/cuda/bin)
if(NOT MOA_PTXAS)
  message(FATAL_ERROR "expected ptxas in build/venv, in PATH or in "
    "/usr/local/cuda/bin, found none; run tools/setup.sh, set MOA_PTXAS to its "
    "path, or set MOA_CUBINS=OFF for a wheel without cubins")
endif()

# Not the interpreter that the wheel is for: wheels for several share the cubins.
find_program(MOA_SCRIPT_PYTHON python3 REQUIRED)
set(stamp ${CMAKE_BINARY_DIR}/cubins.stamp)
set(script ${PROJECT_SOURCE_DIR}/tools/cubin_store.py)
add_custom_command(OUTPUT ${stamp}
  COMMAND ${MOA_SCRIPT_PYTHON} ${script} $<TARGET_FILE:moa-compile> ${MOA_PTXAS}
    ${CMAKE_BINARY_DIR}/cubins
  COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
  DEPENDS moa-compile ${script}
  COMMENT "Assembling GPU kernels of common structures" VERBATIM)
add_custom_target(moa-cubins DEPENDS ${stamp})
install(DIRECTORY ${CMAKE_BINARY_DIR}/cubins DESTINATION moa COMPONENT moa-wheel)
