#!/bin/sh
# Stands in for a ptxas without faults: its cubin is some ELF file. FAKE_VERSION
# is what it says it is.
if [ "$1" = --version ]; then
  echo "Cuda compilation tools, V${FAKE_VERSION:-13.0.88}"
  exit 0
fi
while [ "$1" != -o ]; do shift; done
cp /bin/true "$2"
echo "ptxas info    : Used 32 registers, used 1 barriers, 1024 bytes smem"
