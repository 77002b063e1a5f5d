#!/bin/sh
# Fetches the OHIF viewer, ready-made static files under the MIT licence, into the folder $1.
# It needs npm, and takes the package from the registry that npm is set up with.
set -eu

package="@ohif/app@3.13.2"
sha512="5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10"
folder=${1:?usage: deploy/viewer.sh FOLDER}

if [ "$(cat "$folder/version" 2>/dev/null)" = "$package" ]; then
  echo "$package is in $folder already"
  exit 0
fi
command -v npm >/dev/null || { echo "npm is not installed. On Debian: apt-get install npm" >&2; exit 1; }

# Beside its place, so that it gets there in one step, and never in part.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/viewer.XXXXXX")
trap 'rm -rf "$work"' EXIT
npm pack "$package" --pack-destination "$work" --silent >/dev/null
archive=$(echo "$work"/*.tgz)
echo "$sha512  $archive" | sha512sum --check --status || {
  echo "$package is not the package that Triage was tested with: its SHA-512 differs" >&2
  exit 1
}
# Without source maps, and without what would load neural networks from elsewhere.
tar -xzf "$archive" -C "$work" --exclude='*.map' --exclude='dist/ort' --exclude='dist/sw.js'
cp "$work/package/LICENSE" "$work/package/dist/LICENSE"
echo "$package" > "$work/package/dist/version"
chmod -R a+rX "$work/package/dist"
rm -rf "$folder"
mv "$work/package/dist" "$folder"
echo "$package is in $folder"
