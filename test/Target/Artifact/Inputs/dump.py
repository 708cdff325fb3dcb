"""Print a .moa file as text: header, sections, layers, kernels, images.

Independent of the writer: offsets and sizes are those of the format's header,
moa/abi/artifact.h.
"""

import struct
import sys

data = open(sys.argv[1], "rb").read()
magic, version, file_size, checksum = struct.unpack_from("<IIQQ", data, 0)
print(f"magic {magic:#x} version {version} size_is_right {file_size == len(data)}")

words = data[:16] + bytes(8) + data[24:] + bytes(-len(data) % 8)
fnv = 0xCBF29CE484222325
for (word,) in struct.iter_unpack("<Q", words):
    fnv = (fnv ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
print(f"checksum_is_right {fnv == checksum}")

fields = struct.unpack_from("<8Iq", data, 24)
names = "header_size kernel_abi layers q_heads kv_heads head_dim dtype length_rule".split()
print("header", *(f"{n} {v}" for n, v in zip(names, fields)), f"max_length {fields[8]}")
print(f"plan_id {data[64:96].hex()}")
print("soft_cap %g reserved %d" % struct.unpack_from("<fI", data, 96))
sections = {}
for index, name in enumerate("rules layers kernels images strings code kv_formats".split()):
    sections[name] = struct.unpack_from("<QQ", data, 104 + 16 * index)
    offset, size = sections[name]
    print(f"section {name} aligned {offset % 64 == 0} inside {offset + size <= len(data)}")


def records(name, layout):
    offset, size = sections[name]
    return struct.iter_unpack("<" + layout, data[offset : offset + size])


def string(offset):
    start = sections["strings"][0] + offset
    return data[start : data.index(b"\0", start)].decode()


heads = fields[3]
for index, (alpha, beta, sink, least, block, length) in enumerate(records("rules", "qd4i")):
    layer, head = divmod(index, heads)
    rule = f"{alpha} + {beta} * N sink {sink} min {least} block {block} length {length}"
    print(f"rule {layer}.{head} {rule}")
formats = [value for (value,) in records("kv_formats", "B")]
kv_heads = fields[4]
for index, layer in enumerate(records("layers", "6I")):
    phases = f"prefill {layer[0]} decode {layer[1]} append {layer[2]:#x}"
    kv = formats[index * kv_heads : (index + 1) * kv_heads]
    print(f"layer {index} {phases} prepare {layer[3]:#x} quantise {layer[5]:#x} kv {kv}")
for index, record in enumerate(records("kernels", "9I")):
    name, kind, dtype, dim, group, first, count, _, kv8 = record
    facts = f"kind {kind} dtype {dtype} head_dim {dim} group {group}"
    print(f"kernel {index} {string(name)} {facts} images {first}+{count} kv8 {kv8}")
for index, image in enumerate(records("images", "4I4Q4I")):
    target, features, chip, threads, offset, size, entry, scratch, rows, keys, registers, _ = image
    inside = offset % 64 == 0 and offset + size <= sections["code"][1]
    line = f"image {index} target {target} features {features:#x} {string(chip)}"
    if target == 0:
        print(f"{line} inside {inside and entry < size}")
    else:
        launch = f"threads {threads} shared {scratch} rows {rows} keys {keys}"
        print(f"{line} inside {inside} function {string(entry)} {launch} registers {registers}")
