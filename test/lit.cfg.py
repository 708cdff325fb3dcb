"""Configuration of the lit tests.

Run all of them with `ninja -C build check-lit`, or some with
`build/venv/bin/lit -v test/Dialect/Moa`: without a site configuration this file
loads the one of the build tree ($MOA_BUILD_DIR, or build/).
"""

import glob
import os
import platform
import shutil

import lit.formats

if not hasattr(config, "moa_build_dir"):
    here = os.path.dirname(os.path.abspath(__file__))
    build = os.environ.get("MOA_BUILD_DIR", os.path.join(here, "..", "build"))
    site = os.path.abspath(os.path.join(build, "test", "lit.site.cfg.py"))
    if not os.path.exists(site):
        lit_config.fatal(
            f"expected the configured build tree to have {site}, found none; "
            "run `make build`, or set MOA_BUILD_DIR"
        )
    lit_config.load_config(config, site)
else:
    config.name = "MoA"
    config.test_format = lit.formats.ShTest(execute_external=False)
    config.suffixes = [".mlir", ".test", ".c"]
    config.excludes = ["Inputs", "unit", "python", "bench", "fuzz"]
    config.test_source_root = os.path.join(config.moa_source_dir, "test")
    config.test_exec_root = os.path.join(config.moa_build_dir, "test")

    # Programs are found by name: ours first, then those of LLVM.
    config.environment["PATH"] = os.pathsep.join(
        [
            os.path.join(config.moa_build_dir, "bin"),
            config.llvm_tools_dir,
            config.environment.get("PATH", os.environ["PATH"]),
        ]
    )
    # The package of this build tree, whichever interpreter is used.
    config.environment["PYTHONPATH"] = os.path.join(config.moa_build_dir, "python")
    # A test that fails prints the input of FileCheck around the mismatch.
    config.environment["FILECHECK_OPTS"] = "--dump-input-filter=all"
    for name in ("LLVM_PROFILE_FILE", "ASAN_OPTIONS", "UBSAN_OPTIONS", "MOA_KILLS"):
        if name in os.environ:
            config.environment[name] = os.environ[name]

    config.substitutions += [
        ("%python", config.python),
        ("%plans", os.path.join(config.test_source_root, "Inputs", "plans")),
        ("%moa_source", config.moa_source_dir),
        ("%moa_build", config.moa_build_dir),
        ("%moa_include", os.path.join(config.moa_source_dir, "runtime", "include")),
        ("%cc", config.c_compiler),
        ("%cxx", config.cxx_compiler),
    ]

    # NVIDIA's assembler and disassembler, where they are: the toolkit's, and
    # those of the Python environment.
    cuda = os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    search = os.pathsep.join([os.environ["PATH"], cuda, "/usr/local/cuda/bin"])
    prefix = os.path.dirname(os.path.dirname(config.python))
    wheels = glob.glob(f"{prefix}/lib/python*/site-packages/nvidia/*/bin")
    for name, folders in (("ptxas", [search, *wheels]), ("nvdisasm", [*wheels, search])):
        program = shutil.which(name, path=os.pathsep.join(folders))
        if program:
            config.available_features.add(name)
            config.substitutions.append((f"%{name}", program))

    # Features, for REQUIRES lines: what this machine and this build can do.
    if os.path.exists(config.python):
        config.available_features.add("python")
    if shutil.which("pkg-config"):
        config.available_features.add("pkg-config")
    if config.sanitize:
        config.available_features.add("sanitizer")
    if config.coverage:
        config.available_features.add("coverage")
    config.available_features.add(platform.machine())
    flags = set()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as text:
            for line in text:
                if line.startswith("flags"):
                    flags = set(line.split(":", 1)[1].split())
                    break
    v3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    if v3 <= flags:
        config.available_features.add("host-x86-64-v3")
    if v4 <= flags:
        config.available_features.add("host-x86-64-v4")
