#!/usr/bin/env bash
# Builds the page again from its source and fails when the committed bundle is not what comes out.
set -euo pipefail
cd "$(dirname "$0")"

bundle=../plugins/backfill/ui/backfill.js
kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
cp "$bundle" "$kept"

npm ci --loglevel=error
npm run --silent build

if ! cmp -s "$bundle" "$kept"; then
  cp "$kept" "$bundle"
  echo "plugins/backfill/ui/backfill.js is not what ui/ builds: run 'make ui' and commit the result" >&2
  exit 1
fi
