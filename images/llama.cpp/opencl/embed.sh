#!/bin/sh
# embed.sh SCRIPT KERNEL HEADER: each line as a string of C++, as llama.cpp's own script of Python has it.
set -eu
sed 's/^/R"(/; s/$/\n)"/' "$2" > "$3"
