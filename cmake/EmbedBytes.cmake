# Writes the bytes of a file as a C++ source: arrays NAME, of NAMEBytes bytes.
#   cmake -DBYTES=file -DNAME=name -DOUTPUT=file.cpp -P EmbedBytes.cmake
file(READ ${BYTES} bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR count "${digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" bytes
  "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "#include <cstddef>
extern const unsigned char ${NAME}[];
extern const size_t ${NAME}Bytes;
const unsigned char ${NAME}[] = {
${bytes}};
const size_t ${NAME}Bytes = ${count};
")
