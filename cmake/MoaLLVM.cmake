# Finds LLVM and MLIR and defines what stands for them in every target here:
# `MoaMLIR` (MLIR and LLVM) and `MoaLLVM` (LLVM alone). They are the shared
# libraries, or, with MOA_STATIC_LLVM, the parts that moa-compile takes of the
# static ones, so that it runs where neither is installed.

find_package(MLIR REQUIRED CONFIG)
if(NOT LLVM_VERSION_MAJOR EQUAL 22)
  message(FATAL_ERROR "expected LLVM/MLIR 22, found ${LLVM_PACKAGE_VERSION} "
                      "in ${MLIR_DIR}; set MLIR_DIR")
endif()

add_library(MoaLLVM INTERFACE)
add_library(MoaMLIR INTERFACE)
target_link_libraries(MoaMLIR INTERFACE MoaLLVM)

if(NOT MOA_STATIC_LLVM)
  target_link_libraries(MoaLLVM INTERFACE LLVM)
  target_link_libraries(MoaMLIR INTERFACE MLIR)
  return()
endif()

set(LLVM_LINK_LLVM_DYLIB OFF)
llvm_map_components_to_libnames(MOA_LLVM_LIBRARIES
  Analysis BinaryFormat BitReader Core MC NVPTX Object Option Passes Support Target
  TargetParser TransformUtils X86)
target_link_libraries(MoaLLVM INTERFACE ${MOA_LLVM_LIBRARIES})
target_link_libraries(MoaMLIR INTERFACE
  MLIRArithDialect MLIRArithToLLVM MLIRBuiltinToLLVMIRTranslation
  MLIRBytecodeOpInterface MLIRControlFlowDialect MLIRControlFlowToLLVM
  MLIRFuncDialect MLIRFuncToLLVM MLIRIR MLIRLLVMDialect
  MLIRLLVMToLLVMIRTranslation MLIRMathDialect MLIRNVVMDialect
  MLIRNVVMToLLVM MLIRNVVMToLLVMIRTranslation MLIRParser MLIRPass
  MLIRReconcileUnrealizedCasts MLIRSCFDialect MLIRSCFToControlFlow
  MLIRTargetLLVMIRExport MLIRTransforms MLIRVectorDialect
  MLIRVectorToLLVMPass)

# Where LLVM was built with its shared library, MLIR's static libraries name
# that library, `LLVM`, as what they need: name the static ones in its place.
get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(library ${imported})
  get_target_property(needs ${library} INTERFACE_LINK_LIBRARIES)
  if(library MATCHES "^MLIR" AND "LLVM" IN_LIST needs)
    list(TRANSFORM needs REPLACE "^LLVM$" MoaLLVM)
    set_target_properties(${library} PROPERTIES
      INTERFACE_LINK_LIBRARIES "${needs}")
  endif()
endforeach()

# The same for what LLVM itself stands on; z3 is for a solver unused here.
find_library(MOA_ZLIB NAMES libz.a REQUIRED)
find_library(MOA_ZSTD NAMES libzstd.a REQUIRED)
set_target_properties(LLVMSupport PROPERTIES INTERFACE_LINK_LIBRARIES
  "LLVMDemangle;${MOA_ZLIB};${MOA_ZSTD};${CMAKE_DL_LIBS};m")

# Static libraries bring more than is called: drop it, and the symbols.
add_link_options(-Wl,--gc-sections -Wl,--strip-all -Wl,--as-needed)
