#!/bin/sh
# Compiles the C and C++ libraries of one target once, so that no recipe pays for them again. The compiler keeps them by
# its flags: these are the ones that recipes link with (optimised, no debug information; the wrappers strip), and recipes
# tell cmake to use its release configuration for its own checks too.
set -eu
printf 'int main(void) { return 0; }\n' > /tmp/warm.c
printf '#include <string>\nint main() { return (int) std::string("").size(); }\n' > /tmp/warm.cpp
/opt/toolchain/bin/cc -O3 -g0 -static /tmp/warm.c -o /tmp/warm
/opt/toolchain/bin/c++ -O3 -g0 -static /tmp/warm.cpp -o /tmp/warm
rm -rf /tmp/warm /tmp/warm.c /tmp/warm.cpp /tmp/zig-local
