//===- FlattenObject.cpp - Relocatable object to flat image ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A linker for the one case we need: code and read-only data of one object, PC-
// relative relocations among them. What it cannot resolve is a compile-time
// error, so that the runtime never relocates.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/CPU.h"

#include "llvm/BinaryFormat/ELF.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

using namespace llvm;
using namespace moa;

static Error imageError(const Twine &message) {
  return createStringError(inconvertibleErrorCode(), message);
}

/// Offsets of the kept sections in the image, by section index.
using Layout = DenseMap<uint64_t, uint64_t>;

/// Copies code and read-only data to the image, aligned.
static Expected<Layout> placeSections(const object::ELFObjectFileBase &object,
                                      std::vector<uint8_t> &image) {
  Layout layout;
  // Code first, so that the entry is near the front.
  for (bool text : {true, false}) {
    for (object::ELFSectionRef section : object.sections()) {
      bool keep = text ? section.isText()
                       : (section.getFlags() & ELF::SHF_ALLOC) &&
                             section.getType() == ELF::SHT_PROGBITS &&
                             !section.isText();
      Expected<StringRef> name = section.getName();
      if (!name)
        return name.takeError();
      if (!keep || section.getSize() == 0 || *name == ".eh_frame")
        continue;
      if (section.getFlags() & ELF::SHF_WRITE)
        return imageError("kernel object has writable section " + *name);
      Expected<StringRef> contents = section.getContents();
      if (!contents)
        return contents.takeError();
      uint64_t offset = alignTo(
          image.size(), std::max<uint64_t>(64, section.getAlignment().value()));
      image.resize(offset, 0);
      image.insert(image.end(), contents->bytes_begin(), contents->bytes_end());
      layout[section.getIndex()] = offset;
    }
  }
  return layout;
}

/// Applies one section's relocations.
static Error relocate(const object::ELFObjectFileBase &object,
                      object::ELFSectionRef relocations,
                      object::ELFSectionRef section, const Layout &layout,
                      std::vector<uint8_t> &image) {
  auto base = layout.find(section.getIndex());
  if (base == layout.end())
    return Error::success();
  for (object::ELFRelocationRef relocation : relocations.relocations()) {
    auto symbol = relocation.getSymbol();
    Expected<StringRef> name = symbol->getName();
    if (!name)
      return name.takeError();
    Expected<object::section_iterator> home = symbol->getSection();
    if (!home)
      return home.takeError();
    if (*home == object.section_end())
      return imageError(
          "kernel object calls '" + *name +
          "', which a kernel may not: kernels are self-contained");
    auto target = layout.find((*home)->getIndex());
    if (target == layout.end())
      return imageError(
          "kernel object refers to a section that is not kept, by "
          "symbol '" +
          *name + "'");
    Expected<uint64_t> value = symbol->getValue();
    if (!value)
      return value.takeError();
    Expected<int64_t> addend = relocation.getAddend();
    if (!addend)
      return addend.takeError();
    uint64_t place = base->second + relocation.getOffset();
    int64_t distance = static_cast<int64_t>(target->second + *value) + *addend -
                       static_cast<int64_t>(place);
    switch (relocation.getType()) {
    case ELF::R_X86_64_PC32:
    case ELF::R_X86_64_PLT32:
      if (!isInt<32>(distance) || place + 4 > image.size())
        return imageError("kernel image is too large for 32-bit distances");
      support::endian::write32le(image.data() + place,
                                 static_cast<uint32_t>(distance));
      break;
    case ELF::R_X86_64_PC64:
      support::endian::write64le(image.data() + place,
                                 static_cast<uint64_t>(distance));
      break;
    default: {
      SmallString<32> type;
      relocation.getTypeName(type);
      return imageError("kernel object has relocation " + type +
                        ", which is not position-independent");
    }
    }
  }
  return Error::success();
}

Expected<CpuImage> moa::flattenObject(StringRef bytes, StringRef entry) {
  Expected<std::unique_ptr<object::ObjectFile>> file =
      object::ObjectFile::createELFObjectFile(
          MemoryBufferRef(bytes, "kernel object"));
  if (!file)
    return file.takeError();
  auto &object = cast<object::ELFObjectFileBase>(**file);

  CpuImage image;
  Expected<Layout> layout = placeSections(object, image.code);
  if (!layout)
    return layout.takeError();
  for (object::ELFSectionRef section : object.sections()) {
    Expected<object::section_iterator> target = section.getRelocatedSection();
    if (!target)
      return target.takeError();
    if (*target == object.section_end())
      continue;
    if (Error error = relocate(object, section, **target, *layout, image.code))
      return std::move(error);
  }
  for (object::ELFSymbolRef symbol : object.symbols()) {
    Expected<StringRef> name = symbol.getName();
    if (!name)
      return name.takeError();
    if (*name != entry)
      continue;
    Expected<object::section_iterator> home = symbol.getSection();
    if (!home)
      return home.takeError();
    Expected<uint64_t> value = symbol.getValue();
    if (!value)
      return value.takeError();
    if (*home == object.section_end() || !layout->contains((*home)->getIndex()))
      break;
    image.entry = layout->lookup((*home)->getIndex()) + *value;
    return image;
  }
  return imageError("kernel object does not define '" + entry + "'");
}
