//===- JsonText.cpp - JSON with positions and a canonical form ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One SAX handler builds the document, follows the key path, and stops at the
// first fault; the writer prints numbers as Python does.
//
//===----------------------------------------------------------------------===//

#include "JsonText.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/raw_ostream.h"
#include <charconv>
#include <iterator>

using namespace moa::plan;
using llvm::StringRef;
using nlohmann::json;

namespace {

/// Hands a text to the parser and tells how far it has read.
class Cursor {
public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char *;
  using reference = const char &;

  Cursor(const char *at, const char **seen) : at(at), seen(seen) {}
  reference operator*() const { return *at; }
  Cursor &operator++() {
    *seen = ++at;
    return *this;
  }
  Cursor operator++(int) {
    Cursor old = *this;
    ++*this;
    return old;
  }
  bool operator==(const Cursor &other) const { return at == other.at; }
  bool operator!=(const Cursor &other) const { return at != other.at; }

private:
  const char *at;
  const char **seen;
};

/// Lines and columns count from 1.
std::pair<unsigned, unsigned> positionOf(StringRef text, size_t offset) {
  StringRef before = text.take_front(offset);
  size_t start = before.rfind('\n');
  start = start == StringRef::npos ? 0 : start + 1;
  return {unsigned(before.count('\n') + 1),
          unsigned(before.size() - start + 1)};
}

/// Builds the document and keeps the path to the value being read.
class Builder : public nlohmann::json_sax<json> {
public:
  Builder(StringRef text, StringRef fileName)
      : read(text.begin()), text(text), fileName(fileName) {}

  bool null() override { return add(json()); }
  bool boolean(bool value) override { return add(json(value)); }
  bool number_integer(number_integer_t value) override {
    return add(json(value), 1);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return add(json(value), 1);
  }
  bool number_float(number_float_t value, const string_t &) override {
    return add(json(value), 1);
  }
  bool string(string_t &value) override { return add(json(std::move(value))); }
  bool binary(binary_t &) override { return false; } // Not in text.
  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t &name) override {
    levels.back().key = name;
    if (levels.back().value->contains(name)) {
      fail("expected each key once, found '" + name + "' again",
           "keep the one that is meant");
      error.key = path();
      return false;
    }
    return true;
  }

  bool parse_error(size_t position, const std::string &,
                   const nlohmann::detail::exception &fault) override {
    // "[json.exception..] parse error at line 1, column 2: what is wrong"
    StringRef what = StringRef(fault.what()).split("] ").second;
    if (what.starts_with("parse error at"))
      what = what.split(": ").second;
    size_t last = std::min(position ? position - 1 : 0, text.size());
    std::tie(error.line, error.column) = positionOf(text, last);
    error.file = fileName.str();
    // What was read last may be long or not even text: leave it out.
    StringRef rest = what.substr(what.find("; expected "));
    error.message =
        ("expected JSON, found " + what.split("; last read: ").first).str();
    if (what.contains("; last read: "))
      error.message += rest;
    StringRef token = StringRef(text).substr(last).take_front(1);
    if (token == "N" || token == "I" || token == "n" || token == "i")
      error.cure = "JSON has no NaN and no Infinity; write a finite number";
    return false;
  }

  /// Key path of the value being read.
  std::string path() const {
    std::string result;
    for (const Level &level : levels) {
      if (!result.empty())
        result += '/';
      // An array that is being read inside has its element placed already.
      bool inside = &level != &levels.back();
      result += level.value->is_array()
                    ? std::to_string(level.value->size() - inside)
                    : level.key;
    }
    return result;
  }

  json document;
  PlanError error;
  const char *read; ///< First character not yet read.
  /// Path whose line is looked for, and its line or 0.
  std::string wanted;
  unsigned wantedLine = 0;

private:
  struct Level {
    json *value;
    std::string key; ///< Of an object: the key just read.
  };

  /// Line of the token just read; of a number one character more was read.
  unsigned line(unsigned ahead) const {
    return positionOf(text, read - text.begin() - ahead).first;
  }

  void fail(const llvm::Twine &message, const llvm::Twine &cure) {
    error.file = fileName.str();
    error.line = line(0);
    error.message = message.str();
    error.cure = cure.str();
  }

