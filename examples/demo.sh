#!/bin/sh
# The demo: three nodes on this machine sort 100-byte records, and a checker that reads the files from scratch
# confirms the result. Everything it writes is removed at the end, whatever happens.
#
#   DEMO_RECORDS  how many records (10,000,000 are 1 GB)
#   DEMO_DIR      where to put the data (a folder of its own is made there)

set -eu

records=${DEMO_RECORDS:-10000000}
parent=${DEMO_DIR:-${TMPDIR:-/tmp}}
megabytes=$((records / 10000))

mkdir -p "$parent"
# Input and output, and as much again for what spills and for the system's own breathing space.
needed=$((3 * megabytes))
free=$(df -Pm "$parent" | awk 'NR == 2 { print $4 }')
if [ "$free" -lt "$needed" ]; then
    echo "demo: $parent has $free MB free and the demo needs $needed MB:" \
         "say make demo DEMO_DIR=/somewhere/larger, or DEMO_RECORDS=1000000" >&2
    exit 1
fi

data=$(mktemp -d "$parent/freehold-demo.XXXXXX")
trap 'rm -rf "$data"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n-- %s\n' "$*"; }

say "1. Make $records records of 100 bytes ($megabytes MB) in $data/in"
freehold sort gen --records "$records" "$data/in"

say "2. Sort them on three nodes of this machine into $data/out"
freehold sort run --nodes 3 "$data/in" "$data/out"

say "3. Check: every key in order, every record still there"
freehold sort check --input "$data/in" "$data/out"

say "Done; $data is removed"
