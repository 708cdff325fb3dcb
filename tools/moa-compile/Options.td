//===- Options.td - Options of moa-compile -----------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

include "llvm/Option/OptParser.td"

class Switch<string name, string help>
    : Flag<["--"], name>, HelpText<help>;

// --name VALUE and --name=VALUE.
multiclass Value<string name, string meta, string help> {
  def NAME : Separate<["--"], name>, MetaVarName<meta>, HelpText<help>;
  def NAME#_EQ : Joined<["--"], name # "=">, Alias<!cast<Separate>(NAME)>;
}

def output : Separate<["-"], "o">, MetaVarName<"FILE">,
    HelpText<"Where the result goes; - is standard output, the default for "
             "text">;
defm model : Value<"model", "MODEL",
    "A Hugging Face config.json, a folder with one, or "
    "layers=32,q_heads=32,kv_heads=8,head_dim=128">;
defm target : Value<"target", "LIST",
    "cpu (every variant), variants by name (x86-64-v4-bf16, x86-64-v4, "
    "x86-64-v3), and GPU families: sm_90a, sm_80 (default: all)">;
defm ptxas : Value<"ptxas", "FILE",
    "Assembler of GPU code, or none for PTX and finished cubins (default: the "
    "first that is new enough in PATH, $CUDA_HOME/bin, $CUDA_PATH/bin, "
    "/usr/local/cuda/bin, and the package nvidia-cuda-nvcc beside this one)">;
def print_ptxas : Switch<"print-ptxas",
    "Print path and version of that assembler; 1 and why, without one">;
defm cubins : Value<"cubins", "DIR",
    "Finished cubins: used without an assembler, or with one of the version "
    "that made them; new ones are added (default: those that came with the "
    "compiler, which are only read; none for no such folder)">;
defm dtype : Value<"dtype", "TYPE",
    "Queries, keys, values and outputs: bf16 (default), f16 or f32">;
defm phase : Value<"phase", "LIST",
    "Calls to serve, of prefill,decode,append (default: all)">;
defm rope : Value<"rope", "LAYOUT[:DIM]",
    "Also a kernel that rotates queries and keys where it stores keys, for "
    "moa_cache_set_rope: half pairs elements i and i + DIM/2, interleaved 2i "
    "and 2i + 1; the first DIM of a head are rotated (default: all)">;
defm emit : Value<"emit", "LEVEL",
    "moa, tile, gpu, llvm, asm, ptx, cubin or artifact (default); the prepare "
    "kernel of GPUs is in artifacts and --dump-dir alone">;
defm layer : Value<"layer", "L",
    "With --emit moa or tile: this layer only">;
defm max_length : Value<"max-length", "TOKENS",
    "Longest sequence to serve (default: the model's, or 131072)">;
defm dump_dir : Value<"dump-dir", "DIR",
    "Also write every level to files in DIR; leaves the cache out">;
defm cache_dir : Value<"cache-dir", "DIR",
    "Keep finished artifacts in DIR and use them again">;
defm jobs : Value<"jobs", "N",
    "Kernels to compile at a time (default: one per core)">;
def stats : Switch<"stats", "Print kernels, sizes and seconds as JSON">;
def help : Switch<"help", "Print this text">;
def help_short : Flag<["-"], "h">, Alias<help>;
def version : Switch<"version", "Print versions">;