  void look(unsigned ahead) {
    if (!wanted.empty() && !wantedLine && path() == wanted)
      wantedLine = line(ahead);
  }

  json *place(json value) {
    if (levels.empty()) {
      document = std::move(value);
      return &document;
    }
    json &parent = *levels.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[levels.back().key] = std::move(value));
  }

  bool add(json value, unsigned ahead = 0) {
    look(ahead);
    place(std::move(value));
    return true;
  }

  bool open(json value) {
    look(0);
    if (levels.size() == kMaxJsonDepth) {
      fail("expected at most " + llvm::Twine(unsigned(kMaxJsonDepth)) +
               " arrays and objects inside each other, found more",
           "a plan nests two deep");
      return false;
    }
    levels.push_back({place(std::move(value)), {}});
    return true;
  }

  bool close() {
    levels.pop_back();
    return true;
  }

  StringRef text, fileName;
  llvm::SmallVector<Level, 8> levels;
};

bool parse(StringRef text, Builder &builder) {
  return json::sax_parse(Cursor(text.begin(), &builder.read),
                         Cursor(text.end(), &builder.read), &builder);
}

/// The shortest digits that read back as `value`, laid out as Python does.
void writeFloat(double value, llvm::raw_ostream &os) {
  char buffer[40];
  char *end = std::to_chars(buffer, std::end(buffer), value,
                            std::chars_format::scientific)
                  .ptr;
  StringRef all(buffer, end - buffer);
  if (all.consume_front("-"))
    os << '-';
  auto [mantissa, power] = all.split('e');
  power.consume_front("+");
  int exponent = 0;
  power.getAsInteger(10, exponent);
  std::string digits = mantissa.take_front(1).str();
  digits += mantissa.drop_front(mantissa.size() > 1 ? 2 : 1);
  int count = digits.size();
  if (exponent < -4 || exponent >= 16) {
    os << mantissa << 'e' << (exponent < 0 ? '-' : '+');
    if (std::abs(exponent) < 10)
      os << '0';
    os << std::abs(exponent);
  } else if (exponent < 0) {
    os << "0." << std::string(-exponent - 1, '0') << digits;
  } else if (count <= exponent + 1) {
    os << digits << std::string(exponent + 1 - count, '0') << ".0";
  } else {
    os << digits.substr(0, exponent + 1) << '.' << digits.substr(exponent + 1);
  }
}

void write(const json &value, llvm::raw_ostream &os) {
  const char *separator = "";
  if (value.is_object()) {
    os << '{';
    for (const auto &[key, member] : value.items()) {
      os << separator << json(key).dump() << ':';
      write(member, os);
      separator = ",";
    }
    os << '}';
  } else if (value.is_array()) {
    os << '[';
    for (const json &element : value) {
      os << separator;
      write(element, os);
      separator = ",";
    }
    os << ']';
  } else if (value.is_number_float()) {
    writeFloat(value.get<double>(), os);
  } else {
    os << value.dump();
  }
}

} // namespace

llvm::Expected<json> moa::plan::readJson(StringRef text, StringRef fileName) {
  Builder builder(text, fileName);
  bool whole = parse(text, builder);
  if (whole && builder.read == text.end())
    return std::move(builder.document);
  if (whole) { // The parser takes a zero byte for the end of the text.
    size_t zero = builder.read - text.begin() - 1;
    std::tie(builder.error.line, builder.error.column) = positionOf(text, zero);
    builder.error.file = fileName.str();
    builder.error.message = "expected JSON, found a zero byte";
  }
  return llvm::make_error<PlanError>(std::move(builder.error));
}

unsigned moa::plan::lineOfKey(StringRef text, StringRef key) {
  while (!key.empty()) {
    Builder builder(text, "");
    builder.wanted = key.str();
    parse(text, builder);
    if (builder.wantedLine)
      return builder.wantedLine;
    key = key.contains('/') ? key.rsplit('/').first : "";
  }
  return 1;
}

std::string moa::plan::canonicalText(const json &value) {
  std::string text;
  llvm::raw_string_ostream os(text);
  write(value, os);
  os << '\n';
  return text;
}
